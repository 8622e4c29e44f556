"""OTLP in files as people have them: whatever wraps it and however it is spelled, it becomes the same events; anything else is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from world.files import REQUEST, USER, convert, logs, record, span, spans, write

ONE = spans(span(1, **REQUEST))
LINE = json.dumps(ONE).encode()
MANY = json.dumps(ONE, indent=2).encode()
REQUESTED = [("HTTP Request", USER)]

# form → what the bytes are, how many events are in them; each with where the form was met
FORMS: dict[str, tuple[bytes, int]] = {
    "one line": (LINE, 1),
    "no newline at the end, and empty lines": (b"\n\n" + LINE + b"\r\n\r\n" + LINE, 1),
    "many lines": (MANY, 1),  # the examples of opentelemetry-proto; opentelemetry-collector-contrib#40623
    "many lines with carriage returns": (MANY.replace(b"\n", b"\r\n"), 1),
    "one document right after the other": (LINE + LINE, 1),  # opentelemetry-java#6836
    "documents of many lines, one right after the other": (MANY + MANY + b"\n" + LINE, 1),  # jq's output
    "a list": (json.dumps([ONE, spans()]).encode(), 1),
    "a list over many lines": (json.dumps([ONE, {}], indent=1).encode(), 1),
    "a list with one document a line": (b"[\n" + LINE + b",\n" + LINE + b"\n]\n", 1),
    "documents with commas between them": (LINE + b",\n" + LINE + b",\n", 1),
    "JSON text sequences": (b"\x1e" + LINE + b"\n\x1e" + LINE + b"\n", 1),
    "text of a logger before it": (
        b"[otel 2024-07-02 10:11] INFO io.opentelemetry.X - " + LINE,
        1,
    ),  # opentelemetry-collector-contrib#33846
    "lines of a log between": (b"Starting {\n" + LINE + b"\nListening on [::]:80\n", 1),
    "gzip": (gzip.compress(LINE), 1),  # opentelemetry-collector-contrib#38250, #2328
    "gzip of many lines, in two members": (gzip.compress(MANY[:200]) + gzip.compress(MANY[200:]), 1),
    "gzip in gzip": (gzip.compress(gzip.compress(LINE)), 1),
    "gzip with padding": (gzip.compress(LINE) + bytes(512), 1),
    "a byte order mark": (b"\xef\xbb\xbf" + LINE, 1),  # as editors on Windows save it
    "byte order marks of files put together": (b"\xef\xbb\xbf" + LINE + b"\n\xef\xbb\xbf" + LINE, 1),
    "UTF-16, as PowerShell writes": (LINE.decode().encode("utf-16"), 1),
    "UTF-16 without a mark": (LINE.decode().encode("utf-16-le"), 1),
    "UTF-32": (LINE.decode().encode("utf-32"), 1),
    "an empty request": (b"{}\n" + LINE, 1),
    "nothing": (b"", 0),
    "an empty list": (b"[]", 0),
}
BROKEN_TOO = {"lines of a log between"}


@pytest.mark.parametrize("form", FORMS)
def test_every_wrapping_gives_the_same_event(form: str, tmp_path: Path) -> None:
    """One span, whatever is around it, is one event: repeated ones have the same insert_id."""
    data, count = FORMS[form]
    made = convert(write(tmp_path / "given", data))
    assert len({event["insert_id"] for event in made.events}) == count, made.told
    assert set(made.users) <= set(REQUESTED)
    assert made.code == (1 if form in BROKEN_TOO else 0)
    assert convert(data).events == made.events


def test_severities_by_name() -> None:
    """No event depends on a severity, so no spelling of it costs the record (opentelemetry-specification#1793, otlp2parquet)."""
    for severity in (9, "9", 9.0, "SEVERITY_NUMBER_INFO", "INFO", "info", "Information", "", None, 99, {"a": 1}):
        document = logs(record(**{"amplitude.user_id": USER}) | {"severityNumber": severity})
        assert convert(json.dumps(document).encode()).users == [("coupon.used", USER)], severity


def test_statuses_by_name() -> None:
    """Nor on a status: codes by name, in the words of other versions, as text (opentelemetry-specification#786, grafana#43060)."""
    for code in (2, "2", "STATUS_CODE_ERROR", "Error", "StatusCode.ERROR", "STATUS_CODE_UNKNOWN_ERROR", 13, "", None, []):
        document = spans(span(1, **REQUEST) | {"status": {"code": code, "message": "x"}})
        assert convert(json.dumps(document).encode()).users == REQUESTED, code


def test_kinds_by_name() -> None:
    """A kind decides what an item is: every spelling is read, an unknown one is a problem of that span."""
    for kind in (2, "2", 2.0, "SPAN_KIND_SERVER", "SERVER", "server", "SpanKind.SERVER"):
        assert convert(json.dumps(spans(span(1, **REQUEST) | {"kind": kind})).encode()).users == REQUESTED, kind
    made = convert(json.dumps(spans(span(1, **REQUEST) | {"kind": "SPAN_KIND_MAIN"})).encode())
    assert "span 1: kind must be a number from 0 to 5, or a name such as SPAN_KIND_SERVER, not 'SPAN_KIND_MAIN'" in made.told


def test_a_parent_id_of_zeros_is_none() -> None:
    """As text of any length (robotframework-trace-report writes 0)."""
    for parent in ("0", "0" * 16, "", None, "AAAAAAAAAAA="):
        assert convert(json.dumps(spans(span(1, **REQUEST) | {"parentSpanId": parent})).encode()).users == REQUESTED, parent


def test_an_input_of_nothing_says_so(tmp_path: Path) -> None:
    """Nothing is silently nothing: an empty file, empty requests, metrics."""
    assert "the input is empty" in convert(write(tmp_path / "a", b"")).told
    made = convert(write(tmp_path / "b", {}, {"resourceMetrics": [{"scopeMetrics": []}]}, {"resourceProfiles": []}))
    assert (made.code, made.events) == (0, [])
    assert "3 documents hold no span, log record or event" in made.told


def test_a_line_that_is_cut_off_costs_itself(tmp_path: Path) -> None:
    """A process that was killed while it wrote, and went on later."""
    for cut in range(1, len(LINE) - 1, 7):
        made = convert(write(tmp_path / "a", LINE[:cut] + b"\n", LINE + b"\n", LINE))
        assert (made.users, made.code) == (REQUESTED * 2, 1), LINE[:cut]
        assert "line 1: is JSON that is cut off or broken" in made.told


def test_a_document_of_many_lines_that_is_cut_off(tmp_path: Path) -> None:
    """What comes after it is read, nothing within it is taken for a document."""
    lines = MANY.splitlines(keepends=True)
    for cut in range(1, len(lines), 9):
        made = convert(write(tmp_path / "a", b"".join(lines[:cut]), LINE))
        assert (made.users, made.code) == (REQUESTED, 1)


def test_gzip_that_ends_early(tmp_path: Path) -> None:
    """A file that is still being written: what is there is read, and that it ends early is said."""
    made = convert(write(tmp_path / "a.gz", gzip.compress(b"\n".join([LINE] * 500))[:-20]))
    assert len(made.events) > 400
    assert made.code == 1
    assert "the end of the file: the gzip data ends early; what came before it was read" in made.told


def test_a_bomb(tmp_path: Path) -> None:
    """gzip that grows a thousand times is not unpacked to its end, and the message says how to go on when it is to be trusted."""
    made = convert(write(tmp_path / "a.gz", gzip.compress(b"[" + b" " * 300 * 2**20 + b"]", 9)))
    assert (made.events, made.code) == ([], 1)
    assert "grows more than 200 times" in made.told


def test_json_that_python_and_javascript_write(tmp_path: Path) -> None:
    """Half of a surrogate pair where a text was cut, NaN, bytes that are no UTF-8: the line is read (nodejs: attributeValueLengthLimit)."""
    for value in (b'"\\ud83d"', b'"caf\xe9"'):
        line = LINE.replace(b'"/a"', value.replace(b'"', b'"/a', 1))
        assert convert(write(tmp_path / "a", line)).users == REQUESTED, value
    assert convert(write(tmp_path / "a", LINE.replace(b'"name": "x"', b'"x": NaN'))).users == REQUESTED


LOOKS: dict[str, tuple[bytes, str]] = {
    "Jaeger's own JSON": (
        json.dumps({"data": [{"traceID": "a", "spans": [{"traceID": "a"}], "processes": {}}]}).encode(),
        "Jaeger's own JSON",
    ),
    "Zipkin": (json.dumps([{"traceId": "a", "id": "b", "name": "get", "localEndpoint": {}}], indent=2).encode(), "Zipkin"),
    "Python's console exporter": (
        json.dumps({"name": "x", "context": {"trace_id": "0xa", "span_id": "0xb"}, "kind": "SpanKind.SERVER"}, indent=4).encode() * 3,
        "output of Python's console exporter",
    ),
    "JavaScript's console exporter": (
        b"{\n  resource: {\n    attributes: {}\n  },\n  traceId: 'a',\n}\n" * 3,
        "JavaScript's console exporter",
    ),
    "Go's stdout exporter": (b'{"Name":"x","SpanContext":{"TraceID":"a"},"SpanKind":1}', "Go's stdout exporter"),
    "the Collector's debug exporter": (b"2024-01-01\tinfo\tResourceSpans #0\nResource SchemaURL: \n", "Collector's debug exporter"),
    "dotnet's console": (b"Activity.TraceId:            a\nActivity.SpanId: b\n", ".NET's console exporter"),
    "CSV": (b"trace_id,span_id,name\na,b,c\n", "CSV"),
    "an HTML page": (b"<!DOCTYPE html>\n<html><body>Log in</body></html>", "an HTML page"),
    "Parquet": (b"PAR1\x15\x04\x15\x00" + bytes(99), "a Parquet file"),
    "zip": (b"PK\x03\x04" + bytes(99), "a zip archive"),
    "anything binary": (bytes(range(256)) * 9, "is binary"),
    "zeros": (bytes(10_000), "is binary"),
    "an error message": (b'{"error":"unauthorized"}', "an error message"),
    "a container's log": (b'{"log":"x\\n","stream":"stdout","time":"2024"}', "a container's log"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "Git LFS"),
    "something else": (b'{"a": 1, "b": 2}', "neither OTLP nor an event"),
    "nesting without end": (b"[" * 100_000 + b"]" * 100_000, "is nested too deeply"),
    "protobuf's text form": (b"resource_spans {\n  resource {\n  }\n}\n", "protobuf in its text form"),
    "a word": (b"hello", "is not JSON"),
    "a text": (b'"hello"', "but neither OTLP nor an event: a text"),
}


@pytest.mark.parametrize("kind", LOOKS)
def test_anything_else_is_one_line(kind: str, tmp_path: Path) -> None:
    """It says what the file looks like and what to do, once (jaeger#5293, opentelemetry-collector-contrib#40623)."""
    data, words = LOOKS[kind]
    made = convert(write(tmp_path / "given", data))
    problem, summary = made.told.splitlines()
    assert words in problem
    assert "0 events written" in summary
    assert (made.events, made.code) == ([], 1)


def test_files_wildcards_and_folders(tmp_path: Path) -> None:
    """Rotated files at once, each file once; places then name the file."""
    folder = tmp_path / "traces"
    folder.mkdir()
    users = [f"user-{number}" for number in (1, 2, 3)]
    requests = {user: spans(span(1, **{**REQUEST, "user.id": user})) for user in users}
    names = [write(folder / f"traces-{user}.json", requests[user]) for user in reversed(users)]
    write(folder / ".hidden", b"x")
    given: list[tuple[Path | str, ...]] = [
        (folder,),
        (f"{folder}/*.json",),
        (f"{tmp_path}/**/traces-*-?.json",),
        (folder, names[0], f"{folder}/*1*"),
    ]
    for words in given:
        assert [event["user_id"] for event in convert(*words).events] == users
    names[1].write_text("x")
    assert f"{names[1]}: line 1: is not JSON" in convert(folder).told


@pytest.mark.parametrize(
    ("word", "cure"),
    [("missing.json", "missing.json: No such file"), ("missing-*.json", "no file is named like"), ("empty", "holds no files")],
)
def test_names_that_stand_for_nothing(word: str, cure: str, tmp_path: Path) -> None:
    """The message names the word."""
    (tmp_path / "empty").mkdir()
    made = convert(tmp_path / word)
    assert made.code == 3
    assert cure in made.told


def test_the_output_is_no_input(tmp_path: Path) -> None:
    """A wildcard that takes the output as well is refused, before it is emptied."""
    path = write(tmp_path / "a.jsonl", ONE)
    made = convert(tmp_path / "*.jsonl", "--output", path)
    assert (made.code, path.read_bytes().strip()) == (3, LINE)


@pytest.mark.parametrize("wrap", [lambda data: data, gzip.compress])
def test_events_in_any_form(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Event lines, a list of events over many lines: they go out as they are."""
    events = [{"event_type": "a", "user_id": USER, "insert_id": f"id-{number}"} for number in range(3)]
    for data in (json.dumps(events, indent=2).encode(), b"\n".join(json.dumps(event).encode() for event in events)):
        assert convert(write(tmp_path / "a", wrap(data))).events == events
