"""The hand-over from the exporter that OpenTelemetry builds to our own processor, sampling, and what wrong options do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from zero_code.running import KEY, Program, ended, environment, sandboxed, tool

from otel_amplitude.sandbox import Sandbox

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]

_UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
_RATIO = {"OTEL_TRACES_SAMPLER": "amplitude_parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
_CONSOLE = {"OTEL_TRACES_EXPORTER": "amplitude,console"}
_PREFIX = "OTEL_EXPORTER_AMPLITUDE_"


@contextlib.contextmanager
def run(sandbox: Sandbox, *arguments: str, **variables: str | None) -> Iterator[Program]:
    """Run `one_shot.py` under `opentelemetry-instrument` to its end, which must be a good one."""
    command = [tool("opentelemetry-instrument"), tool("python"), "one_shot.py", *arguments]
    with ended(command, environment(sandbox.url, **variables)) as program:
        assert "all asked" in program.output
        yield program


def exported(program: Program) -> int:
    """How many request spans the console exporter has written."""
    return program.output.count('"name": "GET /products/<int:pid>"')


def test_our_processor_does_the_work() -> None:
    """Events arrive although the stock batch processor, which would wake in an hour, never ran; none arrives twice."""
    with sandboxed() as sandbox, run(sandbox, "5", "die", OTEL_BSP_SCHEDULE_DELAY="3600000") as program:
        assert "flushed True" in program.output
        assert len(sandbox.events()) == 5


def test_two_exporters_stand_side_by_side() -> None:
    """`OTEL_TRACES_EXPORTER=amplitude,console`: both see every request once, the console without a word of ours."""
    with sandboxed() as sandbox, run(sandbox, "7", "leave", **_CONSOLE) as program:
        assert len(sandbox.events()) == exported(program) == 7
        assert sandbox.duplicates == 0
        assert "browser-0-device" not in program.output
        assert program.output.count("exporter.started") == 1


def test_a_sampler_that_can_drop_is_told_once() -> None:
    """The default sampler obeys an incoming `-00`, so its events are lost; one warning names the cure."""
    with sandboxed() as sandbox, run(sandbox, "3", "leave", _UNSAMPLED) as program:
        assert sandbox.events() == []
        assert program.output.count("sampler.drops") == 1
        assert "OTEL_TRACES_SAMPLER=amplitude_parentbased_always_on" in program.output


def test_product_events_do_not_shrink_with_sampling() -> None:
    """At one percent all 400 requests are events, and the other exporter sees about four."""
    with sandboxed() as sandbox, run(sandbox, "400", "leave", **_RATIO, **_CONSOLE) as program:
        assert len(sandbox.events()) == 400
        assert exported(program) < 25
        assert "sampler.drops" not in program.output


def test_a_caller_that_does_not_sample_does_not_hide_requests() -> None:
    """With our sampler, requests of an unsampled trace are events; the other exporter sees none of them."""
    with sandboxed() as sandbox, run(sandbox, "20", "leave", _UNSAMPLED, **_RATIO, **_CONSOLE) as program:
        assert len(sandbox.events()) == 20
        assert exported(program) == 0


WRONG: dict[str, tuple[dict[str, str | None], Sequence[str]]] = {
    "no key": ({f"{_PREFIX}API_KEY": None}, ("api_key is missing", f"{_PREFIX}API_KEY")),
    "a value that breaks its rule": ({f"{_PREFIX}MAX_BATCH_EVENTS": "99999"}, ("max_batch_events must be", "2,000", "'99999'")),
    "a rules file that is not there": ({f"{_PREFIX}RULES": "/nowhere/rules.toml"}, ("/nowhere/rules.toml",)),
    "a spool folder for everyone": ({f"{_PREFIX}SPOOL_DIR": "/tmp"}, ("/tmp",)),
    "middleware that is not there": ({f"{_PREFIX}MIDDLEWARE": "shop.nowhere:redact"}, ("shop.nowhere:redact", "middleware")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_options_disable_us_and_nobody_else(wrong: str) -> None:
    """One clear error; the application runs on, and the other exporter exports."""
    variables, words = WRONG[wrong]
    with sandboxed() as sandbox, run(sandbox, "3", "leave", **{**_CONSOLE, "OTEL_LOGS_EXPORTER": "amplitude", **variables}) as program:
        assert program.output.count("exporter.disabled") == 1
        assert all(word in program.output for word in words), program.output
        assert "Failed to auto initialize" not in program.output
        assert "Traceback" not in program.output
        assert KEY not in program.output
        assert exported(program) == 3
        assert sandbox.requests == []


def test_a_misspelt_variable_is_named() -> None:
    """A variable of ours that no option has is told, with the nearest one, and everything works."""
    with sandboxed() as sandbox, run(sandbox, "1", "leave", OTEL_EXPORTER_AMPLITUDE_UPLOAD_INTERVALL="2") as program:
        assert "config.ignored" in program.output
        assert "OTEL_EXPORTER_AMPLITUDE_UPLOAD_INTERVALL" in program.output
        assert len(sandbox.events()) == 1


def test_a_disabled_sdk_disables_us() -> None:
    """`OTEL_SDK_DISABLED=true`: nothing is sent, and nothing is promised."""
    with sandboxed() as sandbox, run(sandbox, "3", "leave", OTEL_SDK_DISABLED="true") as program:
        assert "exporter.started" not in program.output
        assert "exporter.disabled" in program.output
        assert sandbox.requests == []


def test_a_dry_run_writes_what_it_would_send(tmp_path: Path) -> None:
    """`OTEL_EXPORTER_AMPLITUDE_DRY_RUN=file`: the events are in the file and nowhere else."""
    file = tmp_path / "events.jsonl"
    with sandboxed() as sandbox, run(sandbox, "4", "leave", OTEL_EXPORTER_AMPLITUDE_DRY_RUN=str(file)):
        assert sandbox.requests == []
    assert file.read_text().count('"event_type":"HTTP Request"') == 4
