"""Spans and log records come in: what becomes an event, whose it is, and that nothing reaches the application."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import attach, detach, set_value
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, SamplingResult, StaticSampler
from opentelemetry.trace import SpanKind

from otel_amplitude import AmplitudeSpanProcessor, InvalidEventError, set_user
from otel_amplitude.otel._sampler import RecordServerSpans
from otel_amplitude.suppression import suppressed
from otel_amplitude.testing import FakeTransport

SERVER = {"http.request.method": "POST", "http.route": "/orders", "http.response.status_code": 201}


def annotate(**more: Any) -> dict[str, Any]:
    return {"amplitude.event_type": "Order Paid", "amplitude.user_id": "u-12345", **more}


def test_an_annotated_span_of_any_kind_is_an_event(join: Any) -> None:
    """The most deliberate way."""
    joined = join()
    for kind in SpanKind:
        joined.tracer.start_span("work", kind=kind, attributes=annotate(kind_name=kind.name)).end()
    assert [event["event_properties"]["kind_name"] for event in joined.events()] == [kind.name for kind in SpanKind]


def test_a_request_of_a_known_user_is_an_event_without_code(join: Any) -> None:
    """Automatic: a SERVER span with a route, below 400, of someone known from this request."""
    joined = join()
    with joined.tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER, attributes=SERVER):
        set_user("u-12345")
    (event,) = joined.events()
    assert event["event_type"] == "HTTP Request"
    assert event["user_id"] == "u-12345"
    assert event["event_properties"]["route"] == "/orders"
    assert event["event_properties"]["service"] == "shop"


def test_a_request_of_nobody_is_refused_and_counted(join: Any) -> None:
    """Never a random id, never a host name."""
    joined = join()
    joined.tracer.start_span("POST /orders", kind=SpanKind.SERVER, attributes=SERVER).end()
    assert joined.events() == []
    assert joined.refused() == {"no_identity": 1}


def test_other_spans_are_no_events_and_not_counted(join: Any) -> None:
    """The path that everybody pays."""
    joined = join()
    joined.tracer.start_span("SELECT", attributes={"db.system.name": "postgresql"}).end()
    assert (joined.events(), joined.refused()) == ([], {})


def test_what_is_learned_late_reaches_every_span_that_ends_later(join: Any) -> None:
    """A log-in in the middle of a request names the request."""
    joined = join()
    with joined.tracer.start_as_current_span("POST /login", kind=SpanKind.SERVER, attributes=SERVER):
        with joined.tracer.start_as_current_span("check", attributes={"amplitude.event_type": "Checked"}):
            pass
        set_user("u-12345")
        with joined.tracer.start_as_current_span("greet", attributes={"amplitude.event_type": "Greeted"}):
            pass
    assert [(event["event_type"], event["user_id"]) for event in joined.events()] == [("Greeted", "u-12345"), ("HTTP Request", "u-12345")]
    assert joined.refused() == {"no_identity": 1}


def test_an_exception_of_our_own_never_reaches_the_application(
    join: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenTelemetry would let it replace the application's own (OT 0.1)."""
    joined = join()

    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    reader = joined.client.reader
    for owner, name in ((reader.open_spans, "started"), (reader.open_spans, "forget"), (reader.open_spans, "around")):
        monkeypatch.setattr(owner, name, explode)
    with joined.tracer.start_as_current_span("work", attributes=annotate()):
        pass
    joined.logger.emit(event_name="signup", attributes={"amplitude.user_id": "u-12345"})
    assert joined.refused() == {"internal": 2}
    line = caplog.records[0].getMessage()
    assert line.startswith('conversion.failed error="RuntimeError at test_processors.py:'), "told by type and place, never by its text"
    assert "ours" not in line


def test_a_middleware_that_raises_never_reaches_the_application(join: Any) -> None:
    """It loses its event, counted."""
    joined = join()
    joined.client.add_event_middleware(lambda _payload, _next: 1 / 0)
    joined.tracer.start_span("work", attributes=annotate()).end()
    assert joined.refused() == {"middleware": 1}


def test_strict_lets_a_bad_event_raise(join: Any) -> None:
    """Tests like to see it at once."""
    joined = join(strict=True)
    with pytest.raises(InvalidEventError, match="event_type"):
        joined.tracer.start_span("work", attributes=annotate(**{"amplitude.event_type": "[Amplitude] Start Session"})).end()


def test_provider_flush_reaches_our_buffer(join: Any) -> None:
    """The SDK flushes processors, never exporters (OT 0.2)."""
    joined = join(upload_interval=3600)
    joined.tracer.start_span("work", attributes=annotate()).end()
    assert joined.tracer_provider.force_flush(5_000)
    assert len(joined.transport.events) == 1


