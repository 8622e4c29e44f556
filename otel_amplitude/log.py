"""The one logger: structlog around the standard logger `otel_amplitude`, redacted, repeating itself once a minute."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_amplitude.clock import monotonic
from otel_amplitude.errors import interrupts
from otel_amplitude.late_imports import late_import

if TYPE_CHECKING:
    from collections.abc import MutableMapping

LOGGER_NAME: Final = "otel_amplitude"
ENVIRONMENT_PREFIX: Final = "OTEL_EXPORTER_AMPLITUDE_"
LEVELS: Final = {"NONE": 100, "ERROR": logging.ERROR, "WARN": logging.WARNING, "VERBOSE": logging.DEBUG}
_NUMBERS: Final = {"debug": logging.DEBUG, "warning": logging.WARNING, "error": logging.ERROR}
REPEAT_SECONDS: Final = 60.0
_MAX_TEXT: Final = 200
# No more of a text is looked at: enough for any secret that begins in what is shown.
_MAX_READ: Final = 4_000

_LEAST_SECRET: Final = 8  # a header's value may be "1", which hidden in every line would hide the line
_MOST_CAUSES: Final = 64

# A library writes nothing until its user configures logging (https://docs.python.org/3/howto/logging.html#configuring-logging-for-a-library);
# warnings still reach stderr when the application configured nothing, hence no NullHandler here.


def hint(secret: str) -> str:
    """Give what may be shown of a secret: its last four characters.

    >>> hint("0123456789abcdef")
    '…cdef'
    """
    return f"…{secret[-4:]}" if len(secret) > 8 else "…"


def safe(value: object, secrets: tuple[str, ...] = ()) -> object:
    """Give `value` fit for one log line: secrets hidden, control and format characters escaped, at most 200 characters.

    Numbers, booleans and None pass as they are.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    try:
        text = str(value)[:_MAX_READ]
    except BaseException as error:  # a hostile __str__ must not stop a log line
        if interrupts(error):
            raise
        return f"<{type(value).__name__}>"
    for secret in secrets:
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, hint(secret))
    if not text.isprintable():
        text = "".join(
            [letter if _is_harmless(letter) else letter.encode("unicode_escape").decode("ascii") for letter in text[: _MAX_TEXT + 1]]
        )
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _is_harmless(letter: str) -> bool:
    """Whether a letter leaves the line and the direction of its writing alone.

    Control, format (bidirectional marks, zero-width letters, tags), surrogate, private and unassigned code points do not, nor do the
    separators of lines and paragraphs. Spaces of any width do.
    """
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _line(_logger: object, _method: str, facts: MutableMapping[str, Any]) -> str:
    """Write the name of the log event, then the facts as logfmt."""
    return " ".join([str(facts.pop("event")), *(f"{key}={_quoted(value)}" for key, value in facts.items())])


def _quoted(value: object) -> str:
    text = str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if not text or " " in text or '"' in text or "=" in text else text


def is_heard(logger: logging.Logger) -> bool:
    """Tell whether anybody listens to a logger but OpenTelemetry, whose handler zero code puts on the root logger of everybody.

    A line that only goes where the events go does not reach the person who must mend why nothing goes there.
    """
    at: logging.Logger | None = logger
    while at is not None:
        if not all(map(_is_telemetry, at.handlers)):
            return True
        at = at.parent if at.propagate else None
    return False


def _is_telemetry(handler: logging.Handler) -> bool:
    return any(kind.__module__.partition(".")[0] == "opentelemetry" for kind in type(handler).__mro__)


def _to_stderr(number: int, line: str) -> None:
    with contextlib.suppress(Exception):  # a stderr that is closed, or was never there, is the application's affair
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        # One call, since print() makes two where Python is unbuffered, and another process's line would fall between them.
        sys.stderr.write(f"{moment} {logging.getLevelName(number)} {LOGGER_NAME}: {line}\n")


class Voice:
    """The standard logger `otel_amplitude`, with stderr for lines that no handler would write.

    Who listens is asked for each line: an application may configure its logging later than it makes a client.
    """

    def __init__(self, *, everything: bool = False) -> None:
        """Speak up for what `logging.lastResort` would write, which is WARNING and above; or for everything."""
        self._everything = everything
        self._logger = logging.getLogger(LOGGER_NAME)

    def debug(self, line: str) -> None:
        """Write at DEBUG."""
        self._say(logging.DEBUG, line)

    def warning(self, line: str) -> None:
        """Write at WARNING."""
        self._say(logging.WARNING, line)

    def error(self, line: str) -> None:
        """Write at ERROR."""
        self._say(logging.ERROR, line)

    def announce(self, line: str) -> None:
        """Write at INFO where anybody listens to that, else to stderr."""
        listens = self._logger.isEnabledFor(logging.INFO)
        if listens and self._logger.hasHandlers():
            self._logger.info(line)
        if not listens or not is_heard(self._logger):
            _to_stderr(logging.INFO, line)

    def _say(self, number: int, line: str) -> None:
        if not self._logger.isEnabledFor(number):
            return
        last = logging.lastResort
        if not is_heard(self._logger) and last is not None and (self._everything or number >= last.level):
            _to_stderr(number, line)
        if self._logger.hasHandlers():  # without any, Python's last resort would write it once more
            self._logger.log(number, line)


