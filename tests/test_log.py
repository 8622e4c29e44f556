"""The one logger: levels, redaction, once a minute, never a surprise."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk._logs import LoggingHandler

from otel_amplitude.log import LOGGER_NAME, Log, Voice, hint, safe

KEY = "0123456789abcdef0123456789abcdef"


def timeless(text: str) -> str:
    """What was written to stderr, without the times, of which each line of ours has one."""
    return re.sub(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?=[A-Z]+ otel_amplitude: )", "", text)


@pytest.mark.parametrize(("level", "written"), [("NONE", []), ("ERROR", ["c"]), ("WARN", ["b", "c"]), ("VERBOSE", ["a", "b", "c"])])
def test_levels(caplog: pytest.LogCaptureFixture, level: str, written: list[str]) -> None:
    """Those of Amplitude's Node SDK."""
    caplog.set_level(logging.DEBUG, LOGGER_NAME)
    log = Log(level)
    log.debug("a")
    log.warning("b")
    log.error("c")
    assert [record.getMessage() for record in caplog.records] == written


def test_facts_are_logfmt(caplog: pytest.LogCaptureFixture) -> None:
    """One line that people can read and machines can parse."""
    Log().warning("id.held", held=39, seconds=30.0, why='a "b" c', empty="", none=None)
    assert caplog.records[0].getMessage() == 'id.held held=39 seconds=30.0 why="a \\"b\\" c" empty="" none=None'


def test_secrets_are_hidden_wherever_they_stand(caplog: pytest.LogCaptureFixture) -> None:
    """Also inside a server's text."""
    Log("WARN", (KEY,)).error("batch.rejected", error=f"Invalid API key: {KEY}")
    assert caplog.records[0].getMessage() == 'batch.rejected error="Invalid API key: …cdef"'


def test_what_is_too_short_to_be_a_secret_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A header may have the value `1`, and every line has a 1."""
    Log("WARN", (KEY, "1", "a", "")).warning("sending.paused", seconds="11.0", error="an error at 11:11")
    assert caplog.records[0].getMessage() == 'sending.paused seconds=11.0 error="an error at 11:11"'


@pytest.mark.parametrize("letter", "\u202e\u2066\u200b\u200f\ufeff\u00ad\u061c\U000e0041\ue000\x7f\x85\u2029")
def test_a_line_shows_every_letter_that_it_has(caplog: pytest.LogCaptureFixture, letter: str) -> None:
    """What changes the direction of writing, or has no width, is escaped (fault matrix, rows 43b and S13)."""
    Log().warning("sending.paused", error=f"ok {letter}rorre")
    escaped = letter.encode("unicode_escape").decode()
    assert caplog.records[0].getMessage() == f'sending.paused error="ok {escaped}rorre"'.replace("\\", "\\\\")


def test_letters_of_any_language_stay(caplog: pytest.LogCaptureFixture) -> None:
    """Only what is not seen is escaped; a space is, at any width."""
    text = "Zürich\u00a0日本\u3000नमस्ते 🙂"
    Log().warning("sending.paused", error=text)
    assert text in caplog.records[0].getMessage()


def test_a_line_stays_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Text of servers and users can not forge lines (S13)."""
    Log().warning("x", text="a\nWARNING forged\x1b[31m\u2028\ud800" + "y" * 500)
    message = caplog.records[0].getMessage()
    assert "\n" not in message
    assert "\x1b" not in message
    assert message.encode().decode() == message
    assert len(message) < 250


def test_a_repeating_warning_is_told_once_a_minute_with_its_sum(caplog: pytest.LogCaptureFixture) -> None:
    """Counted by event name and reason."""
    now = [0.0]
    log = Log(clock=lambda: now[0])
    for _ in range(100):
        log.warning("events.dropped", reason="expired")
    log.warning("events.dropped", reason="attempts")
    now[0] = 61
    log.warning("events.dropped", reason="expired")
    assert [record.getMessage() for record in caplog.records] == [
        "events.dropped reason=expired",
        "events.dropped reason=attempts",
        "events.dropped reason=expired repeated=99",
    ]


