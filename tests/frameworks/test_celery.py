"""Celery: a task acts for whoever caused it, whatever is instrumented in which order, and leaves nothing in the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from frameworks.seen import SESSION, Seen
from opentelemetry import propagate
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.trace import SpanKind

from otel_amplitude.frameworks.celery import instrument
from otel_amplitude.identity import scope_of, set_user
from otel_amplitude.identity._luggage import HEADER

SIGNALS = [signals.before_task_publish, signals.task_prerun, signals.task_postrun, signals.worker_process_shutdown, signals.worker_shutdown]


current: list[Seen] = []
finished: dict[str, threading.Event] = {}


def inside() -> None:
    """Make the span that a task makes of its own."""
    with current[-1].tracer.start_as_current_span("inside"):
        pass


@pytest.fixture(scope="module")
def worker() -> Iterator[Celery]:
    """An application with a broker in memory, and its worker in a thread of this process."""
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(broker_transport_options={"polling_interval": 0.01}, broker_connection_retry_on_startup=True)

    @app.task(name="mail", shared=False)
    def mail() -> tuple[Any, Any]:
        scope = scope_of()
        inside()
        return (scope.user_id, scope.opted_out) if scope is not None else (None, None)

    @app.task(name="other", shared=False)
    def other(user: str) -> None:
        set_user(user)
        inside()

    @app.task(name="consume", shared=False)
    def consume() -> list[Any]:
        contexts = [propagate.extract(headers) for headers in ({"baggage": "amplitude.user_id=u-67890"}, {})]
        inside()
        return [facts(context) for context in contexts]

    @app.task(name="chain", shared=False)
    def chain() -> str:
        return str(mail.delay().id)

    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
        yield app


@pytest.fixture
def celery(worker: Celery, seen: Seen) -> Iterator[Celery]:
    """The application; whatever a test instruments is undone."""
    current.append(seen)
    yield worker
    CeleryInstrumentor().uninstrument()
    for signal in SIGNALS:
        signal.disconnect(dispatch_uid="otel_amplitude")
    signals.task_postrun.disconnect(dispatch_uid="test")


def facts(context: Context) -> Any:
    """User and baggage of a scope that was extracted."""
    scope = scope_of(context)
    return (scope.user_id, scope.baggage) if scope is not None else None


def done(result: Any) -> Any:
    """Wait for a task and for all that follows its end."""
    value = result.get(timeout=20, interval=0.01)
    assert finished.setdefault(result.id, threading.Event()).wait(20)
    return value


def theirs(seen: Seen) -> None:
    """Instrument with OpenTelemetry."""
    CeleryInstrumentor().instrument(tracer_provider=seen.provider)


def ours(_: Seen) -> None:
    """Instrument with our glue."""
    instrument()


def note(task_id: str, **_: object) -> None:
    """Connected last, so all other receivers have done their work."""
    finished.setdefault(task_id, threading.Event()).set()


def use(seen: Seen, *steps: Callable[[Seen], None]) -> None:
    """Instrument in this order."""
    for step in steps:
        step(seen)
    signals.task_postrun.connect(note, weak=False, dispatch_uid="test")


def in_a_request(cookie: str, work: Callable[[], Any]) -> Any:
    """Do `work` as a view would."""
    token = attach(propagate.extract({"cookie": f"sessionid=secret; {cookie}"}, get_current()))
    try:
        return work()
    finally:
        detach(token)


@pytest.mark.parametrize("steps", [(ours,), (ours, theirs), (theirs, ours)], ids=["alone", "before", "after"])
def test_a_task_acts_for_whoever_caused_it(celery: Celery, seen: Seen, cookie: str, steps: tuple[Callable[[Seen], None], ...]) -> None:
    """User, device and session are the request's; the next task knows nobody; no span and no other header shows it."""
    use(seen, *steps)

    def view() -> Any:
        set_user("u-12345", groups={"org": "acme"})
        return celery.tasks["mail"].delay()

    assert done(in_a_request(cookie, view)) == ["u-12345", False]
    assert done(celery.tasks["mail"].delay())[0] is None
    first, second = (identity for span, identity in seen.spans if span.name == "inside")
    assert first[:4] == ("u-12345", "d-browser", SESSION, {"org": "acme"})
    assert second.refusal == "no_identity"
    consumers = [identity.user_id for span, identity in seen.spans if span.kind is SpanKind.CONSUMER]
    assert consumers == (["u-12345", None] if theirs in steps else [])
    assert "d-browser" not in seen.texts()
    assert "secret" not in seen.texts()