def test_identity_set_at_start_survives_eviction(join: Any) -> None:
    """Python evicts the oldest attribute when a span is full (OT 3.3); a scope does not live on the span."""
    joined = join()
    provider = TracerProvider(span_limits=SpanLimits(max_span_attributes=2), shutdown_on_exit=False)
    provider.add_span_processor(joined.span_processor)
    with provider.get_tracer("x").start_as_current_span("work") as span:
        set_user("u-12345")
        for name in ("one", "two", "three"):
            span.set_attribute(name, name)
        span.set_attribute("amplitude.event_type", "Full")
    assert joined.events()[0]["user_id"] == "u-12345"


def test_a_span_may_end_on_another_thread(join: Any) -> None:
    """Its identity is that of its own context, not of the thread that ends it (OT 0.6)."""
    joined = join()
    with joined.tracer.start_as_current_span("request", kind=SpanKind.SERVER, attributes=SERVER):
        set_user("u-12345")
        span = joined.tracer.start_span("work", attributes={"amplitude.event_type": "Work"})
    other = threading.Thread(target=span.end)
    other.start()
    other.join()
    assert {event["user_id"] for event in joined.events()} == {"u-12345"}


def test_recorded_but_unsampled_spans_count(join: Any) -> None:
    """Product analytics must not shrink with trace sampling (OT 1.4)."""
    joined = join(sampler=StaticSampler(Decision.RECORD_ONLY))
    joined.tracer.start_span("work", attributes=annotate()).end()
    assert len(joined.events()) == 1


def test_our_sampler_records_requests_that_are_not_sampled(join: Any) -> None:
    """The other exporter still sees nothing of them."""
    joined = join(sampler=RecordServerSpans(ALWAYS_OFF))
    others = InMemorySpanExporter()
    joined.tracer_provider.add_span_processor(SimpleSpanProcessor(others))
    with joined.tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER, attributes=SERVER):
        set_user("u-12345")
        joined.tracer.start_span("SELECT").end()
    assert len(joined.events()) == 1
    assert others.get_finished_spans() == ()


def test_nothing_is_an_event_while_instrumentation_is_suppressed(join: Any) -> None:
    """What other exporters do inside export is not what users do (OT 2.4)."""
    joined = join()
    with suppressed():
        joined.tracer.start_span("work", attributes=annotate()).end()
        joined.logger.emit(event_name="signup", attributes={"amplitude.user_id": "u-12345"})
    assert joined.events() == []


def test_after_shutdown_spans_are_counted_not_sent(join: Any) -> None:
    """The SDK still calls processors then (OT 1.1)."""
    joined = join()
    tracer = joined.tracer
    joined.tracer_provider.shutdown()
    joined.tracer_provider.shutdown()
    joined.logger_provider.shutdown()
    tracer.start_span("work", attributes=annotate()).end()
    joined.span_processor.on_end(ReadableSpan("hand-made", attributes=annotate()))
    assert joined.refused().get("closed", 0) >= 1
    assert joined.transport.events == []


def test_spans_marked_as_sent_or_skipped_are_no_events(join: Any) -> None:
    """Another Amplitude SDK has sent them, or the application said no."""
    joined = join()
    for mark in ("amplitude.sdk.emitted", "amplitude.skip"):
        joined.tracer.start_span("work", attributes=annotate(**{mark: True})).end()
    assert joined.events() == []


def test_span_events_on_chosen_spans(join: Any) -> None:
    """A span event with the annotation is an event of its own."""
    joined = join()
    with joined.tracer.start_as_current_span("work", attributes=annotate()) as span:
        span.add_event("click", {"amplitude.event_type": "Clicked", "color": "red"})
        span.add_event("not annotated")
    events = joined.events()
    assert [event["event_type"] for event in events] == ["Order Paid", "Clicked"]
    assert events[1]["insert_id"] == events[0]["insert_id"] + "-0"


@pytest.mark.parametrize("everywhere", [False, True])
def test_span_events_on_other_spans_by_option(join: Any, everywhere: bool) -> None:
    """Looking costs 1.4 µs for every span, so it is asked for."""
    joined = join(span_events=everywhere)
    with joined.tracer.start_as_current_span("work") as span:
        set_user("u-12345")
        span.add_event("click", {"amplitude.event_type": "Clicked"})
    assert len(joined.events()) == everywhere