def test_problems_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    """Four mistakes in a minute are four lines, but what differs in every event does not make a line of every event."""
    log = Log(clock=lambda: 0.0)
    for problem in ("one", "two", "three", "four", "one"):
        log.warning("event.invalid", reason="invalid", problem=problem)
    assert [record.getMessage().split("problem=")[1] for record in caplog.records] == ["one", "two", "three", "four"]
    for number in range(1_000):
        log.warning("event.invalid", reason="invalid", problem=f"id {number}")
    assert len(caplog.records) <= 65


def test_at_the_end_outstanding_sums_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Once: no next line would carry them."""
    log = Log(clock=lambda: 0.0)
    log.warning("id.held", held=1)
    for problem in ("one", "two", "two", "two"):
        log.error("event.invalid", reason="invalid", problem=problem)
    caplog.clear()
    log.tell_sums()
    log.tell_sums()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "event.invalid reason=invalid problem=two repeated=2")
    ]


def test_a_child_tells_no_sums_of_its_parent(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent does, so of a hundred workers each would tell them once more."""
    log = Log(clock=lambda: 0.0)
    log.warning("id.held")
    log.warning("id.held")
    caplog.clear()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    log.tell_sums()
    log.warning("id.held")
    assert [record.getMessage() for record in caplog.records] == ["id.held"]


@pytest.mark.parametrize(("level", "text"), [("WARN", ""), ("VERBOSE", ": 'secret of an event'")])
def test_an_exception_is_told_by_type_and_place(level: str, text: str) -> None:
    """Its text may quote what is in an event, so only who asks for everything gets it."""
    try:
        {}["secret of an event"]
    except KeyError as error:
        assert re.fullmatch(rf"KeyError at test_log\.py:\d+{text}", Log(level).raised(error))
    assert Log().raised(ValueError("never raised")) == "ValueError"


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError


def test_nothing_given_to_it_raises(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a hostile value nor an application's broken handler."""

    class Broken(logging.Handler):
        def emit(self, record: Any) -> None:
            raise RuntimeError

    handler = Broken()
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    try:
        Log().warning("x", value=Hostile())
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(handler)
    assert safe(Hostile()) == "<Hostile>"


def test_the_start_line_reaches_stderr_where_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """It is a newcomer's only proof of life; NONE silences it."""
    logging.getLogger(LOGGER_NAME).setLevel(logging.WARNING)
    Log().announce("exporter.started", endpoint="https://x", key=None)
    Log("NONE").announce("exporter.started")
    assert timeless(capsys.readouterr().err) == "INFO otel_amplitude: exporter.started endpoint=https://x key=None\n"
    logging.getLogger(LOGGER_NAME).setLevel(logging.NOTSET)


def test_processes_that_share_a_stderr_do_not_break_each_others_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is one write, its end included, also where PYTHONUNBUFFERED makes every write a system call: workers stop at the same moment."""
    writes: list[bytes] = []

    class Unbuffered(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            writes.append(bytes(data))
            return len(data)

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(Unbuffered(), encoding="utf-8", write_through=True))  # type: ignore[type-var]
    Log().announce("exporter.stopped", pid=7)
    assert [timeless(line.decode()) for line in writes] == ["INFO otel_amplitude: exporter.stopped pid=7\n"]


def test_the_start_line_goes_to_whoever_listens(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """As INFO."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    Log().announce("exporter.started", endpoint="https://x")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert capsys.readouterr().err == ""


class TelemetryHandler(logging.Handler):
    """As OpenTelemetry's: it takes records elsewhere, where nobody reads them as lines."""

    __module__ = "opentelemetry.instrumentation.logging.handler"

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: Any) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """Our logger in a process where nobody has configured logging: pytest's own handlers are out of reach."""
    logger = logging.getLogger(LOGGER_NAME)
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "parent", logging.RootLogger(logging.WARNING))
    logger.setLevel(logging.NOTSET)  # which also forgets what level the parent before had
    return logger


