"""The middlewares of one client as one callable: each event leaves it once, or is refused once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, TypeAlias, TypeVar

from otel_amplitude.errors import MiddlewareError
from otel_amplitude.events import Event
from otel_amplitude.fixes import Note, ignore

T = TypeVar("T")
REASON: Final = "middleware"


class Payload:
    """What a middleware gets: one event on its way out, with what belongs to it but is not sent.

    Attributes:
        event: the event, free to be changed or replaced. Limits on single values (long texts, NaN) are applied after the chain.
        extra: data for middlewares, never sent.
        source: the span or log record it was made of; None for `log_event`. Not to be changed.
    """

    __slots__ = ("_made", "_note", "event", "extra", "source")

    def __init__(
        self,
        event: Event,
        extra: dict[str, Any] | None = None,
        source: object = None,
        _made: dict[str, Any] | None = None,
        _note: Note = ignore,
    ) -> None:
        self.event = event
        self.extra = {} if extra is None else extra
        self.source = source
        # The event as it was made, to compare with what the chain returns.
        self._made = _made
        # Called for each value that a middleware of ours removes because it has no form in JSON.
        self._note = _note

    def __repr__(self) -> str:
        return f"Payload(event={self.event!r}, extra={self.extra!r}, source={type(self.source).__name__})"


Next: TypeAlias = Callable[[Payload], None]
Middleware: TypeAlias = Callable[[Payload, Next], None]
Refuse: TypeAlias = Callable[[str, str, "BaseException | None"], T]


def name_of(middleware: object) -> str:
    """Give the name under which a middleware is counted: a function's own, else its class."""
    return str(getattr(middleware, "__name__", None) or type(middleware).__name__)


class Chain(Generic[T]):
    """Middlewares in the order given, then `finish`; immutable, so any thread may call it, several at once.

    `finish` gets the payload after the last middleware has returned: what a middleware changes after its `next` still counts, and one
    that raises after it still loses the event. So an event is either finished or refused, never both.
    """

    __slots__ = ("_finish", "_links", "_refuse")

    def __init__(self, middlewares: Iterable[Middleware], finish: Callable[[Payload], T], refuse: Refuse[T]) -> None:
        """Link the middlewares.

        Args:
            middlewares: as `Config` checked them; the first gets the payload first.
            finish: gets the payload that came through, on the caller's thread; its answer is the chain's.
            refuse: called with (`"middleware"`, name of the middleware, its exception or None when it did not call `next`), and returns the result.
        """
        self._finish = finish
        self._refuse = refuse
        links = []
        for middleware in middlewares:
            # An object's __call__ bound once costs half of calling the object.
            call: Any = middleware if inspect.isroutine(middleware) else getattr(middleware, "__call__")  # noqa: B004, B009 -- see above
            links.append((call, name_of(middleware)))
        self._links = tuple(links)

    def __call__(self, payload: Payload) -> T:
        """Send one payload through; only what is no `Exception` (a cancellation, an exit) is raised, and `finish`'s own exceptions."""
        run = _Run(iter(self._links))
        try:
            run.next(payload)
        except BaseException as error:
            self._refuse(REASON, run.name, error)
            raise
        return self._refuse(REASON, run.name, run.error) if run.arrived is None else self._finish(run.arrived)


class _Run:
    """One payload's way: calls nest, so the first middleware that returns ends it, and any later `next` is a second one."""

    arrived: Payload | None = None
    error: Exception | None = None
    name = ""
    _returned = False

    def __init__(self, links: Iterator[tuple[Middleware, str]]) -> None:
        self._left = links

    def next(self, payload: Payload) -> None:
        if self._returned:
            raise MiddlewareError(
                "next was called twice, or after the middleware had returned: call it once, or not at all to drop the event"
            )
        if type(payload) is not Payload and not isinstance(payload, Payload):
            raise MiddlewareError(f"next takes a Payload, not {type(payload).__name__}: call next(payload)")
        for middleware, name in self._left:
            self.name = name
            try:
                middleware(payload, self.next)
            except Exception as error:  # a failed redaction must let nothing through, and the application must not notice
                self.arrived, self.error, self.name = None, error, name
            finally:
                self._returned = True
            return
        self.arrived = payload
        self._returned = True