def test_two_processors_give_one_insert_id(join: Any) -> None:
    """A span exported twice is one Amplitude event."""
    joined = join()
    joined.tracer_provider.add_span_processor(AmplitudeSpanProcessor(joined.client))
    joined.tracer.start_span("work", attributes=annotate()).end()
    first, second = joined.events()
    assert first["insert_id"] == second["insert_id"]


def test_only_the_environments_named_send(join: Any) -> None:
    """Staging must not pollute the project."""
    staging = join(environments=["production"], resource={"deployment.environment.name": "staging"})
    production = join(environments=["production"], resource={"deployment.environment.name": "production"})
    for joined in (staging, production):
        joined.tracer.start_span("work", attributes=annotate()).end()
    assert (len(staging.events()), staging.refused()) == (0, {"environment": 1})
    assert len(production.events()) == 1


def test_automatic_events_are_capped_for_each_id(join: Any) -> None:
    """Annotated ones are exempt."""
    joined = join(auto_events_per_minute=3)
    for user in ("u-12345", "u-67890"):
        for _ in range(5):
            with joined.tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER, attributes=SERVER):
                set_user(user)
        joined.tracer.start_span("work", attributes=annotate(**{"amplitude.user_id": user})).end()
    assert sorted(event["user_id"] for event in joined.events()) == ["u-12345"] * 4 + ["u-67890"] * 4
    assert joined.refused() == {"cap": 4}


# Log records


def test_a_log_record_with_an_event_name_is_an_event(join: Any) -> None:
    """Identity is that of the record's own context."""
    joined = join()
    token = attach(context.get_current())
    set_user("u-12345")
    joined.logger.emit(event_name="signup", attributes={"plan": "pro"}, body="signed up", severity_number=SeverityNumber.INFO)
    detach(token)
    (event,) = joined.events()
    assert (event["event_type"], event["user_id"], event["event_properties"]["plan"]) == ("signup", "u-12345", "pro")


def _evaluate(joined: Any, kind: str) -> None:
    flag = {"feature_flag.key": "new-ui", "feature_flag.result.variant": "on"}
    if kind == "log":
        joined.logger.emit(event_name="feature_flag.evaluation", attributes={**flag, "amplitude.user_id": "u-12345"})
    else:
        with joined.tracer.start_as_current_span("page", attributes={"amplitude.user_id": "u-12345"}) as span:
            span.add_event("feature_flag.evaluation", flag)


@pytest.mark.parametrize("kind", ["log", "span event"])
def test_an_exposure_that_was_not_accepted_is_told_by_the_next_evaluation(join: Any, kind: str) -> None:
    """Told once a day means that somebody has heard of it."""
    joined = join(exposures=True)
    joined.client.opt_out = True
    _evaluate(joined, kind)
    joined.client.opt_out = False
    _evaluate(joined, kind)
    _evaluate(joined, kind)
    assert [event["event_type"] for event in joined.events()] == ["$exposure"]
    assert joined.refused() == {"opted_out": 1, **({"repeated": 1} if kind == "log" else {})}


@pytest.mark.parametrize("exposures", [True, False])
def test_another_event_that_was_not_accepted_is_no_matter_of_exposures(join: Any, exposures: bool) -> None:
    """It is counted, and that is all."""
    joined = join(exposures=exposures)
    joined.logger.emit(event_name="Signed Up", attributes={"amplitude.user_id": "u-12345", "amplitude.price": "much", "amplitude.time": -1})
    assert joined.refused() == {"invalid_time": 1}


@pytest.mark.parametrize("kind", ["log", "span event"])
def test_an_exposure_that_strict_refuses_is_not_remembered(join: Any, kind: str) -> None:
    """It raises each time."""

    def breaks(payload: Any, next: Any) -> None:
        payload.event["price"] = "much"
        next(payload)

    joined = join(exposures=True, strict=True, middleware=[breaks])
    for _ in range(2):
        with pytest.raises(InvalidEventError, match="price"):
            _evaluate(joined, kind)


@pytest.mark.parametrize("name", [None, "", "exception", "gen_ai.client.inference.operation.details", "browser.web_vital", "session.start"])
def test_other_log_records_are_no_events(join: Any, name: str | None) -> None:
    """A line of a log is telemetry, and so are OpenTelemetry's own events."""
    joined = join()
    joined.logger.emit(event_name=name, attributes={"amplitude.user_id": "u-12345"}, body="text")
    assert joined.events() == []


