"""A declarative file (`OTEL_CONFIG_FILE`) with our exporter, with our processors, with both, and with mistakes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from zero_code.running import KEY, Program, ended, environment, sandboxed, tool

from otel_amplitude.sandbox import Sandbox

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]

OPTIONS: dict[str, Any] = {"api_key": "${THE_KEY}", "server_url": "${THE_URL}"}
CONSOLE = {"simple": {"exporter": {"console": None}}}


def batch(options: dict[str, Any]) -> dict[str, Any]:
    """A stock batch processor, which would wake in an hour, around our exporter."""
    return {"batch": {"schedule_delay": 3_600_000, "exporter": {"amplitude": options}}}


def document(*processors: dict[str, Any], ours: dict[str, Any] | None = None) -> str:
    """A file with these processors, and `ours` for our instrumentor; keys are quoted as they should be."""
    content: dict[str, Any] = {
        "file_format": "1.1",
        "propagator": {"composite": [{"tracecontext": None}, {"baggage": None}]},
        "resource": {"attributes": [{"name": "service.name", "value": "shop"}]},
        "tracer_provider": {"processors": list(processors), "sampler": {"amplitude_parentbased_always_on": {}}},
        **({"instrumentation/development": {"python": {"amplitude": ours}}} if ours else {}),
    }
    return yaml.safe_dump(content).replace("${THE_KEY}", '"${THE_KEY}"')


@contextlib.contextmanager
def run(tmp_path: Path, sandbox: Sandbox, content: str, end: str = "leave", *, key: str = KEY) -> Iterator[Program]:
    """Run three requests under `opentelemetry-instrument` with this file, to a good end."""
    file = tmp_path / "otel.yaml"
    file.write_text(content)
    variables = environment(
        OTEL_CONFIG_FILE=str(file), THE_KEY=key, THE_URL=f"{sandbox.url}/2/httpapi", OTEL_EXPORTER_AMPLITUDE_API_KEY=None
    )
    with ended([tool("opentelemetry-instrument"), tool("python"), "one_shot.py", "3", end], variables) as program:
        assert "all asked" in program.output
        assert "Failed to auto initialize" not in program.output
        yield program


FILES: dict[str, str] = {
    "exporter": document(batch(OPTIONS)),
    "processors": document(CONSOLE, ours=OPTIONS),
    "both, with the same options": document(CONSOLE, batch(OPTIONS), ours=OPTIONS),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_turns_us_on(tmp_path: Path, kind: str) -> None:
    """Exporter, processors or both: each request is one event, of our processor, with the service of the file."""
    with sandboxed() as sandbox, run(tmp_path, sandbox, FILES[kind], "die") as program:
        assert "flushed True" in program.output
        events = sandbox.events()
        assert len(events) == 3
        assert sandbox.duplicates == 0
        assert {(event["device_id"], event["event_properties"]["service"]) for event in events} == {("browser-0-device", "shop")}
        assert program.output.count("exporter.started") == 1
        assert "RecordServerSpans" in program.output


WRONG: dict[str, tuple[str, str, str]] = {
    "a key of digits without quotes": (
        document(CONSOLE, ours=OPTIONS).replace('"${THE_KEY}"', "${THE_KEY}"),
        "00000000000000000000000000000017",
        "api_key must be text; in YAML, quote it",
    ),
    "a key of digits without quotes, for the exporter": (
        document(CONSOLE, batch(OPTIONS)).replace('"${THE_KEY}"', "${THE_KEY}"),
        "12345678901234567890123456789012",
        "api_key must be text; in YAML, quote it",
    ),
    "a key that is not set": (document(CONSOLE, batch({**OPTIONS, "api_key": "${NOT_SET}"})), KEY, "api_key is missing"),
    "an option that does not exist": (
        document(CONSOLE, batch({**OPTIONS, "upload_intervall": 2})),
        KEY,
        "'upload_intervall' is no option of otel_amplitude (did you mean upload_interval?)",
    ),
    "an option with a hyphen": (document(CONSOLE, ours={**OPTIONS, "upload-interval": 2}), KEY, "'upload-interval' is no option"),
    "a value of the wrong type": (document(CONSOLE, ours={**OPTIONS, "methods": {"GET": True}}), KEY, "methods must be a list of texts"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_gets_one_clear_error(tmp_path: Path, mistake: str) -> None:
    """The error says what is wrong, never the key; application and other exporters run on."""
    content, key, words = WRONG[mistake]
    with sandboxed() as sandbox, run(tmp_path, sandbox, content, key=key) as program:
        assert program.output.count("exporter.disabled") == 1, program.output
        assert words in program.output
        assert "Traceback" not in program.output
        assert key not in program.output
        assert program.output.count('"name": "GET /products/<int:pid>"') == 3
        assert sandbox.requests == []
