"""In what we differ from Amplitude's own clients, on purpose: each difference with its reason, and no other is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parity.calls import CALLS


@dataclass(frozen=True)
class Difference:
    """One key of what arrived: `absent` with us, `added` by us, or `changed`."""

    client: str
    path: str
    how: str
    calls: tuple[str, ...]
    reason: str


ALL: Final = tuple(call["name"] for call in CALLS)
WITHOUT_OWN_KEY: Final = tuple(name for name in ALL if name != "every-key")
BOTH: Final = ("node", "python")

ARRIVED: Final = (
    *(Difference(client, "library", "changed", ALL, "says which library sent the event") for client in BOTH),
    Difference("node", "insert_id", "added", WITHOUT_OWN_KEY, "without it a retry of theirs can count an event twice"),
    Difference("node", "time", "added", WITHOUT_OWN_KEY, "without it an event that waits is dated by its arrival"),
    *(Difference("python", key, "changed", WITHOUT_OWN_KEY, "each client makes its own") for key in ("insert_id", "time")),
    Difference("node", "groups", "absent", ("identify", "clear-all", "not-a-number"), "an empty map says nothing"),
    Difference("node", "device_id", "absent", ("group-identify",), "a random device for each call is one more monthly user each"),
    Difference("node", "event_properties.a", "absent", ("null",), "what null means to Amplitude is not documented; Python's client agrees"),
    Difference("node", "event_properties.a", "changed", ("nested-lists",), "lists in lists become text, which Amplitude can show"),
    Difference("python", "event_properties.a", "added", ("nested-lists",), "theirs loses all properties for one nested list"),
    Difference("python", "event_properties.b", "added", ("nested-lists",), "theirs loses all properties for one nested list"),
    Difference("node", "event_properties.a", "changed", ("long-text",), "cut to 1,024 characters here, where it is counted, not there"),
    *(
        Difference(client, f"groups.type{number}", "absent", ("many-groups",), "Amplitude takes 5 types for one event; here it is told")
        for client in BOTH
        for number in (5, 6)
    ),
    Difference("node", "colour", "absent", ("unknown-key",), "no key of Amplitude's; here it is told"),
)


@dataclass(frozen=True)
class Refusal:
    """What became of a bad call: the start of our message, what the others said, and whether theirs was accepted all the same."""

    name: str
    ours: str
    node: str
    python: str
    accepted: tuple[str, ...] = ()
    reason: str = "field and rule, before anything is sent"


REFUSED: Final = (
    Refusal("no-type", "event_type is missing", "skipped", "nothing"),
    Refusal("no-id", "user_id and device_id are missing", "skipped", "nothing"),
    Refusal("short-id", "user_id has 1 characters", "invalid 400", "400"),
    Refusal("invalid-id", "user_id 'anonymous' is refused", "invalid 400", "400"),
    Refusal(
        "text-time",
        "time must be milliseconds since 1970",
        "invalid 400",
        "200",
        ("python",),
        "theirs takes the time of sending instead, without a word to the caller",
    ),
    Refusal("text-price", "price must be a finite number", "invalid 400", "200", ("python",), "theirs sends the sale without its price"),
    Refusal(
        "empty-revenue",
        "event_properties.$price is missing",
        "success 200",
        "nothing",
        ("node",),
        "the Node client has no revenue method that could check it",
    ),
)
