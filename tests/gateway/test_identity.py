"""Who acts, where no request scope comes with the telemetry: certain, or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from convert.recorded import PAGE
from gateway.sending import ALICE, ANNOTATED, KEY, REQUEST, TYPES, Gateway, gateway, logs, record, span, traces

from otel_amplitude.clock import wall
from otel_amplitude.gateway.intake import Rules
from otel_amplitude.gateway.limits import RefusedError
from otel_amplitude.identity import make_cookie
from otel_amplitude.testing import FakeTransport, answer

both = pytest.mark.parametrize("content_type", TYPES)


@both
def test_a_user_set_on_a_child_is_the_user_of_the_request(made: Gateway, content_type: str) -> None:
    """As in Express, where the child was exported in an earlier request to the gateway."""
    made.take(traces(span(ALICE, id=2, parent=1, kind="INTERNAL")), content_type)
    made.take(traces(span(PAGE, id=1)), content_type)
    assert [(event["event_type"], event["user_id"]) for event in made.events] == [("HTTP Request", "alice-1")]


@both
def test_a_user_in_the_same_request_is_found_in_any_order(made: Gateway, content_type: str) -> None:
    """All spans of a request are noted before the first of them is read."""
    made.take(traces(span(PAGE, id=1), span(ALICE, id=2, parent=1, kind="INTERNAL")), content_type)
    assert made.users() == ["alice-1"]


def test_the_memory_only_looks_back(made: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """What came before its user is refused, counted, and named once with a cure that other languages have, too."""
    made.take(traces(span(PAGE, id=1)))
    made.take(traces(span(ALICE, id=2, parent=1, kind="INTERNAL")))
    assert (made.events, made.refused) == ([], {"no_identity": 1})
    (line,) = [line for line in caplog.messages if "identity.missing" in line]
    assert "set user.id" in line
    assert "set_user" not in line


def test_what_a_killed_memory_loses_is_counted(tmp_path: Path) -> None:
    """The user came to a gateway that was killed; its successor refuses the request, and says how many."""
    with gateway(tmp_path / "one") as killed:
        killed.take(traces(span(ALICE, id=2, parent=1, kind="INTERNAL")))
        assert killed.intake.stats()["traces_remembered"] == 1
    with gateway(tmp_path / "two") as successor:
        successor.take(traces(span(PAGE, id=1), span(REQUEST, trace=2)))
        assert successor.users() == ["alice-1"]
        stats = successor.intake.stats()
        assert (stats["traces_remembered"], stats["events"]["refused"]) == (1, {"no_identity": 1})


def test_users_of_another_process_do_not_count(made: Gateway) -> None:
    """A service behind may act as the account of a machine; and two users in one process are nobody."""
    made.take(traces(span(ALICE, id=9, kind="INTERNAL"), service="billing"))
    made.take(traces(span(ALICE, trace=2, id=8, kind="INTERNAL"), span({"user.id": "bob-12"}, trace=2, id=9, kind="INTERNAL")))
    made.take(traces(span(PAGE), span(PAGE, trace=2)))
    assert (made.events, made.refused) == ([], {"no_identity": 2})


def test_annotated_spans_ask_the_memory(made: Gateway) -> None:
    """Those of the same process."""
    made.take(traces(span(ALICE, id=2, kind="INTERNAL")))
    made.take(traces(span({"amplitude.event_type": "Order Paid"}, id=3, kind="INTERNAL")))
    assert made.users() == ["alice-1"]


def test_without_the_memory_only_parents_count(tmp_path: Path) -> None:
    """`--users span`: an annotated span has the user of its local parent in the same request."""
    with gateway(tmp_path / "spool", Rules(remembers=False)) as made:
        order = {"amplitude.event_type": "Order Paid"}
        made.take(traces(span(order, id=2, parent=1, kind="INTERNAL"), span(REQUEST, id=1)))
        made.take(traces(span(order, id=3, parent=1, kind="INTERNAL")))
        assert made.users() == ["alice-1", "alice-1"]
        assert made.refused == {"no_identity": 1}


def test_only_the_first_service_makes_automatic_events(made: Gateway) -> None:
    """One click is one event, also where a baggage processor writes the user on every span of every service."""
    made.take(traces(span(REQUEST, id=1)))
    made.take(traces(span(REQUEST, id=3, parent=2, is_remote=True), service="cart"))
    made.take(traces(span(REQUEST, id=5, parent=4, is_remote=True), service="billing"))
    assert (len(made.events), made.refused) == (1, {"inner_request": 2})


def test_annotated_requests_of_inner_services_are_events(made: Gateway) -> None:
    """An annotation is a decision of their own."""
    made.take(traces(span({**REQUEST, **ANNOTATED}, id=3, parent=2, is_remote=True), service="cart"))
    assert [event["event_type"] for event in made.events] == ["Order Paid"]


def test_services_that_browsers_call_can_be_named(tmp_path: Path) -> None:
    """`--requests-of`: their requests have a remote parent, the page."""
    with gateway(tmp_path / "spool", Rules(requests_of=("shop-*",))) as made:
        made.take(traces(span(REQUEST, parent=2, is_remote=True), service="shop-web"))
        made.take(traces(span(REQUEST, trace=2, parent=2, is_remote=True), service="cart"))
        assert (len(made.events), made.refused) == (1, {"inner_request": 1})


def test_a_service_without_requests_of_users_is_named_once(made: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """With the cure; but not a service that has some."""
    made.take(traces(span(REQUEST, trace=99), service="mixed"))
    for trace in range(1, 50):
        for service in ("cart", "mixed"):
            made.take(traces(span(REQUEST, trace=trace, parent=2, is_remote=True), service=service))
    lines = [line for line in caplog.messages if "gateway.inner_requests" in line]
    assert len(lines) == 1
    assert "service=cart" in lines[0]
    assert "--requests-of cart" in lines[0]


@both
def test_an_opt_out_holds_for_the_trace(made: Gateway, content_type: str) -> None:
    """In every service and for log records, from the request of OTLP on that holds it; other traces are not touched."""
    made.take(traces(span({**REQUEST, "amplitude.opt_out": "true"}, id=1)), content_type)
    made.take(traces(span(ANNOTATED, id=2, parent=1, kind="INTERNAL"), service="cart"), content_type)
    made.take(logs(record(ANNOTATED, trace=1)), content_type)
    made.take(traces(span(REQUEST, trace=2)), content_type)
    assert (len(made.events), made.refused) == (1, {"opted_out": 3})


@pytest.mark.parametrize(("value", "events"), [(False, 1), ("false", 1), (True, 0), ("yes", 0), (1, 0)])
def test_an_opt_out_that_can_not_be_read_is_one(made: Gateway, value: Any, events: int) -> None:
    """An answer that can not be read is no consent."""
    made.take(traces(span({**REQUEST, "amplitude.opt_out": value})))
    assert len(made.events) == events


@both
@pytest.mark.parametrize("spelling", ["http.request.header.sec-gpc", "http.request.header.sec_gpc"])
def test_captured_privacy_headers_are_honoured(tmp_path: Path, content_type: str, spelling: str) -> None:
    """With dashes, as Node, Java, Go and .NET write them, and with underscores, as Python does."""
    with gateway(tmp_path / "spool", consent="gpc") as made:
        made.take(traces(span({**REQUEST, spelling: ["1"]})), content_type)
        assert made.refused == {"opted_out": 1}


def test_a_session_is_judged_by_the_time_of_the_span(made: Gateway) -> None:
    """A request that arrives hours later has the session that it had."""
    then_ms = int(wall() * 1000) - 6 * 3600 * 1000
    cookie = make_cookie(KEY, device_id="device-1", user_id="alice-1", session_id=then_ms - 60_000, last_event_ms=then_ms)
    late = {**span({**PAGE, "http.request.header.cookie": [cookie]})}
    late["startTimeUnixNano"], late["endTimeUnixNano"] = str(then_ms * 1_000_000), str((then_ms + 5) * 1_000_000)
    made.take(traces(late))
    (event,) = made.events
    assert (event["user_id"], event["device_id"], event["session_id"]) == ("alice-1", "device-1", then_ms - 60_000)


def test_services_that_export_in_process_are_left_out(tmp_path: Path) -> None:
    """`--not-services`: both ways at once would count twice. Their opt-outs hold all the same."""
    with gateway(tmp_path / "spool", Rules(not_services=("shop", "legacy-*"))) as made:
        made.take(traces(span({**REQUEST, "amplitude.opt_out": True}), span(ALICE, trace=2, id=2, kind="INTERNAL"), service="shop"))
        made.take(traces(span(REQUEST, trace=3), service="legacy-cart"))
        made.take(traces(span(ANNOTATED, id=5, kind="INTERNAL"), span(REQUEST, trace=2), service="cart"))
        assert (len(made.events), made.refused) == (1, {"opted_out": 1})
        assert made.intake.stats()["items"]["other_services"] == 3


def test_only_some_services_are_read(tmp_path: Path) -> None:
    """`--services`."""
    with gateway(tmp_path / "spool", Rules(services=("shop",))) as made:
        made.take(traces(span(REQUEST, trace=3), service="cart"))
        made.take(traces(span(REQUEST)))
        assert len(made.events) == 1


def test_a_request_that_waits_for_delivery_says_what_became_of_it() -> None:
    """`--answer delivered`: 200 when Amplitude has acknowledged; what it rejects is rejected; else 503, and nothing is kept."""
    rules = Rules(answer="delivered", delivery_seconds=0.3)
    with gateway(None, rules, upload_interval=60.0) as made:
        assert made.take(traces(span(REQUEST))).said() == (0, "")
        assert made.client.stats().acknowledged == 1
    with gateway(None, rules, transport=FakeTransport(lambda _: answer(503))) as made:
        with pytest.raises(RefusedError) as refused:
            made.take(traces(span(REQUEST)))
        assert (refused.value.status, made.client.stats().pending.total, made.client.stats().returned) == (503, 0, 1)
    invalid = FakeTransport([answer(400, error="bad", events_with_invalid_fields={"time": [0]})])
    with gateway(None, rules._replace(delivery_seconds=5.0), transport=invalid) as made:
        assert made.take(traces(span(REQUEST))).said()[0] == 1
