"""What delivery tells, as log events."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from otel_amplitude.delivery.books import Pending, Stats
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.errors import TransportError
from otel_amplitude.log import Log
from otel_amplitude.telemetry._logs import LogObserver
from otel_amplitude.testing._transport import answer
from otel_amplitude.transport import Response
from otel_amplitude.wire._answers import read_receipt

KEY = "0123456789abcdef0123456789abcdef"
PARCELS = [Parcel(b'{"user_id":"user-a"}', ("user-a", "phone"), 0), Parcel(b"{}", ("user-b",), 0)]

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The lines written so far, level first."""
    caplog.set_level(logging.DEBUG, "otel_amplitude")
    return lambda: [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def observer(level: str = "VERBOSE") -> LogObserver:
    """An observer of a client with this level and this key."""
    return LogObserver(Log(level, (KEY,)))


def settle(told: LogObserver, response: Response | TransportError) -> Receipt:
    """Tell it of one answer to both parcels, as the dispatcher would."""
    receipt = read_receipt(response, PARCELS)
    told.settled(PARCELS, receipt, 0.0123)
    if receipt.server_fault:
        told.paused(receipt.pause or 0.5, receipt.reason)
    return receipt


def test_success_is_silent_at_warn(lines: Lines) -> None:
    """A client that works writes nothing."""
    told = observer("WARN")
    told.started()
    settle(told, answer(200))
    told.stopped(Stats())
    assert lines() == []


@pytest.mark.parametrize(("level", "loaded"), [("WARN", True), ("NONE", False)])
def test_what_the_first_line_needs_is_loaded_while_there_is_time(level: str, loaded: bool) -> None:
    """The import that the first line waits for, up to a quarter of a second, is over before the time of a shutdown is; without lines, none."""
    code = (
        "import sys\nfrom otel_amplitude.log import Log\nfrom otel_amplitude.telemetry._logs import LogObserver\n"
        f"told = LogObserver(Log({level!r}))\nbefore = 'structlog' in sys.modules\ntold.stopping()\nprint(before, 'structlog' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", str(loaded)]


def test_verbose_shows_each_batch(lines: Lines) -> None:
    """Counts and durations, no ids."""
    settle(observer(), answer(200))
    assert lines() == ["DEBUG batch.acknowledged events=2 status=200 seconds=0.012 bytes=22"]


def test_start_and_stop(lines: Lines) -> None:
    """The books are told at the end."""
    told = observer()
    told.started()
    told.stopped(
        Stats(accepted=9, acknowledged=4, rejected={"invalid": 1}, dropped={"shutdown": 2, "expired": 1}, pending=Pending(queued=1))
    )
    assert lines() == [
        f"DEBUG delivery.started pid={os.getpid()}",
        "DEBUG delivery.stopped accepted=9 adopted=0 acknowledged=4 rejected=1 dropped=3 pending=1",
    ]


def test_a_rejected_event_names_the_fields_and_the_reason(lines: Lines) -> None:
    """Enough to find the mistake, without ids or contents."""
    settle(
        observer("WARN"),
        answer(
            400,
            error="Invalid field values on some events",
            events_with_invalid_fields={"time": [0]},
            events_with_missing_fields={"event_type": [0]},
        ),
    )
    [line] = lines()
    assert line.startswith("WARNING batch.rejected reason=invalid rejected=1 events=2 status=400 seconds=0.012 ")
    assert line.endswith('error="Invalid field values on some events" fields=event_type,time')


def test_a_missing_field_of_the_envelope_is_named(lines: Lines) -> None:
    """It would be a mistake of ours, so it must be reportable."""
    settle(observer("WARN"), answer(400, missing_field="api_key"))
    assert "rejected=2" in lines()[0]
    assert "missing=api_key" in lines()[0]


def test_a_divided_batch_is_told_at_verbose(lines: Lines) -> None:
    """Splitting is work, not news."""
    settle(observer(), answer(413, error="Payload too large"))
    assert lines() == ['DEBUG batch.split reason=too_large events=2 status=413 seconds=0.012 error="Payload too large"']


def test_a_half_that_is_refused_again_is_told_as_rejected(lines: Lines) -> None:
    """What the dispatcher makes final is a loss, and a loss is a warning."""

    class Half(list):
        halved = True

    receipt = Receipt([RESEND, RESEND], "forbidden", split=Split.ONCE, status=403, response=answer(403))
    observer("WARN").settled(Half(PARCELS), receipt, 0.0)
    assert lines() == ["WARNING batch.rejected reason=forbidden rejected=2 events=2 status=403 seconds=0.0"]


def test_reasons_are_counted_apart(lines: Lines) -> None:
    """One line for each reason."""
    outcomes = [Outcome(Verdict.REJECTED, "quota"), Outcome(Verdict.REJECTED, "silenced"), ACKNOWLEDGED]
    observer("WARN").settled([*PARCELS, *PARCELS[:1]], Receipt(outcomes, "quota", status=429, response=answer(429)), 0.0)
    assert [line.split()[2:4] for line in lines()] == [["reason=quota", "rejected=1"], ["reason=silenced", "rejected=1"]]


def test_an_outage_says_why_and_when_it_is_over(lines: Lines) -> None:
    """One warning with the cause, one when the server is back."""
    told = observer("WARN")
    settle(told, TransportError("api2.amplitude.com: connection refused"))
    told.resumed()
    paused, resumed = lines()
    assert paused.startswith(
        'WARNING sending.paused reason=unreachable seconds=0.5 status=None error="api2.amplitude.com: connection refused"'
    )
    assert "check network, proxy (HTTPS_PROXY)" in paused
    assert "OTEL_EXPORTER_AMPLITUDE_SERVER_URL" in paused
    assert resumed == "WARNING sending.resumed"


def test_no_pause_is_told_after_the_server_is_back(lines: Lines) -> None:
    """The sum of repeated pauses, written at the end, would read as one more."""
    log = Log("WARN", (KEY,))
    told = LogObserver(log)
    for _ in range(4):
        told.paused(1.0, "server_error")
    told.resumed()
    log.tell_sums()
    assert lines() == ["WARNING sending.paused reason=server_error seconds=1.0", "WARNING sending.resumed"]
    told.paused(1.0, "server_error")
    log.tell_sums()
    assert lines()[-1] == "WARNING sending.paused reason=server_error repeated=1"


def test_without_code_the_first_acknowledgement_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Proof of life, with level and time; from then on it is silent."""
    log = Log("WARN", (KEY,))
    log.zero_code = True
    told = LogObserver(log)
    settle(told, TransportError("connection refused"))
    for _ in range(3):
        settle(told, answer(200))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "delivery.first" in line]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO otel_amplitude: delivery\.first events=2 status=200 seconds=0\.012", line)


def test_cures_name_what_the_reader_can_set(lines: Lines) -> None:
    """Without code these are environment variables; with code either does."""
    log = Log("ERROR", (KEY,))
    for log.zero_code in (False, True):
        LogObserver(log).paused(60.0, "wrong_endpoint" if log.zero_code else "invalid_api_key")
    with_code, without = lines()
    assert "set api_key (OTEL_EXPORTER_AMPLITUDE_API_KEY) to the key" in with_code
    assert 'cure="correct OTEL_EXPORTER_AMPLITUDE_SERVER_URL, or the proxy' in without


def test_a_pause_without_a_known_cause_is_told(lines: Lines) -> None:
    """The dispatcher may pause for reasons of its own."""
    observer("WARN").paused(1.0, "crowded")
    assert lines() == ["WARNING sending.paused reason=crowded seconds=1.0"]


@pytest.mark.parametrize(
    ("response", "cure"),
    [
        (answer(400, error=f"Invalid API key: {KEY}"), "OTEL_EXPORTER_AMPLITUDE_API_KEY"),
        (answer(400, error="Invalid API key: ABCDEF-somebody-elses"), "OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE"),
        (answer(404), "OTEL_EXPORTER_AMPLITUDE_SERVER_URL"),
        (answer(407), "HTTPS_PROXY"),
    ],
)
def test_what_an_operator_must_mend_is_an_error_with_the_cure(lines: Lines, response: Response, cure: str) -> None:
    """The server's words are left out: they echo the key."""
    settle(observer("ERROR"), response)
    [line] = lines()
    assert line.startswith("ERROR sending.paused reason=")
    assert cure in line
    assert KEY not in line
    assert "ABCDEF" not in line


def test_the_key_is_hidden_wherever_a_server_puts_it(lines: Lines) -> None:
    """Error texts and field names of a hostile server are redacted, escaped and cut."""
    told = observer()
    settle(told, answer(403, error=f"Forbidden\n{KEY}" + "x" * 500))
    settle(told, answer(400, events_with_invalid_fields={f"{KEY}\x1b[31m": [0]}))
    settle(told, TransportError(f"proxy said {KEY}"))
    assert lines()
    for line in lines():
        assert KEY not in line
        assert "\n" not in line
        assert "\x1b" not in line
        assert len(line) < 400


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error":7,"missing_field":[],"events_with_invalid_fields":[1]}', b'{"error":{"a":1}}'])
def test_an_answer_without_words_is_told_without_words(lines: Lines, body: bytes) -> None:
    """Types are never trusted."""
    settle(observer(), Response(403, {}, body))
    assert lines() == ["DEBUG batch.split reason=forbidden events=2 status=403 seconds=0.012"]


def test_holds_and_drops(lines: Lines) -> None:
    """The words of the house."""
    told = observer("WARN")
    told.held(39, 30.0, 500)
    told.dropped("expired", 12)
    assert lines() == ["WARNING id.held held=39 seconds=30.0 batch=500", "WARNING events.dropped reason=expired count=12"]


def test_what_the_spool_notices(lines: Lines) -> None:
    """A full disk is a warning, the rest is for those who look."""
    told = observer()
    told.noticed("spool.opened", {"directory": "/var/spool/shop"})
    told.noticed("spool.full", {"reason": "spool_full", "retry_seconds": 30.0})
    assert lines() == ["DEBUG spool.opened directory=/var/spool/shop", "WARNING spool.full reason=spool_full retry_seconds=30.0"]


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("EACCES", "let this user write there"),
        ("ENOENT", "make the directory"),
        ("EROFS", "mount the file system"),
        ("SpoolError", "no link"),
        ("ENOSPC", "make room"),
        ("cap", "MAX_SPOOL_BYTES"),
        ("EIO", ""),
    ],
)
def test_a_spool_that_can_not_be_written_is_told_with_directory_and_cure(reason: str, cure: str, lines: Lines) -> None:
    """Whoever mounted it read-only must not have to search for it."""
    LogObserver(Log("WARN"), "/var/spool/shop").noticed("spool.full", {"reason": reason, "retry_seconds": 30.0})
    (line,) = lines()
    assert line.startswith(f"WARNING spool.full reason={reason} retry_seconds=30.0 directory=/var/spool/shop")
    assert cure in line
    assert ("cure=" in line) == bool(cure)


def test_it_asks_for_no_results() -> None:
    """Delivery does no work for each event on its behalf."""
    assert observer().wants_results is False
