"""Runs the steps of a response's body in the scope of its request.

Between two steps a server's thread belongs to the server, so the scope is attached for each step and detached after it. The context that a
step leaves is attached again for the next one: spans that the body opened stay open around what follows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import Token
from typing import Any, ParamSpec, TypeVar

from opentelemetry.context import Context, attach, detach, get_current

from otel_amplitude.identity._scope import Scope, with_scope

P = ParamSpec("P")
R = TypeVar("R")


class Within:
    """Calls functions in a scope, one after the other, each in the context that the one before left."""

    def __init__(self, scope: Scope, context: Context | None = None) -> None:
        """Begin with `context`; None: the current one of the first call."""
        self._scope = scope
        self._context = None if context is None else with_scope(scope, context)

    def enter(self) -> Token[Context]:
        """Attach the scope; give what `leave` wants."""
        return attach(self._context or with_scope(self._scope, get_current()))

    def leave(self, token: Token[Context]) -> None:
        """Detach it, and keep the context for the next call."""
        self._context = get_current()
        detach(token)

    def run(self, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Call `function` in the scope."""
        token = self.enter()
        try:
            return function(*arguments, **named)
        finally:
            self.leave(token)


class Body:
    """An iterable of which each step, and `close`, run in a scope."""

    def __init__(self, within: Within, body: Iterable[Any]) -> None:
        """Wrap `body`."""
        self._within = within
        self._body = body
        self._steps: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._steps is None:
            self._steps = self._within.run(iter, self._body)
        return self._within.run(next, self._steps)

    def close(self) -> None:
        """Close the body."""
        close = getattr(self._body, "close", None)
        if close is not None:
            self._within.run(close)


class AsyncBody:
    """The same for an asynchronous iterable."""

    def __init__(self, within: Within, body: Any) -> None:
        """Wrap `body`."""
        self._within = within
        self._body = body
        self._steps: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncBody:
        return self

    async def __anext__(self) -> Any:
        if self._steps is None:
            self._steps = self._within.run(aiter, self._body)
        return await self._step(self._steps.__anext__)

    async def aclose(self) -> None:
        """Close the body."""
        close = getattr(self._steps if self._steps is not None else self._body, "aclose", None)
        if close is not None:
            await self._step(close)

    async def _step(self, function: Callable[[], Any]) -> Any:
        token = self._within.enter()
        try:
            return await function()
        finally:
            self._within.leave(token)
