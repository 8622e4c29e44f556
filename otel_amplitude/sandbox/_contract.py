"""What Amplitude says to an upload: body in, status, answer and a verdict in words for each event out. Pure.

Facts: amplitude.com/docs/apis/analytics/http-v2, .../batch-event-upload, .../identify. Where they are silent the stricter reading
is taken, so that what passes here passes there.
"""

from __future__ import annotations

import json
import re
import time as _time
import urllib.parse
import zlib
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Json = dict[str, Any]
Event = dict[str, Any]

MAX_EVENTS = 2_000
MAX_RAW = 20_000_000
# The larger of the two endpoints: what is refused for its size need not be unpacked first.
MAX_DECODED = 20_000_000
# Values of one body. A few bytes of JSON are a hundred of memory as Python objects, so the size alone does not bound it.
MAX_VALUES = 600_000
MAX_DEPTH = 40
MAX_TEXT = 1_024
MAX_REMARKS = 50
MIN_ID_LENGTH = 5
MAX_SAFE_INTEGER = 2**53
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One upload path and what is particular to it."""

    path: str
    max_bytes: int
    lists_all: bool
    """Name every offender (batch page) or only the first one of each field (httpapi page)."""
    eps: float
    """Events per second allowed for one device, and for one user."""
    form: str = ""
    """The form field that carries the JSON; empty for a JSON body."""


HTTPAPI = Endpoint("/2/httpapi", 1_000_000, lists_all=False, eps=30.0)
BATCH = Endpoint("/batch", 20_000_000, lists_all=True, eps=1_000.0)
IDENTIFY = Endpoint("/identify", 1_000_000, lists_all=False, eps=30.0, form="identification")
GROUPIDENTIFY = Endpoint("/groupidentify", 1_000_000, lists_all=False, eps=30.0, form="identification")
ENDPOINTS = {endpoint.path: endpoint for endpoint in (HTTPAPI, BATCH, IDENTIFY, GROUPIDENTIFY)}

INVALID = "events_with_invalid_fields"
MISSING = "events_with_missing_fields"
LENGTH = "events_with_invalid_id_lengths"
CHANGE = "changed"
NOTE = "note"
REFUSING = (INVALID, MISSING, LENGTH)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing Amplitude would refuse or change about one event, and why."""

    kind: str
    """One of `REFUSING`; `CHANGE`: accepted, but stored otherwise than sent; `NOTE`: accepted as sent, good to know."""
    field: str
    words: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What an upload turned out to be: the answer, the events, and what was found about each (same positions)."""

    status: int
    body: Json
    events: list[Event] = field(default_factory=list)
    findings: list[list[Finding]] = field(default_factory=list)
    api_key: str = ""
    reason: str = ""
    """Why it was refused, as a short name without any value of the request; empty when accepted."""


# ---------------------------------------------------------------------------------------------------------------- bodies


class UndecodableError(ValueError):
    """A body that cannot be unpacked; the status says how."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def unpack(raw: bytes, encoding: str, most: int = MAX_DECODED) -> bytes:
    """Give the body without its Content-Encoding, never more than `most` bytes.

    Raises:
        UndecodableError: unknown encoding (415), broken gzip (400), or too large once unpacked (413).
    """
    if encoding in ("", "identity"):
        return raw
    if encoding != "gzip":
        raise UndecodableError(415, f"Unsupported content encoding: {encoding[:40]}")
    parts: list[bytes] = []
    size = 0
    while raw:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(raw, most - size + 1)
        except zlib.error as error:
            raise UndecodableError(400, "Invalid gzip request body") from error
        size += len(part)
        if size > most:
            raise UndecodableError(413, "Payload too large")
        if not member.eof:
            raise UndecodableError(400, "Invalid gzip request body")
        parts.append(part)
        raw = member.unused_data
    return b"".join(parts)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse(body: bytes | str) -> Any:
    """Parse strict JSON: no NaN, no lone surrogates, no bottomless nesting.

    Raises:
        ValueError: the body is not such JSON.
    """
    try:
        text = body.decode() if isinstance(body, bytes) else body
        value = json.loads(text, parse_constant=_no_constant)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _parameter(header: str, name: str) -> str:
    found = re.search(rf'(?:^|;)\s*{name}="?([^";]{{1,200}})', header)
    return found[1] if found else ""