@pytest.mark.filterwarnings("ignore:.*LoggingHandler:DeprecationWarning")
@pytest.mark.parametrize("kind", [None, TelemetryHandler, LoggingHandler])
@pytest.mark.parametrize("level", ["WARN", "VERBOSE"])
def test_a_warning_is_on_stderr_where_only_telemetry_listens(
    level: str, kind: type[logging.Handler] | None, alone: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenTelemetry's handler on the root logger turns Python's last resort off, and with it all that we have to say to people."""
    if kind is not None:
        cast("logging.Logger", alone.parent).addHandler(kind())
    log = Log(level)
    log.debug("a")
    log.warning("b", n=1)
    log.error("c")
    assert timeless(capsys.readouterr().err) == "WARNING otel_amplitude: b n=1\nERROR otel_amplitude: c\n"


def test_telemetry_gets_the_line_as_well(alone: logging.Logger) -> None:
    """Warnings of ours may be alerted on, where the others of the application are."""
    handler = TelemetryHandler()
    alone.addHandler(handler)
    log = Log("VERBOSE")
    log.debug("a")
    log.warning("b")
    log.announce("c")
    assert handler.lines == ["a", "b", "c"]


def test_who_listens_later_gets_each_line_once(alone: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """An application configures its logging when it likes, also after a client with `debug` was made."""
    log = Log("VERBOSE", debug=True)
    log.debug("before")
    cast("logging.Logger", alone.parent).addHandler(logging.StreamHandler(sys.stderr))
    log.debug("after")
    log.warning("after that")
    log.announce("announced")
    assert timeless(capsys.readouterr().err) == "DEBUG otel_amplitude: before\nafter\nafter that\nannounced\n"


@pytest.mark.parametrize("how", ["level", "disabled", "last resort", "propagate"])
def test_whoever_silenced_it_is_not_overruled(
    how: str, alone: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The logger's level and its switch, Python's own switch for the last resort; and a handler out of reach is none."""
    log = Log("WARN")
    if how == "level":
        alone.setLevel(logging.CRITICAL)
    elif how == "disabled":
        monkeypatch.setattr(alone, "disabled", True)
    elif how == "last resort":
        monkeypatch.setattr(logging, "lastResort", None)
    else:
        cast("logging.Logger", alone.parent).addHandler(logging.StreamHandler(sys.stderr))
        monkeypatch.setattr(alone, "propagate", False)
    log.warning("b")
    assert timeless(capsys.readouterr().err) == ("WARNING otel_amplitude: b\n" if how == "propagate" else "")


def test_a_start_line_is_not_lost_to_telemetry(alone: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """It is as good as nobody, for a line that a person must see."""
    alone.addHandler(TelemetryHandler())
    alone.setLevel(logging.INFO)
    Log().announce("exporter.started")
    assert timeless(capsys.readouterr().err) == "INFO otel_amplitude: exporter.started\n"


def test_a_stderr_that_is_gone_is_none_of_ours(alone: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing raises, as under pythonw or after the application has closed it."""
    monkeypatch.setattr(sys, "stderr", None)
    Log().warning("a")
    Voice().error("b")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    Voice().error("c")


def test_nothing_is_configured_globally() -> None:
    """A library never configures logging; without debug not even a handler appears."""
    import structlog

    before = structlog.get_config()["processors"]
    Log("VERBOSE")
    assert logging.getLogger(LOGGER_NAME).handlers == []
    assert structlog.get_config()["processors"] is before


def test_a_hint_never_gives_a_short_secret_away() -> None:
    """Four characters of a long one."""
    assert (hint(KEY), hint("short"), hint("")) == ("…cdef", "…", "…")


@given(st.text(st.characters()))
def test_safe_text_is_printable_and_short(text: str) -> None:
    """Whatever it is."""
    result = str(safe(text))
    assert len(result) <= 200
    assert result.encode().decode() == result
    assert not any(ord(letter) < 32 or letter in "\x7f\u2028\u2029" for letter in result)