@pytest.mark.parametrize("scope", ["otel_amplitude", "otel_amplitude.delivery", "urllib3.connectionpool", "requests"])
def test_our_own_log_lines_are_never_events(join: Any, scope: str) -> None:
    """Else every upload would make the next (OT 2.5)."""
    joined = join()
    logger = joined.logger_provider.get_logger(scope)
    logger.emit(event_name="signup", attributes={"amplitude.user_id": "u-12345"})
    assert joined.events() == []


def test_log_lines_of_a_middleware_or_transport_on_the_senders_thread_are_no_events(join: Any) -> None:
    """Whatever logs while we send must not feed what we send."""
    emitted = []

    class Chatty(FakeTransport):
        def send(self, request: Any) -> Any:
            joined.logger.emit(event_name="sending", attributes={"amplitude.user_id": "u-12345"})
            emitted.append(request)
            return super().send(request)

    joined = join(Chatty())
    joined.tracer.start_span("work", attributes=annotate()).end()
    assert [event["event_type"] for event in joined.events()] == ["Order Paid"]
    assert emitted


def test_on_emit_leaves_the_record_as_it_was(join: Any) -> None:
    """Later processors see it too, and share its attributes (OT 1.2)."""
    joined = join()
    attributes = {"amplitude.user_id": "u-12345", "tags": ["a", "b"]}
    seen = []

    class Later:
        def on_emit(self, record: Any) -> None:
            seen.append(dict(record.log_record.attributes))

        def shutdown(self) -> None: ...

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    joined.logger_provider.add_log_record_processor(Later())
    joined.logger.emit(event_name="signup", attributes=attributes)
    assert seen == [{"amplitude.user_id": "u-12345", "tags": ("a", "b")}]


def test_two_requests_in_one_loop_do_not_mix(join: Any) -> None:
    """Tasks have contexts of their own."""
    joined = join()

    async def request(user: str) -> None:
        with joined.tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER, attributes=SERVER):
            await asyncio.sleep(0)
            set_user(user)
            await asyncio.sleep(0)
            joined.tracer.start_span("pay", attributes={"amplitude.event_type": "Paid"}).end()

    async def both() -> None:
        await asyncio.gather(request("u-11111"), request("u-22222"))

    asyncio.run(both())
    assert sorted((event["event_type"], event["user_id"]) for event in joined.events()) == [
        ("HTTP Request", "u-11111"),
        ("HTTP Request", "u-22222"),
        ("Paid", "u-11111"),
        ("Paid", "u-22222"),
    ]


any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), any_value, max_size=8), any_value)
def test_no_attribute_and_no_body_makes_a_processor_raise(attributes: dict[str, Any], body: Any) -> None:
    """Whatever a value is, the application goes on and the books balance."""
    from otel.conftest import Joined

    joined = Joined(FakeTransport(), {})
    span = ReadableSpan(
        "work",
        context=trace.SpanContext(1, 2, is_remote=False),
        attributes=_Copyable({**attributes, **annotate()}),
        start_time=1,
        end_time=2,
    )
    joined.span_processor.on_end(span)
    joined.logger.emit(event_name="signup", body=body, attributes={**attributes, "amplitude.user_id": "u-12345"})
    books = joined.client.stats()
    assert books.balanced
    assert books.accepted + sum(books.refused.values()) == 2
    assert "internal" not in books.refused
    joined.client.shutdown(1)


class _Copyable(dict[str, Any]):
    """A dictionary whose copy is plain, as that of the SDK's attributes."""


def test_a_processor_works_without_a_resource_or_scope(join: Any) -> None:
    """Hand-made spans have neither."""
    joined = join()
    joined.span_processor.on_end(ReadableSpan("work", attributes=annotate()))
    assert joined.events()[0]["event_type"] == "Order Paid"


def test_an_unknown_sampling_result_is_respected() -> None:
    """Only a drop of a SERVER span is changed."""
    root = StaticSampler(Decision.RECORD_AND_SAMPLE)
    result = RecordServerSpans(root).should_sample(None, 1, "x", SpanKind.SERVER)
    assert isinstance(result, SamplingResult)
    assert result.decision is Decision.RECORD_AND_SAMPLE
    assert RecordServerSpans(ALWAYS_OFF).should_sample(None, 1, "x", SpanKind.CLIENT).decision is Decision.DROP


def test_identity_of_a_context_given_by_hand(join: Any) -> None:
    """on_start's parent_context counts, not the current one."""
    joined = join()
    token = attach(set_value("unrelated", 1))
    set_user("u-12345")
    inside = context.get_current()
    detach(token)
    joined.tracer.start_span("work", context=inside, attributes={"amplitude.event_type": "Work"}).end()
    assert joined.events()[0]["user_id"] == "u-12345"