def read_form(body: bytes, content_type: str) -> dict[str, str]:
    """Give the fields of a form body, urlencoded or multipart; the first of each name.

    Raises:
        ValueError: the form is not UTF-8 or has no readable parts.
    """
    if content_type.startswith("multipart/form-data"):
        boundary = _parameter(content_type, "boundary").encode()
        if not boundary:
            raise ValueError("multipart form without a boundary")
        fields: dict[str, str] = {}
        for part in body.split(b"--" + boundary)[1:64]:
            head, separator, value = part.partition(b"\r\n\r\n")
            name = _parameter(str(BytesParser(policy=HTTP).parsebytes(head.lstrip() + b"\r\n\r\n")["Content-Disposition"] or ""), "name")
            if separator and name:
                fields.setdefault(name, value.removesuffix(b"\r\n").decode())
        return fields
    pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=64, errors="strict")
    return dict(reversed(pairs))


# --------------------------------------------------------------------------------------------------------------- answers


def refusal(status: int, error: str, **more: Any) -> Json:
    """Give the body of a refused request."""
    return {"code": status, "error": error, **more}


def too_large() -> Json:
    """Give the body of a 413."""
    return refusal(413, "Payload too large")


def invalid_key(key: str) -> Json:
    """Give the body for an unknown key. Amplitude echoes the key, which is why clients must redact what they log."""
    return refusal(400, f"Invalid API key: {key}", missing_field=None)


def accepted(events: int, size: int) -> Json:
    """Give the body of a 200."""
    return {"code": 200, "events_ingested": events, "payload_size_bytes": size, "server_upload_time": int(_time.time() * 1000)}


def _named(events: list[Event], devices: Iterable[str], users: Iterable[str]) -> list[int]:
    known_devices, known_users = set(devices), set(users)
    return [
        position for position, event in enumerate(events) if event.get("device_id") in known_devices or event.get("user_id") in known_users
    ]


_NOBODY: Mapping[str, int] = MappingProxyType({})


def throttled(
    events: list[Event],
    eps: float,
    *,
    devices: Mapping[str, int] = _NOBODY,
    users: Mapping[str, int] = _NOBODY,
    quota_devices: Mapping[str, int] = _NOBODY,
    quota_users: Mapping[str, int] = _NOBODY,
) -> Json:
    """Give the body of a 429 that names ids; with no ids at all it is the project's own limit."""
    return refusal(
        429,
        "Too many requests for some devices and users",
        eps_threshold=int(eps),
        throttled_devices=dict(devices),
        throttled_users=dict(users),
        throttled_events=_named(events, {*devices, *quota_devices}, {*users, *quota_users}),
        exceeded_daily_quota_devices=dict(quota_devices),
        exceeded_daily_quota_users=dict(quota_users),
    )


def silenced(events: list[Event], eps: float, devices: list[str]) -> Json:
    """Give the body of the 400 that names silenced devices."""
    return refusal(
        400,
        "Events silenced for device_id",
        eps_threshold=int(eps),
        silenced_devices=devices,
        silenced_events=_named(events, devices, ()),
        throttled_devices={},
        throttled_events=[],
        exceeded_daily_quota_devices={},
    )


# ---------------------------------------------------------------------------------------------------------------- events

TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("text", lambda value: isinstance(value, str)),
    "integer": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63),
    "number": ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    "object": ("an object", lambda value: isinstance(value, dict)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
}

DEVICE_GROUP = ("platform", "os_name", "os_version", "device_brand", "device_manufacturer", "device_model", "carrier")
PLACE_GROUP = ("country", "region", "city", "dma")
GROUPED = (DEVICE_GROUP, PLACE_GROUP)