@pytest.mark.parametrize("steps", [(ours,), (ours, theirs), (theirs, ours)], ids=["alone", "before", "after"])
def test_a_message_inside_a_task_is_its_own_persons(
    celery: Celery, seen: Seen, cookie: str, steps: tuple[Callable[[Seen], None], ...]
) -> None:
    """What a task extracts is read from the headers of that message; the task itself goes on for whoever caused it."""
    use(seen, *steps)

    def view() -> Any:
        set_user("u-12345")
        return celery.tasks["consume"].delay()

    assert done(in_a_request(cookie, view)) == [[None, {"amplitude.user_id": "u-67890"}], [None, None]]
    assert seen.users("inside") == ["u-12345"]


@pytest.mark.usefixtures("no_propagator")
def test_without_the_propagator(celery: Celery, seen: Seen) -> None:
    """Called after OpenTelemetry's instrumentation, the glue finds the task's span."""
    use(seen, theirs, ours)

    def view() -> Any:
        with seen.tracer.start_as_current_span("request"):
            set_user("u-12345")
            return celery.tasks["mail"].delay()

    assert done(view()) == ["u-12345", False]
    assert done(celery.tasks["mail"].delay())[0] is None
    assert seen.users("inside") == ["u-12345", None]


def test_an_opt_out_reaches_the_task(celery: Celery, seen: Seen, cookie: str) -> None:
    """Nothing of the task is sent either."""
    use(seen, ours)

    def view() -> Any:
        set_user("u-12345", opt_out=True)
        return celery.tasks["mail"].delay()

    assert done(in_a_request(cookie, view)) == ["u-12345", True]
    assert [identity.refusal for span, identity in seen.spans if span.name == "inside"] == ["opted_out"]


def test_a_task_of_a_task_and_a_task_that_knows_better(celery: Celery, seen: Seen, cookie: str) -> None:
    """Identity travels on; what one task says is not the next one's."""
    use(seen, ours, theirs)

    def view() -> Any:
        set_user("u-12345")
        return celery.tasks["chain"].delay()

    done(celery.AsyncResult(done(in_a_request(cookie, view))))
    done(celery.tasks["other"].delay("u-67890"))
    done(celery.tasks["mail"].delay())
    assert seen.users("inside") == ["u-12345", "u-67890", None]


@pytest.mark.parametrize("steps", [(ours,), (ours, theirs), (theirs, ours)], ids=["alone", "before", "after"])
def test_an_eager_task_gives_the_context_back(celery: Celery, seen: Seen, cookie: str, steps: tuple[Callable[[Seen], None], ...]) -> None:
    """In the request's own process and context, the request goes on as if nothing had been."""
    use(seen, *steps)

    def view() -> Any:
        set_user("u-12345")
        before = get_current()
        celery.tasks["mail"].apply().get()
        return before is get_current(), scope_of()

    same, scope = in_a_request(cookie, view)
    assert same
    assert scope is not None
    assert scope.user_id == "u-12345"
    assert scope_of() is None


def test_the_header_is_the_only_trace(celery: Celery, seen: Seen, cookie: str) -> None:
    """Other cookies stay at home, and a request that knows nothing adds no header."""
    use(seen, ours)
    published: list[dict[str, Any]] = []

    def remember(headers: dict[str, Any], **_: object) -> None:
        published.append(dict(headers))

    signals.before_task_publish.connect(remember)
    done(in_a_request(cookie, celery.tasks["mail"].delay))
    done(celery.tasks["mail"].delay())
    first, second = published
    assert "secret" not in first[HEADER]
    assert "AMP_0123456789=" in first[HEADER]
    assert HEADER not in second


class Client:
    """Counts its shutdowns."""

    def __init__(self) -> None:
        self.count = 0

    def shutdown(self) -> None:
        self.count += 1


def test_a_worker_process_that_ends_delivers(celery: Celery) -> None:
    """The client named last is shut down, once, for a prefork child and for a worker of its own; connecting twice is connecting once."""
    first, last = Client(), Client()
    instrument(first)
    instrument(lambda: last)
    signals.worker_process_shutdown.send(sender=None, pid=1, exitcode=0)
    signals.worker_shutdown.send(sender=None)
    assert (first.count, last.count) == (0, 2)
    instrument()
    signals.worker_process_shutdown.send(sender=None, pid=1, exitcode=0)
    assert last.count == 2


def test_a_finish_without_a_start(celery: Celery, seen: Seen) -> None:
    """Connected in the middle of a task, the glue undoes nothing."""
    use(seen, ours)
    signals.task_postrun.send(sender=None, task_id="never-started")
    assert scope_of() is None
