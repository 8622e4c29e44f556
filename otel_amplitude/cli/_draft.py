"""A first rules file from events that were seen: one proposed rule for each route, in words that an analyst can change."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_amplitude.convert._tables import DEFAULT_NAME, OTHER_NAME
from otel_amplitude.limits import MAX_STRING

# What an automatic event brings along by itself (design 3); what it has beyond these was asked for.
_OWN: Final = frozenset(
    {"method", "route", "status_code", "service", "service_version", "environment", "duration_ms", "trace_id", "error_type"}
)
_VERBS: Final = {"GET": "Viewed", "POST": "Submitted", "PUT": "Saved", "PATCH": "Changed", "DELETE": "Deleted"}
_MAX_ROUTES: Final = 200
_WORD: Final = re.compile(r"[A-Za-z0-9]+")


@dataclass
class RouteSeen:
    """What one route did: how often, with which statuses, of whom, with which properties; and its name, where it has one already."""

    count: int = 0
    statuses: set[int] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    properties: set[str] = field(default_factory=set)
    name: str = ""


def draft(events: Iterable[Mapping[str, Any]], source: str) -> str:
    """Give the text of a rules file.

    Args:
        events: as they were sent.
        source: where they were seen, for the first line.
    """
    routes: dict[tuple[str, str], RouteSeen] = {}
    others: Counter[str] = Counter()
    for event in events:
        properties = event.get("event_properties")
        properties = properties if isinstance(properties, dict) else {}
        method, route = properties.get("method"), properties.get("route")
        if not (isinstance(method, str) and isinstance(route, str)):
            others[str(event.get("event_type"))] += 1
            continue
        seen = routes.setdefault((method, route), RouteSeen())
        seen.count += 1
        seen.users.add(str(event.get("user_id") or event.get("device_id")))
        if event.get("event_type") not in (DEFAULT_NAME, OTHER_NAME, f"{method} {route}"):
            seen.name = str(event.get("event_type"))
        seen.properties |= {name for name in properties if name not in _OWN}
        if isinstance(status := properties.get("status_code"), int):
            seen.statuses.add(status)
    ranked = sorted(routes.items(), key=lambda item: (-item[1].count, item[0]))
    parts = [_head(source, others), *(_rule(method, route, seen) for (method, route), seen in ranked[:_MAX_ROUTES])]
    if not ranked:
        parts.append(_EXAMPLE)
    return "\n".join(parts)


def _head(source: str, others: Counter[str]) -> str:
    lines = [
        f"# Which requests are which events. A first draft from what was seen in {_one_line(source)}:",
        "# rename what matters, write `drop = true` instead of a name where a request is nothing, take the rest out.",
        "# The first rule that fits takes a request; those that none takes stay `HTTP Request`.",
        "# Then: otel-amplitude rules check FILE, and set the option rules (OTEL_EXPORTER_AMPLITUDE_RULES=FILE).",
    ]
    if others:
        lines.append("#")
        lines.append("# Events already, by an annotation or a rule of their own (no rule needed):")
        lines += [f"#   {_one_line(name)} ({count:,})" for name, count in others.most_common(50)]
    return "\n".join(lines) + "\n"


_EXAMPLE: Final = """# No request was seen. A rule looks like this:
[[event]]
name = "Order Placed"
match = {route = "/orders", method = "POST", status = "2xx"}
"""


def _rule(method: str, route: str, seen: RouteSeen) -> str:
    match = f"route = {_text(route)}, method = {_text(method)}"
    classes = sorted({f"{status // 100}xx" for status in seen.statuses if 100 <= status < 600})
    if classes:
        match += f", status = {_text(classes[0]) if len(classes) == 1 else json.dumps(classes)}"
    name = seen.name.replace("{", "{{").replace("}", "}}")
    if not name.strip() or name.startswith("[Amplitude]") or len(name) > MAX_STRING:
        name = propose_name(method, route)[:MAX_STRING]
    lines = [
        f"# {seen.count:,} times, {len(seen.users):,} {'user' if len(seen.users) == 1 else 'users'}",
        "[[event]]",
        f"name = {_text(name)}",
        f"match = {{{match}}}",
    ]
    if seen.properties:
        lines.append(f"# properties = [{', '.join(map(_text, sorted(seen.properties)[:20]))}]")
    return "\n".join(lines) + "\n"


def propose_name(method: str, route: str) -> str:
    """Give a name for what a request did, as the object and the verb in the past tense.

    >>> propose_name("GET", "/products/{id}"), propose_name("POST", "/api/v1/cart-items"), propose_name("GET", "/")
    ('Product Viewed', 'Cart Items Submitted', 'Home Viewed')
    >>> propose_name("DELETE", "/companies/{id}"), propose_name("PUT", "/diffs/{one}/{other}"), propose_name("LINK", "/glass/{id}")
    ('Company Deleted', 'Diff Saved', 'Glass Answered')
    """
    parts = [part for part in route.split("/") if part and not re.fullmatch(r"api|v\d+", part)]
    single = bool(parts) and _is_parameter(parts[-1])
    named = [part for part in parts if not _is_parameter(part)]
    words = _WORD.findall(named[-1]) if named else []
    noun = " ".join(word[:1].upper() + word[1:] for word in words) or "Home"
    return f"{_singular(noun) if single else noun} {_VERBS.get(method, 'Answered')}"


def _is_parameter(part: str) -> bool:
    return "{" in part


def _singular(noun: str) -> str:
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def _text(value: str) -> str:
    """Give a TOML basic string; its escapes are those of JSON."""
    text = json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)


def _one_line(value: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in value)[:200]
