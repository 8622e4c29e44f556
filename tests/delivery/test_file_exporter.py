"""`BatchExporter` is generic: the exporter of `examples/file_exporter.py`, to files, has every promise of delivery."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_amplitude import Amplitude, Config
from otel_amplitude.delivery.disk.spool import Spool

KEY = "0123456789abcdef0123456789abcdef"
PATIENCE = 30.0


@pytest.fixture(scope="module")
def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "file_exporter.py"
    spec = importlib.util.spec_from_file_location("file_exporter", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["file_exporter"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["file_exporter"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "events"
    made.mkdir()
    return made


def event(number: int) -> dict[str, Any]:
    return {"event_type": "Order Paid", "user_id": f"user-{number % 3}", "insert_id": f"{number}", "event_properties": {"text": "x" * 50}}


def written(folder: Path) -> list[list[int]]:
    """The numbers of the events of each file, in the order of their names."""
    return [[int(json.loads(line)["insert_id"]) for line in path.read_text().splitlines()] for path in sorted(folder.iterdir())]


def test_a_client_writes_its_events_to_files(example: Any, folder: Path) -> None:
    """Everything of a client works with it: checks, results, counters, the end."""
    results: list[str] = []
    client = Amplitude(
        Config(KEY, on_result=lambda result: results.append(result.outcome), log_level="NONE"), exporter=example.FileExporter(folder)
    )
    for number in range(50):
        assert client.log_event(event(number)).accepted
    assert client.log_event({"user_id": "user-1"}).reason == "invalid"
    assert client.flush(PATIENCE)
    assert results == ["acknowledged"] * 50
    assert client.shutdown(PATIENCE)
    stats = client.stats()
    assert (stats.accepted, stats.acknowledged, stats.refused, stats.balanced) == (50, 50, {"invalid": 1}, True)
    assert written(folder) == [list(range(50))]
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_file_is_begun_each_day_and_above_a_size(example: Any, folder: Path) -> None:
    """The events of a request stay together, and those of a day in files with its name."""
    days = ["2026-11-30"]
    client = Amplitude(Config(KEY, log_level="NONE"), exporter=example.FileExporter(folder, max_bytes=500, day=lambda: days[-1]))
    for number in range(12):
        if number == 8:
            days.append("2026-12-01")
        client.log_event(event(number))
        assert client.flush(PATIENCE)
    assert client.shutdown(PATIENCE)
    assert written(folder) == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9, 10], [11]]
    assert [path.name[:17] for path in sorted(folder.iterdir())] == ["events-2026-11-30"] * 3 + ["events-2026-12-01"] * 2


def failing(monkeypatch: pytest.MonkeyPatch, times: int, call: Callable[..., Any]) -> None:
    """Let the next writes do something else."""
    real, left = os.pwrite, iter(range(times))

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        return call(real, fd, data, offset) if next(left, None) is not None else real(fd, data, offset)  # type: ignore[no-any-return]

    monkeypatch.setattr(os, "pwrite", pwrite)


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def half(real: Any, fd: int, data: bytes, offset: int) -> int:
    return int(real(fd, data[: len(data) // 2], offset))


@pytest.mark.parametrize("fault", [no_space, half])
def test_a_full_disk_loses_and_doubles_nothing(
    example: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]
) -> None:
    """The events wait, and no half line stays."""
    exporter = example.FileExporter(folder)
    monkeypatch.setattr(exporter, "_random", lambda: 0.01)
    failing(monkeypatch, 3, fault)
    client = Amplitude(Config(KEY, log_level="NONE"), exporter=exporter)
    for number in range(20):
        client.log_event(event(number))
    assert client.flush(PATIENCE)
    assert client.shutdown(PATIENCE)
    assert written(folder) == [list(range(20))]


def test_what_could_not_be_written_is_left_in_a_spool_for_the_next_process(
    example: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool of delivery serves every destination."""
    monkeypatch.setattr("otel_amplitude.delivery.worker.GRACE_SECONDS", PATIENCE)  # a loaded machine may take longer to leave the files

    def spool() -> Spool:
        return Spool(tmp_path / "spool", "0123abcd", min_free=0)

    failing_exporter = example.FileExporter(folder / "missing", spool=spool())
    client = Amplitude(Config(KEY, log_level="NONE"), exporter=failing_exporter)
    for number in range(20):
        client.log_event(event(number))
    assert not client.shutdown(0.5)
    assert client.stats().pending.spooled == 20
    later = Amplitude(Config(KEY, log_level="NONE"), exporter=example.FileExporter(folder, spool=spool()))
    assert later.flush(PATIENCE)
    assert later.shutdown(PATIENCE)
    assert later.stats().adopted == 20
    assert written(folder) == [list(range(20))]


def test_a_forked_child_has_files_of_its_own(example: Any, folder: Path) -> None:
    """It begins a new one, and leaves what the parent writes alone."""
    exporter = example.FileExporter(folder)
    client = Amplitude(Config(KEY, log_level="NONE"), exporter=exporter)
    client.log_event(event(0))
    assert client.flush(PATIENCE)
    exporter._opened = (exporter._opened[0], exporter._opened[1] + 1)  # as a child of a process with another number finds it
    client.log_event(event(1))
    assert client.flush(PATIENCE)
    assert client.shutdown(PATIENCE)
    assert written(folder) == [[0], [1]]