class Log:
    """Writes named log events with facts as keywords, at the level of one client's options.

    Any thread may call it; it never raises and has no lock of its own. Never call it under a lock of ours.

    Attributes:
        zero_code: whether the options come from the environment, so that lines name environment variables.
    """

    def __init__(
        self,
        level: str = "WARN",
        secrets: tuple[str, ...] = (),
        *,
        debug: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Make the logger of one client.

        Args:
            level: `NONE`, `ERROR`, `WARN` or `VERBOSE`.
            secrets: texts that must never be written; those under eight characters are none.
            debug: write everything to stderr, not warnings alone, while the application has no handler.
            clock: seconds, for the once-a-minute rule.
        """
        self.zero_code = False
        self._level = LEVELS[level]
        self._secrets = secrets
        self._clock = clock
        self._told: dict[tuple[str, str, str], tuple[float, int, str]] = {}
        self._process = os.getpid()
        logger = logging.getLogger(LOGGER_NAME)
        if self._level <= logging.DEBUG and not logger.isEnabledFor(logging.DEBUG):
            logger.setLevel(logging.DEBUG)
        self._voice = Voice(everything=debug)
        self._structlog: Any = None

    def _wrapped(self) -> Any:
        """Give structlog around the standard logger; made at the first line, since its import costs 60 ms that most processes need not pay."""
        if self._structlog is None:
            with late_import:
                import structlog  # noqa: PLC0415 -- see above

            self._structlog = structlog.wrap_logger(
                self._voice,
                processors=[self._redact, _line],
                wrapper_class=structlog.make_filtering_bound_logger(min(self._level, logging.CRITICAL)),
            )
        return self._structlog

    def _redact(self, _logger: object, _method: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: safe(value, self._secrets) for key, value in facts.items()}

    def _write(self, method: str, event: str, facts: dict[str, object]) -> None:
        if _NUMBERS[method] < self._level:
            return
        try:
            getattr(self._wrapped(), method)(event, **facts)
        except Exception:  # an application's broken handler is not ours to raise
            return

    def option(self, name: str) -> str:
        """Give the name of an option as the reader of the log writes it: under zero code an environment variable, else either."""
        variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
        return variable if self.zero_code else f"{name} ({variable})"

    def forget(self, event: str) -> None:
        """Leave out of the sums what was repeated of `event`: it is over, and something else says so."""
        for cause, (last, repeated, method) in list(self._told.items()):
            if cause[0] == event and repeated:
                self._told[cause] = (last, 0, method)

    def prepare(self) -> None:
        """Do now what the first line would have to do, unless none is ever written."""
        if self._level < LEVELS["NONE"]:
            with contextlib.suppress(Exception):
                self._wrapped()

    @property
    def is_verbose(self) -> bool:
        """Whether `debug` writes: for facts that cost something to find."""
        return self._level <= logging.DEBUG

    def debug(self, event: str, **facts: object) -> None:
        """Write at `VERBOSE`."""
        self._write("debug", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """Write at `WARN`, at most once a minute for each event name, reason and problem; the next one carries the sum as `repeated`."""
        self._once_a_minute("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        """Write at `ERROR`, at most once a minute for each event name, reason and problem; the next one carries the sum as `repeated`."""
        self._once_a_minute("error", event, facts)

    def _once_a_minute(self, method: str, event: str, facts: dict[str, object]) -> None:
        cause = (event, str(facts.get("reason", "")), str(facts.get("problem", ""))[:_MAX_TEXT])
        self._forget_after_fork()
        if cause not in self._told and len(self._told) >= _MOST_CAUSES:  # a problem may quote what differs in each event
            cause = (*cause[:2], "")
        now = self._clock()
        # No lock: a signal handler or finalizer may log while this very thread is here. A race miscounts by one, which a sum can bear.
        last, repeated, _ = self._told.get(cause, (-REPEAT_SECONDS, 0, method))
        if now - last < REPEAT_SECONDS:
            self._told[cause] = (last, repeated + 1, method)
            return
        self._told[cause] = (now, 0, method)
        if repeated:
            facts = {**facts, "repeated": repeated}
        self._write(method, event, facts)

    def _forget_after_fork(self) -> None:
        """Start with nothing in a child: the parent writes what is not written yet."""
        process = os.getpid()
        if process != self._process:
            self._process, self._told = process, {}

    def tell_sums(self) -> None:
        """Write the sums of repeated lines: at the end no next line carries them."""
        self._forget_after_fork()
        for cause, (last, repeated, method) in list(self._told.items()):
            if repeated:
                self._told[cause] = (last, 0, method)
                event, reason, problem = cause
                known = {name: value for name, value in (("reason", reason), ("problem", problem)) if value}
                self._write(method, event, {**known, "repeated": repeated})

    def announce(self, event: str, **facts: object) -> None:
        """Write the one line a newcomer must see, unless the level is `NONE`: as INFO where anyone listens, else to stderr."""
        if self._level >= LEVELS["NONE"]:
            return
        line = " ".join([event, *(f"{key}={_quoted(safe(value, self._secrets))}" for key, value in facts.items())])
        with contextlib.suppress(Exception):  # a handler that is broken is the application's affair
            self._voice.announce(line)

    def raised(self, error: BaseException) -> str:
        """Give type and place of an exception; its text, which may quote what is in an event, only at `VERBOSE`."""
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        place = "" if at is None else f" at {at.tb_frame.f_code.co_filename.rpartition(os.sep)[2]}:{at.tb_lineno}"
        return f"{type(error).__name__}{place}" + (f": {safe(error)}" if self.is_verbose else "")
