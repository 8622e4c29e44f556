"""What automatic events are called."""

from __future__ import annotations

from typing import Any

from convert.recorded import PAGE, Heard, convert, convert_with, span

from otel_amplitude.convert import Converter, Selector


def test_one_type_for_all_requests() -> None:
    """A type for each route would flood a project."""
    assert convert(span(PAGE))["event_type"] == "HTTP Request"


def test_named_by_route() -> None:
    """For those who want it."""
    assert convert(span(PAGE), event_name="route")["event_type"] == "GET /cart"


def test_named_by_a_callable() -> None:
    """None, what is no text, and an error mean the usual name; the error is told."""
    heard = Heard()

    def broken(item: Any) -> str:
        raise RuntimeError

    assert convert(span(PAGE), event_name=lambda item: f"Seen {item.name}")["event_type"] == "Seen GET /cart"
    assert convert(span(PAGE), event_name=lambda item: None)["event_type"] == "HTTP Request"
    assert convert(span(PAGE), event_name=lambda item: 7)["event_type"] == "HTTP Request"
    assert convert(span(PAGE), event_name=broken)["event_type"] == "HTTP Request"
    assert convert(span(PAGE), event_name=broken, log=heard)["event_type"] == "HTTP Request"
    assert heard.lines == [("conversion.failed", {"reason": "event_name", "error": "RuntimeError"})]


def test_what_a_callable_select_brings() -> None:
    """Its text is the name; a span that is no request goes by its own name."""
    assert convert(span(kind="INTERNAL"), selector=Selector(select=lambda item: "Job Done"))["event_type"] == "Job Done"
    assert convert(span(kind="INTERNAL", name="nightly"), selector=Selector(select=lambda item: True))["event_type"] == "nightly"


def test_a_method_without_a_route_stands_alone() -> None:
    """No trailing space in a name."""
    item = span({"http.request.method": "GET"})
    assert convert(item, selector=Selector(select=lambda item: True), event_name="route")["event_type"] == "GET"


def test_names_too_many_become_other() -> None:
    """Beyond the guard the name is a property, which is said once; names seen before stay, and so do fixed ones."""
    heard = Heard()
    converter = Converter(event_name="route", max_event_types=2, log=heard)  # type: ignore[arg-type]

    def name(route: str) -> tuple[str, object]:
        event, _ = convert_with(converter, span({**PAGE, "http.route": route}))
        return event["event_type"], event["event_properties"].get("original_event_type")

    assert [name(route) for route in ("/a", "/b", "/c", "/d", "/a")] == [
        ("GET /a", None),
        ("GET /b", None),
        ("(other)", "GET /c"),
        ("(other)", "GET /d"),
        ("GET /a", None),
    ]
    assert heard.lines == [("event_types.exceeded", {"max_event_types": 2, "further": "(other)"})]


def test_the_guard_needs_no_log() -> None:
    """A converter on its own keeps it to itself."""
    assert convert(span(PAGE), event_name="route", max_event_types=0)["event_type"] == "(other)"
