"""A transport that answers from a list or a function and remembers what it was given."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from otel_amplitude.transport import Request, Response


def answer(status: int, headers: dict[str, str] | None = None, **body: object) -> Response:
    """Give a JSON answer as Amplitude does: `code` is the status unless given.

    >>> answer(429, throttled_events=[1]).json()
    {'code': 429, 'throttled_events': [1]}
    """
    return Response(status, headers or {}, orjson.dumps({"code": status, **body}))


class Recorded:
    """One request as it was sent.

    Attributes:
        request: what the transport was given.
        envelope: the decoded body: `api_key`, `events`, maybe `options`.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        body = request.body
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.envelope: dict[str, Any] = orjson.loads(body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its events, in the order sent."""
        events: list[dict[str, Any]] = self.envelope["events"]
        return events


class FakeTransport:
    """A `Transport` for tests: nothing leaves the process.

    >>> from otel_amplitude.errors import TransportError
    >>> transport = FakeTransport([answer(500), TransportError("reset")])  # once each, then 200 for ever
    >>> transport = FakeTransport(lambda request: answer(413))

    Any thread may call it.

    Attributes:
        requests: each request it was given, also those answered with a fault.
        closed: how often it was closed.
    """

    def __init__(self, answers: Iterable[Response | Exception] | Callable[[Request], Response] = ()) -> None:
        """Answer from `answers`.

        Args:
            answers: a function from request to response, which may raise; or responses and exceptions to be given or raised
                one after the other. When they are used up, everything is accepted.
        """
        self._answer = answers if callable(answers) else None
        self._answers = iter(() if callable(answers) else answers)
        self._lock = threading.Lock()
        self.requests: list[Recorded] = []
        self.closed = 0

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all requests; those sent again are there again."""
        return [event for recorded in list(self.requests) for event in recorded.events]

    def send(self, request: Request) -> Response:
        """Record the request and answer it."""
        recorded = Recorded(request)
        with self._lock:
            self.requests.append(recorded)
            given = next(self._answers, None)
        if self._answer is not None:
            return self._answer(request)
        if isinstance(given, Exception):
            raise given
        return given or answer(200, events_ingested=len(recorded.events))

    def close(self) -> None:
        """Count it."""
        self.closed += 1