FIELDS: dict[str, str] = {
    **dict.fromkeys(("user_id", "device_id", "event_type", "insert_id", "app_version", *DEVICE_GROUP, *PLACE_GROUP), "text"),
    **dict.fromkeys(("language", "user_agent", "ip", "idfa", "idfv", "adid", "android_id", "android_app_set_id"), "text"),
    **dict.fromkeys(("productId", "revenueType", "currency", "library", "partner_id", "version_name"), "text"),
    **dict.fromkeys(("time", "session_id", "event_id", "quantity"), "integer"),
    **dict.fromkeys(("price", "revenue", "location_lat", "location_lng"), "number"),
    **dict.fromkeys(("event_properties", "user_properties", "groups", "group_properties", "plan", "ingestion_metadata"), "object"),
    "$skip_user_properties_sync": "boolean",
}
# Known to Amplitude's own SDKs, of any type, without meaning for a server exporter.
ALSO_KNOWN = frozenset(
    ("receipt", "receiptSig", "delay", "sequence_number", "uuid", "paying", "start_version", "amplitude_id", "global_user_properties")
)

RESERVED_TYPES = frozenset(
    (
        "[Amplitude] Start Session",
        "[Amplitude] End Session",
        "[Amplitude] Revenue",
        "[Amplitude] Revenue (Verified)",
        "[Amplitude] Revenue (Unverified)",
        "[Amplitude] Merged User",
    )
)
INVALID_IDS = frozenset(
    (
        "anonymous",
        "nil",
        "none",
        "null",
        "n/a",
        "na",
        "undefined",
        "unknown",
        "",
        "00000000-0000-0000-0000-000000000000",
        "{}",
        "lmy47d",
        "0",
        "-1",
    )
)
IDENTIFY_TYPE, GROUPIDENTIFY_TYPE = "$identify", "$groupidentify"
USER_OPERATIONS = ("$set", "$setOnce", "$add", "$append", "$prepend", "$preInsert", "$postInsert", "$remove", "$unset", "$clearAll")
GROUP_OPERATIONS = ("$set", "$setOnce", "$add", "$append", "$prepend", "$unset")


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)[:80]
    return f"'{text[:40]}…'" if len(text) > 40 else f"'{text}'"


def _types(event: Event) -> Iterator[Finding]:
    for name, value in event.items():
        kind = FIELDS.get(name)
        if kind is None:
            if name not in ALSO_KNOWN:
                yield Finding(
                    CHANGE, name, f"{_show(name)} is no field Amplitude documents: ignored. Own data belongs in event_properties."
                )
        elif value is None:
            yield Finding(CHANGE, name, f"{name} is null: treated as not sent.")
        elif not TYPES[kind][1](value):
            hint = " (milliseconds since 1970, not a date text)" if name == "time" else ""
            yield Finding(INVALID, name, f"{name} must be {TYPES[kind][0]}{hint}, not {_show(value)}.")


def _type_name(event: Event) -> Iterator[Finding]:
    name = event.get("event_type")
    if name is None or name == "":
        yield Finding(MISSING, "event_type", "event_type is missing: every event needs one.")
    elif isinstance(name, str) and name in RESERVED_TYPES:
        yield Finding(INVALID, "event_type", f"{_show(name)} is reserved for Amplitude itself: choose another name.")
    elif isinstance(name, str) and not name.strip():
        yield Finding(INVALID, "event_type", "event_type is only white space.")


def _id(name: str, value: str, min_length: int) -> Iterator[Finding]:
    if value.strip().lower() in INVALID_IDS:
        yield Finding(INVALID, name, f"{name} {_show(value)} is on Amplitude's list of placeholder ids: leave the field out instead.")
    elif not value.strip("0-"):
        yield Finding(INVALID, name, f"{name} is only zeros: what a blocked advertising id looks like.")
    elif len(value) < min_length:
        words = f"{name} {_show(value)} has {len(value)} characters, at least {min_length} are needed: set options.min_id_length."
        yield Finding(LENGTH, name, words)


def _identity(event: Event, min_length: int) -> Iterator[Finding]:
    user, device = event.get("user_id"), event.get("device_id")
    for name, value in (("user_id", user), ("device_id", device)):
        if isinstance(value, str):
            yield from _id(name, value, min_length)
    if user is None and device is None:
        yield Finding(MISSING, "device_id", "Neither user_id nor device_id: Amplitude cannot tell whose event this is.")
    elif device is None:
        yield Finding(NOTE, "device_id", "No device_id: Amplitude fills in a hash of the user_id.")


