"""Breaks the package on purpose, to show that the matrix sees it. Each function replaces parts of it before the application starts."""

from __future__ import annotations

import threading

from opentelemetry.context import get_current

from otel_amplitude.identity import _anchor, _bodies, _current, _frameworks, _propagator, _scope


def by_thread() -> None:
    """The scope belongs to the thread instead of the request: a request finds that of the one before."""
    last, anchored, anchor = threading.local(), _anchor.anchored, _anchor.anchor

    def guessed(carrier: object, kind: str) -> object:
        return anchored(carrier, kind) or (getattr(last, "scope", None) if kind else None)

    def noted(carrier: object, kind: str, scope: object) -> None:
        last.scope = scope
        anchor(carrier, kind, scope)

    _propagator.anchored, _propagator.anchor = guessed, noted
    _scope.RequestScope.is_done = property(lambda _: False)


def left_attached() -> None:
    """What runs in a scope leaves it on the thread, and a request begins with what it finds there."""
    _bodies.Within.leave = lambda self, _token: setattr(self, "_context", get_current())
    _frameworks.FlaskSignals.connect = lambda *_: None


def kept_words() -> None:
    """`set_user` outside of a request is left in the context, on every thread, for good."""
    _scope.alive = lambda scope: scope
    _current.own_task = lambda: (None, False)
    _current.process = type("Never", (), {"serving": False})


def forgotten() -> None:
    """The scope is written to no request: each layer makes its own."""
    _propagator.anchor = lambda *_: None
