"""Every exception of this package.

::

    OtelAmplitudeError
    ├── ConfigurationError   an option's value breaks its rule (also a ValueError)
    │   └── RulesError       a rules file that can not be used
    ├── InvalidEventError    an event that Amplitude would refuse (also a ValueError)
    ├── MiddlewareError      a middleware broke the protocol, such as calling next twice
    ├── TransportError       a request got no answer that could be read
    ├── SpoolError           the spool directory can not be trusted or used
    └── KafkaError           Kafka can not be used: no broker answers, a topic is absent, the extra is not installed

None of them reaches an application after start-up, except `InvalidEventError` where `strict` asks for it.
"""

from __future__ import annotations

import signal
import threading
from typing import Final, TypeVar


class OtelAmplitudeError(Exception):
    """The root: catch this to catch everything this package raises."""


class ConfigurationError(OtelAmplitudeError, ValueError):
    """An option's value breaks its rule; the message names option, value, rule and cure."""


class RulesError(ConfigurationError):
    """A rules file can not be used; the message names the file, the line and the cure."""


class InvalidEventError(OtelAmplitudeError, ValueError):
    """An event that Amplitude would refuse; the message names the field and the rule.

    Attributes:
        reason: the word under which the books count it (`invalid`, `too_large`, `unserializable`, `no_identity`).
    """

    def __init__(self, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class MiddlewareError(OtelAmplitudeError):
    """A middleware broke the protocol of `(payload, next)`."""


class TransportError(OtelAmplitudeError):
    """A request got no answer that could be read: refused, reset, timed out, too long or not HTTP."""


class SpoolError(OtelAmplitudeError):
    """The spool directory can not be trusted or used; the message says what to do."""


class KafkaError(OtelAmplitudeError):
    """Kafka can not be used: no broker answers, a topic is absent, the extra is not installed; the message says what to do."""


E = TypeVar("E", bound=BaseException)
# An exception may be its own cause (`raise error from error`).
_MOST_BEHIND: Final = 20


def without_frames(error: E) -> E:
    """Take the tracebacks from an exception and those behind it, and give it back.

    The frames of a failed request hold its body, key included, and one another, until some later garbage collection.
    """
    behind: BaseException | None = error
    for _ in range(_MOST_BEHIND):
        if behind is None:
            break
        behind.__traceback__ = None
        behind = behind.__cause__ or behind.__context__
    return error


def interrupts(error: BaseException) -> bool:
    """Say whether an exception interrupts its thread from outside: Ctrl-C, or what a signal handler raised, such as a server's `SystemExit`.

    Anything else that is raised while a value of the application is read comes from that value, and costs the value.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()} - {None}
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code not in handlers:
        at = at.tb_next
    return at is not None
