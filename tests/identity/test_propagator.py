"""The propagator: a new scope for each request with the raw texts, nothing going out, and no exception from any carrier."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.identity import AmplitudePropagator, RequestScope, read_identity_headers, scope_of, set_user


def extract(headers: Any, identity_headers: Any = None, context: Context | None = None) -> RequestScope:
    """The scope that the propagator makes of `headers`."""
    scope = scope_of(AmplitudePropagator(identity_headers or {}).extract(headers, context))
    assert scope is not None
    assert scope.shared
    return scope


def test_keeps_the_raw_texts() -> None:
    """Cookie, named headers and the privacy signal are kept as they came."""
    headers = {"cookie": "theme=dark; AMP_0123456789=abc", "x-device-id": "d-12345", "sec-gpc": "1", "x-other": "no"}
    scope = extract(headers, {"device": "X-Device-Id", "user": "x-user"})
    assert (scope.cookie, scope.headers, scope.gpc) == (headers["cookie"], {"x-device-id": "d-12345"}, True)


def test_does_not_keep_foreign_cookies() -> None:
    """A header without a cookie of Amplitude's is not held."""
    assert extract({"cookie": "sessionid=secret"}).cookie is None


@pytest.mark.parametrize("name", ["AMP_0123456789", "amp_012345_example.com"])
def test_joins_split_cookies(name: str) -> None:
    """HTTP/2 may send each cookie in its own header."""
    assert extract({"cookie": ["a=b", f"{name}=abc"]}).cookie == f"a=b; {name}=abc"


def test_reads_the_allow_listed_baggage_only() -> None:
    """Three names are ours; the rest is somebody else's."""
    propagator = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator(), AmplitudePropagator({})])
    context = propagator.extract({"baggage": "amplitude.user_id=u-12345,amplitude.device_id=d%2D1,amplitude.session_id=17,tenant=secret"})
    scope = scope_of(context)
    assert scope is not None
    assert scope.baggage == {"amplitude.user_id": "u-12345", "amplitude.device_id": "d-1", "amplitude.session_id": "17"}


def test_baggage_that_is_no_text_is_left() -> None:
    """Anything can be put into baggage in process."""
    assert extract({}, context=baggage.set_baggage("amplitude.user_id", 17, Context())).baggage == {}


def test_a_request_starts_with_nothing_of_the_context_around() -> None:
    """What set_user left in the context of the thread is not the request's."""
    token = attach(Context())
    set_user("u-12345")
    scope = extract({})
    detach(token)
    assert scope.user_id is None


def test_keeps_the_rest_of_the_context() -> None:
    """Trace and baggage extracted before stay."""
    context = TraceContextTextMapPropagator().extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    kept = AmplitudePropagator({}).extract({}, context)
    assert trace.get_current_span(kept).get_span_context().span_id == 0xB7AD6B7169203331


def test_injects_nothing() -> None:
    """Identity leaves the process towards Amplitude alone."""
    carrier: dict[str, str] = {}
    propagator = AmplitudePropagator({})
    propagator.inject(carrier, propagator.extract({"cookie": "AMP_0123456789=abc"}))
    assert (carrier, propagator.fields) == ({}, set())


class Broken:
    def get(self, *_: object) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("carrier", [{"cookie": [b"AMP_0=x", None, 5]}, {"cookie": "AMP_" * 5_000}, {"cookie": []}])
def test_odd_headers_are_left(carrier: dict[str, Any]) -> None:
    """What is no text or far too long is not kept."""
    assert not extract(carrier).cookie


def test_a_getter_that_gives_bare_text() -> None:
    """Some instrumentations break the contract that way."""

    class Bare:
        def get(self, carrier: dict[str, str], key: str) -> Any:
            return carrier.get(key)

    scope = scope_of(AmplitudePropagator({}).extract({"cookie": "AMP_0=x"}, None, Bare()))  # type: ignore[arg-type]
    assert scope is not None
    assert scope.cookie == "AMP_0=x"


def test_a_broken_getter_costs_the_identity_only() -> None:
    """The request goes on with an empty scope that set_user can fill."""
    scope = scope_of(AmplitudePropagator({}).extract({}, None, Broken()))  # type: ignore[arg-type]
    assert scope is not None
    assert (scope.shared, scope.cookie) == (True, None)


def test_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built by entry point it finds the headers by itself."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS", "device=X-Device-Id")
    scope = scope_of(AmplitudePropagator().extract({"x-device-id": "d-12345"}))
    assert scope is not None
    assert scope.headers == {"x-device-id": "d-12345"}


@pytest.mark.parametrize("value", ["", "email=x-mail", "device"])
def test_nonsense_in_the_environment_does_not_stop_the_other_propagators(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """An exception here would cost the service its traces."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS", value)
    assert scope_of(AmplitudePropagator().extract({})) is not None


@pytest.mark.parametrize("option", ["device", "email=x-mail", "device=x id", {"device": ""}, "=x", "device=x:y", {"session": "ä"}])
def test_nonsense_as_an_argument_is_an_error(option: Any) -> None:
    """The message names the option and shows a right one."""
    with pytest.raises(ConfigurationError, match=r"identity_headers must map .*device=x-device-id"):
        read_identity_headers(option)


@pytest.mark.parametrize("option", [None, "", {}, " , "])
def test_no_identity_headers(option: Any) -> None:
    """Absent and empty mean none."""
    assert read_identity_headers(option) == {}