def _moment(event: Event, now_ms: int) -> Iterator[Finding]:
    time, session = event.get("time"), event.get("session_id")
    if time is None:
        yield Finding(CHANGE, "time", "No time: Amplitude takes the moment of the upload.")
    elif TYPES["integer"][1](time):
        if time < 0:
            yield Finding(INVALID, "time", "time is before 1970: milliseconds since the epoch are expected.")
        elif 0 <= time < 100_000_000_000:
            yield Finding(NOTE, "time", "time looks like seconds: as milliseconds it lies before 1974.")
        elif time > now_ms + DAY_MS:
            yield Finding(NOTE, "time", "time is more than a day in the future; Amplitude documents no limit, charts will surprise.")
        elif time < now_ms - 30 * DAY_MS:
            yield Finding(NOTE, "time", "Older than 30 days: it may take up to 48 hours to appear.")
    if session == -1:
        yield Finding(NOTE, "session_id", "session_id -1 means no session: session metrics skip this event.")


def _repeatable(event: Event) -> Iterator[Finding]:
    if event.get("insert_id") is None:
        yield Finding(NOTE, "insert_id", "No insert_id: a resend of this event would be counted twice.")


def _resets(event: Event) -> Iterator[Finding]:
    for group in GROUPED:
        sent = [name for name in group if event.get(name) is not None]
        if sent and len(sent) < len(group):
            unsent = ", ".join(name for name in group if name not in sent)
            yield Finding(CHANGE, sent[0], f"{sent[0]} is sent, so Amplitude sets the others of its group to null: {unsent}.")


def _place(event: Event) -> Iterator[Finding]:
    if event.get("ip") == "$remote":
        yield Finding(CHANGE, "ip", "$remote becomes the address of the sender: from a server that is the server's place, not the user's.")


def _revenue(event: Event) -> Iterator[Finding]:
    price, quantity, revenue = (event.get(name) for name in ("price", "quantity", "revenue"))
    if price is not None and quantity is not None and revenue is not None:
        yield Finding(CHANGE, "revenue", "price, quantity and revenue are all sent: price times quantity is used.")
    if revenue is None and price is None and (event.get("productId") is not None or event.get("revenueType") is not None):
        yield Finding(CHANGE, "productId", "productId and revenueType need a revenue, or a price and a quantity.")
    currency = event.get("currency")
    if isinstance(currency, str) and not re.fullmatch("[A-Z]{3}", currency):
        yield Finding(NOTE, "currency", f"currency {_show(currency)} is no ISO 4217 code such as EUR.")


def _groups(event: Event) -> Iterator[Finding]:
    groups = event.get("groups")
    if isinstance(groups, dict):
        names = sum(len(value) if isinstance(value, list) else 1 for value in groups.values())
        if len(groups) > 5:
            yield Finding(CHANGE, "groups", f"{len(groups)} group types: only 5 are tracked.")
        if names > 10:
            yield Finding(CHANGE, "groups", f"{names} group names: only 10 are tracked.")
    if event.get("group_properties") is not None and event.get("event_type") != GROUPIDENTIFY_TYPE:
        yield Finding(CHANGE, "group_properties", "group_properties are only read when event_type is $groupidentify: ignored.")


def _operations(event: Event) -> Iterator[Finding]:
    kind = event.get("event_type")
    for name, own_type, known in (
        ("user_properties", IDENTIFY_TYPE, USER_OPERATIONS),
        ("group_properties", GROUPIDENTIFY_TYPE, GROUP_OPERATIONS),
    ):
        value = event.get(name)
        if not isinstance(value, dict):
            continue
        operations = [key for key in value if key.startswith("$")]
        if operations and kind != own_type and name == "user_properties":
            yield Finding(CHANGE, name, f"{operations[0]} is only carried out when event_type is {own_type}: ignored here.")
        elif kind == own_type:
            unknown = [key for key in operations if key not in known]
            if unknown:
                yield Finding(CHANGE, name, f"{_show(unknown[0])} is no operation Amplitude knows here: ignored.")
            if operations and len(operations) < len(value):
                yield Finding(CHANGE, name, "Operations and plain properties are mixed: the plain ones are ignored, put them into $set.")
            if "$clearAll" in value and len(value) > 1:
                yield Finding(CHANGE, name, "$clearAll must stand alone: the other operations are ignored.")


