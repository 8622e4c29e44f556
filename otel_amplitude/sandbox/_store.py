"""What arrived, in SQLite: a bounded history, the memory of insert_ids, and the questions the page asks. The caller holds the lock."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import deque
from dataclasses import dataclass
from typing import Any

from otel_amplitude.sandbox._contract import REFUSING, Event, Finding, Json

HISTORY = 10_000
MAX_SEEN = 1_000_000
SEVEN_DAYS = 7 * 86_400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, verdict TEXT, path TEXT, type TEXT, user TEXT, device TEXT,
    session INTEGER, time INTEGER, trace TEXT, sent TEXT, notes TEXT);
CREATE INDEX IF NOT EXISTS events_verdict ON events (verdict, seq);
CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, at REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_at ON seen (at);
"""

_COLUMNS = "seq, at, verdict, path, type, user, device, session, time, trace, sent, notes"


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it came, and what became of it: accepted, duplicate or rejected."""

    verdict: str
    event: Event
    findings: list[Finding]


def trace_id(event: Event) -> str:
    """Give the trace id an event carries, or an empty text: a property of its own."""
    properties = event.get("event_properties")
    for name in ("trace_id", "[Agent] Trace ID"):
        value = properties.get(name) if isinstance(properties, dict) else None
        if isinstance(value, str):
            return value[:100]
    return ""


def origin(event: Event) -> str:
    """Tell whether an event came from a browser or a server, by the library that sent it."""
    library = str(event.get("library") or "").lower()
    return "browser" if event.get("platform") == "Web" or library.startswith(("amplitude-ts", "amplitude-js")) else "server"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:1_024].encode(errors="replace").decode()


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _dump(event: Event) -> str:
    try:
        return json.dumps(event)
    except RecursionError:
        return json.dumps({"event_type": _text(event.get("event_type")), "sandbox": "nested too deeply to be kept"})


def _notes(findings: list[Finding]) -> str:
    if not findings:
        return "[]"
    return json.dumps(
        [{"kind": "rejected" if note.kind in REFUSING else note.kind, "field": note.field, "words": note.words} for note in findings]
    )


def _as_json(row: tuple[Any, ...]) -> Json:
    item = dict(zip(_COLUMNS.split(", "), row, strict=True))
    item["sent"], item["notes"] = json.loads(item["sent"]), json.loads(item["notes"])
    item["origin"] = origin(item["sent"])
    return item


class Store:
    """A history of at most `history` accepted events and a tenth of that of others, in memory or in the file at `path`."""

    def __init__(self, path: str | None = None, history: int = HISTORY) -> None:
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _SCHEMA)
        self._history = history
        self._parsed: deque[Event] = deque(maxlen=history)
        self._parsed_to = 0
        self._seen = int(self._db.execute("SELECT count(*) FROM seen").fetchone()[0])

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def is_duplicate(self, project: str, event: Event, now: float) -> bool:
        """Tell whether this insert_id came from this device within seven days, and remember it when not."""
        insert_id = event.get("insert_id")
        if insert_id is None:
            return False
        # Without a device Amplitude fills in a hash of the user, so that two users never share an insert_id.
        holder = ("device", event["device_id"]) if event.get("device_id") is not None else ("user", event.get("user_id"))
        key = hashlib.sha256(json.dumps([project, holder, insert_id]).encode()).hexdigest()
        at = self._db.execute("SELECT at FROM seen WHERE key = ?", (key,)).fetchone()
        if at and at[0] > now - SEVEN_DAYS:
            return True
        self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (key, now))
        self._seen += 1
        if self._seen > MAX_SEEN:
            self._db.execute("DELETE FROM seen WHERE key IN (SELECT key FROM seen ORDER BY at LIMIT ?)", (MAX_SEEN // 10,))
            self._seen -= MAX_SEEN // 10
        return False

    def begin(self) -> None:
        """Start a transaction."""
        self._db.execute("BEGIN")

    def commit(self) -> None:
        """End the transaction."""
        self._db.execute("COMMIT")

    def add(self, path: str, rows: list[Row], now: float) -> None:
        """Write rows and forget what is beyond the history."""
        self._db.executemany(
            f"INSERT INTO events ({_COLUMNS.removeprefix('seq, ')}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 -- constants
            [
                (
                    now,
                    row.verdict,
                    path,
                    _text(row.event.get("event_type")),
                    _text(row.event.get("user_id")),
                    _text(row.event.get("device_id")),
                    _integer(row.event.get("session_id")),
                    _integer(row.event.get("time")),
                    _text(trace_id(row.event)),
                    _dump(row.event),
                    _notes(row.findings),
                )
                for row in rows
            ],
        )
        for verdict in {row.verdict for row in rows}:
            self._db.execute(
                "DELETE FROM events WHERE verdict = :verdict AND seq <= "
                "(SELECT seq FROM events WHERE verdict = :verdict ORDER BY seq DESC LIMIT 1 OFFSET :kept)",
                {"verdict": verdict, "kept": self._history if verdict == "accepted" else self._history // 10},
            )
        self._db.execute("DELETE FROM seen WHERE at <= ?", (now - SEVEN_DAYS,))

    def events(self) -> list[Event]:
        """Give the accepted events still in the history, oldest first, as they were sent."""
        fresh = self._db.execute(
            "SELECT seq, sent FROM events WHERE verdict = 'accepted' AND seq > ? ORDER BY seq", (self._parsed_to,)
        ).fetchall()
        for seq, sent in fresh:
            self._parsed.append(json.loads(sent))
            self._parsed_to = seq
        return list(self._parsed)

    def reset(self) -> None:
        """Forget all events and insert_ids; numbers go on."""
        self._db.executescript("DELETE FROM events; DELETE FROM seen;")
        self._parsed.clear()

    def last(self) -> int:
        """Give the number of the newest row."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def find(
        self,
        *,
        since: int = 0,
        seq: int | None = None,
        type: str = "",
        user: str = "",
        device: str = "",
        text: str = "",
        verdict: str = "",
        limit: int = 200,
    ) -> list[Json]:
        """Give rows after `since`, or the one row `seq`, newest first: exact type and verdict, the others anywhere within."""
        conditions = ["seq > ?"]
        values: list[Any] = [since]
        for column, value in (("seq", seq), ("type", type), ("verdict", verdict)):
            if value:
                conditions.append(f"{column} = ?")
                values.append(value)
        for column, value in (("user", user), ("device", device), ("sent", text)):
            if value:
                # The column holds ASCII JSON: the text is written the same way before it is looked for.
                sought = json.dumps(value)[1:-1] if column == "sent" else value
                conditions.append(f"instr(lower({column}), lower(?)) > 0")
                values.append(sought)
        query = f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?"  # noqa: S608 -- constants
        return [_as_json(row) for row in self._db.execute(query, (*values, limit))]

    def types(self) -> list[Json]:
        """Give each accepted event type with its count and how many people sent it."""
        rows = self._db.execute(
            "SELECT type, count(*), count(DISTINCT coalesce(user, device)), max(at) FROM events "
            "WHERE verdict = 'accepted' GROUP BY type ORDER BY 2 DESC, 1 LIMIT 2000"
        )
        return [{"type": name, "count": count, "users": users, "last": last} for name, count, users, last in rows]

    def people(self) -> list[str]:
        """Give the users (and devices without one) seen last."""
        rows = self._db.execute(
            "SELECT coalesce(user, device), max(seq) FROM events WHERE verdict = 'accepted' GROUP BY 1 ORDER BY 2 DESC LIMIT 200"
        )
        return [str(row[0]) for row in rows]

    def head_count(self) -> int:
        """Give how many people (users, and devices without one) are in the history."""
        row = self._db.execute("SELECT count(DISTINCT coalesce(user, device)) FROM events WHERE verdict = 'accepted'").fetchone()
        return int(row[0])

    def timeline(self, user: str) -> list[Json]:
        """Give the events of a user, and of that user's devices while no user was signed in, in the order of their time."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM events WHERE verdict = 'accepted' AND (user = :user OR device = :user OR (user IS NULL AND device IN "  # noqa: S608 -- constants
            "(SELECT DISTINCT device FROM events WHERE user = :user AND verdict = 'accepted'))) ORDER BY seq DESC LIMIT 1000",
            {"user": user},
        )
        return sorted(map(_as_json, rows), key=lambda row: (row["time"] if row["time"] is not None else row["at"] * 1000, row["seq"]))

    def changes(self) -> list[Json]:
        """Give what would be changed or is good to know, most frequent first, over the accepted events in the history."""
        rows = self._db.execute(
            "SELECT json_extract(note.value, '$.words'), json_extract(note.value, '$.field'), count(*), max(events.seq) "
            "FROM events, json_each(events.notes) AS note WHERE verdict = 'accepted' GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 100"
        )
        return [{"words": words, "field": name, "count": count, "example": seq} for words, name, count, seq in rows]
