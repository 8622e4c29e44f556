"""Another destination: events as JSON lines in files, a new file each day and above a size, by the delivery that sends to Amplitude.

    python examples/file_exporter.py

A `BatchExporter` brings the order of each id, retries, bounded memory, counters and the spool; a subclass says how one request is
sent. `Amplitude(config, exporter=…)` is a client over it: middleware, checks and `stats()` are the same. An event may be written twice
after a crash; its `insert_id` says so. The names of `otel_amplitude.delivery` may change between releases.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from otel_amplitude import Amplitude, Config
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.disk.spool import Spool
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, Outcome, Receipt, Verdict
from otel_amplitude.exporter import read_ids

RETRY = Outcome(Verdict.RETRY, "disk")


def today() -> str:
    """The day in UTC, as it stands in the names of files."""
    return datetime.now(timezone.utc).date().isoformat()


class FileExporter(BatchExporter):
    """Appends each request to `events-DAY-PID-NUMBER.jsonl`, which is closed when the day is over or it has `max_bytes`."""

    def __init__(self, folder: Path, *, max_bytes: int = 64 * 2**20, day: Callable[[], str] = today, spool: Spool | None = None) -> None:
        # One request at a time: so `send_batch` needs no lock, and lines are in the order of acceptance.
        super().__init__(DeliveryOptions(upload_interval=1.0, max_in_flight=1), spool=spool, read_ids=read_ids)
        self._folder, self._max_bytes, self._day = folder, max_bytes, day
        self._file = -1
        self._opened = ("", 0)
        self._size = 0

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:  # noqa: ARG002 -- for what can take long
        """Write all events or none; a sender thread of delivery calls it. What a full disk refuses is written again later."""
        lines = b"".join(parcel.body + b"\n" for parcel in batch)
        try:
            self._rotate()
            is_written = os.pwrite(self._file, lines, self._size) == len(lines)
        except OSError:
            is_written = False
        if not is_written:
            return Receipt([RETRY] * len(batch), "disk", server_fault=True)
        self._size += len(lines)
        return Receipt([ACKNOWLEDGED] * len(batch), "acknowledged")

    def _rotate(self) -> None:
        """Open the next file where it is time; a forked child has files of its own."""
        now = (self._day(), os.getpid())
        number = 0
        while self._opened != now or self._size >= self._max_bytes:
            name = f"events-{now[0]}-{now[1]}-{number:04}.jsonl"
            number += 1
            try:
                file = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            self._close()
            self._file, self._opened, self._size = file, now, 0

    def _close(self) -> None:
        if self._opened[1] == os.getpid():
            os.ftruncate(self._file, self._size)  # without what a failed write left
        if self._file >= 0:
            os.close(self._file)
        self._file, self._opened = -1, ("", 0)

    def shutdown(self, timeout: float) -> bool:
        """Write what is left, and close the file."""
        is_clean = super().shutdown(timeout)
        self._close()
        return is_clean


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        amplitude = Amplitude(Config("0123456789abcdef"), exporter=FileExporter(Path(folder)))
        for total in (12.5, 7.0):
            amplitude.log_event({"event_type": "Order Paid", "user_id": "u-12345", "event_properties": {"total": total}})
        amplitude.shutdown()
        for path in sorted(Path(folder).iterdir()):
            print(path.read_text(), end="")