def _uncut(path: str) -> bool:
    return "$llm_message" in path or "[Agent] " in path


def _value(path: str, value: Any, in_list: bool) -> Iterator[Finding]:
    top = path.partition(".")[0]
    if isinstance(value, str):
        if len(value) > MAX_TEXT and not _uncut(path):
            yield Finding(CHANGE, top, f"{path[:120]} has {len(value):,} characters: cut to {MAX_TEXT:,}.")
    elif value is None:
        if path != top:
            yield Finding(NOTE, top, f"{path[:120]} is null: what Amplitude does with it is not documented.")
    elif isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        yield Finding(CHANGE, top, f"{path[:120]} is beyond 2^53: digits get lost, send it as text.")
    elif isinstance(value, list) and in_list:
        yield Finding(NOTE, top, f"{path[:120]} is a list inside a list: not documented, SDKs drop it. Send JSON text.")


def _is_plain(value: Any) -> bool:
    """Tell the values nothing can be said about: nearly all, so that the rest of the walk is rarely needed."""
    kind = type(value)
    if kind is str:
        return len(value) <= MAX_TEXT
    return kind is float or kind is bool or (kind is int and -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER)


def _values(event: Event) -> Iterator[Finding]:
    stack: list[tuple[str, Any, int, bool]] = [(name, value, 1, False) for name, value in reversed(event.items()) if not _is_plain(value)]
    while stack:
        path, value, depth, in_list = stack.pop()
        if depth > MAX_DEPTH and isinstance(value, dict | list):
            yield Finding(INVALID, path.partition(".")[0], f"Nested more than {MAX_DEPTH} levels deep.")
            return
        yield from _value(path, value, in_list)
        if isinstance(value, dict):
            stack.extend(
                (f"{path}.{name[:80]}", inner, depth + 1, False) for name, inner in reversed(value.items()) if not _is_plain(inner)
            )
        elif isinstance(value, list):
            stack.extend((f"{path}[]", inner, depth + 1, True) for inner in reversed(value) if not _is_plain(inner))


RULES: tuple[Callable[[Event], Iterator[Finding]], ...] = (
    _types,
    _type_name,
    _repeatable,
    _resets,
    _place,
    _revenue,
    _groups,
    _operations,
    _values,
)


def judge(event: Event, min_id_length: int, now_ms: int) -> list[Finding]:
    """Give what Amplitude would refuse about one event (all of it, first) and what it would change (at most 50 remarks)."""
    findings = [finding for rule in RULES for finding in rule(event)]
    findings += _identity(event, min_id_length)
    findings += _moment(event, now_ms)
    refusing = [finding for finding in findings if finding.kind in REFUSING]
    return refusing + [finding for finding in findings if finding.kind not in REFUSING][:MAX_REMARKS]


# --------------------------------------------------------------------------------------------------------------- uploads


def _take_off_short_ids(event: Event, findings: list[Finding]) -> list[Finding]:
    """Batch takes a too short id off when the other id is good (seen in practice); httpapi refuses the request."""
    bad = {finding.field for finding in findings if finding.kind in REFUSING}
    short = {finding.field for finding in findings if finding.kind == LENGTH}
    other = {"user_id": "device_id", "device_id": "user_id"}
    if len(short) != 1 or event.get(other[next(iter(short))]) is None or bad - short:
        return findings
    name = next(iter(short))
    return [
        Finding(CHANGE, name, finding.words + " Batch takes the id off and keeps the event.") if finding.kind == LENGTH else finding
        for finding in findings
    ]


def _lists(findings: list[list[Finding]], lists_all: bool) -> Json:
    lists: dict[str, dict[str, list[int]]] = {INVALID: {}, MISSING: {}, LENGTH: {}}
    for position, of_event in enumerate(findings):
        for finding in of_event:
            if finding.kind not in lists:
                continue
            positions = lists[finding.kind].setdefault(finding.field, [])
            if position not in positions[-1:] and (lists_all or not positions):
                positions.append(position)
    return dict(lists)


def _min_id_length(options: Any) -> int:
    value = options.get("min_id_length") if isinstance(options, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else MIN_ID_LENGTH


def _check_events(
    endpoint: Endpoint,
    api_key: str,
    events: Any,
    *,
    size: int,
    now_ms: int,
    knows: Callable[[str], bool],
    min_id_length: int = MIN_ID_LENGTH,
) -> Reading:
    if not knows(api_key):
        return Reading(400, invalid_key(api_key), api_key=api_key, reason="invalid key")
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        return Reading(400, refusal(400, "Invalid event JSON", missing_field=None), api_key=api_key, reason="invalid event JSON")
    if len(events) > MAX_EVENTS:
        return Reading(413, too_large(), api_key=api_key, reason="too many events")
    findings = [judge(event, min_id_length, now_ms) for event in events]
    if endpoint is BATCH:
        findings = [_take_off_short_ids(*pair) for pair in zip(events, findings, strict=True)]
    lists = _lists(findings, endpoint.lists_all)
    if any(lists.values()):
        body = refusal(400, "Invalid field values on some events", missing_field=None, **lists)
        return Reading(400, body, events, findings, api_key, "invalid fields")
    return Reading(200, accepted(len(events), size), events, findings, api_key)


def _missing(name: str) -> Reading:
    return Reading(400, refusal(400, "Request missing required field", missing_field=name), reason=f"missing {name}")


def _count_values(body: bytes) -> int:
    """About how many values a JSON text has, more rather than less."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def read_upload(endpoint: Endpoint, body: bytes, now_ms: int, knows: Callable[[str], bool]) -> Reading:
    """Read a JSON upload (httpapi, batch).

    Args:
        endpoint: the path it came to.
        body: the body after any decompression.
        now_ms: the server's clock, milliseconds since the epoch.
        knows: returns whether an API key is valid.
    """
    if not body.strip():
        return Reading(400, refusal(400, "Missing request body", missing_field=None), reason="missing body")
    if len(body) > endpoint.max_bytes or _count_values(body) > MAX_VALUES:
        return Reading(413, too_large(), reason="too many bytes")
    try:
        upload = parse(body)
    except ValueError:
        upload = None
    if not isinstance(upload, dict):
        return Reading(400, refusal(400, "Invalid JSON request body", missing_field=None), reason="invalid JSON")
    api_key = upload.get("api_key")
    if not isinstance(api_key, str) or not api_key:
        return _missing("api_key")
    if upload.get("events") in (None, []):
        return _missing("events")
    min_id_length = _min_id_length(upload.get("options"))
    return _check_events(endpoint, api_key, upload["events"], size=len(body), now_ms=now_ms, knows=knows, min_id_length=min_id_length)


def _as_events(endpoint: Endpoint, items: list[Any]) -> list[Any]:
    """Give the events that do the same as these identifications: one meaning, one path through the contract."""
    if endpoint is IDENTIFY:
        return [{"event_type": IDENTIFY_TYPE, **item} if isinstance(item, dict) else item for item in items]
    return [
        {
            "event_type": GROUPIDENTIFY_TYPE,
            # A group has no person; the event form needs an id, which no list of users ever shows.
            "device_id": "group-identify",
            "groups": {str(item.get("group_type")): str(item.get("group_value"))},
            "group_properties": item.get("group_properties"),
        }
        if isinstance(item, dict)
        else item
        for item in items
    ]


def read_identify(endpoint: Endpoint, body: bytes, content_type: str, now_ms: int, knows: Callable[[str], bool]) -> Reading:
    """Read a form upload (identify, groupidentify); its identifications become events of the same effect."""
    if len(body) > endpoint.max_bytes or _count_values(body) > MAX_VALUES:
        return Reading(413, too_large(), reason="too many bytes")
    try:
        form = read_form(body, content_type)
        items = parse(form.get(endpoint.form, "null"))
    except ValueError:
        form, items = {}, None
    api_key = form.get("api_key", "")
    if not api_key and items is not None:
        return _missing("api_key")
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, list) or not items:
        body_ = refusal(400, "missing_event", missing_field=endpoint.form)
        return Reading(400, body_, reason="missing identification")
    if endpoint is GROUPIDENTIFY and len(items) > 1_024:
        return Reading(413, too_large(), reason="too many events")
    return _check_events(endpoint, api_key, _as_events(endpoint, items), size=len(body), now_ms=now_ms, knows=knows)
