"""The picture of the house, held against the code: packages stand on floors and import only from below."""

from __future__ import annotations

import ast
from pathlib import Path

import otel_amplitude

HOUSE = Path(otel_amplitude.__file__).parent
TOP = "otel_amplitude"

# Lowest first. A room imports from floors below its own; rooms of one floor do not know each other.
FLOORS = (
    {"clock", "errors", "late_imports", "sdk_access"},
    {"_version", "limits", "log", "pipeline", "suppression"},
    {"fixes"},
    {"moments", "objects"},
    {"values"},
    {"events", "insert_ids"},
    {"identity"},
    {"delivery", "transport", "convert", "middleware", "_adapter"},
    {"wire", "telemetry", "config"},
    {"exporter", "results", "_exit"},
    {"client", "kafka"},
    {"instances", "frameworks"},
    {"otel"},
    {"setup", "environment_variables", "gateway"},
    {"worker"},
    {"testing", "cli"},
    {"__main__"},
)
# Named exceptions, each with its reason.
SAME_FLOOR = {
    ("transport", "_adapter"),  # the part of the transport that is loaded at the first send
}
UPWARDS = {
    ("otel", "setup"),  # _components and _instrumentor are built by OpenTelemetry from outside; they call the set-up
}
# A stand-in for Amplitude is a second opinion: it knows nothing of us.
APART = {"sandbox"}


def room_of(module: str) -> str:
    """`otel_amplitude.delivery.disk.spool` is in the room `delivery`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" if node.module == TOP else node.module for alias in node.names}
    return {name for name in found if name == TOP or name.startswith(f"{TOP}.")}


def files() -> list[tuple[str, Path]]:
    """Every file with the room it is in; the top `__init__` re-exports from all floors."""
    found = [(path.relative_to(HOUSE).parts[0].removesuffix(".py"), path) for path in sorted(HOUSE.rglob("*.py"))]
    return [(room, path) for room, path in found if room != "__init__"]


def test_every_room_has_a_floor() -> None:
    """A new room must be given its place, and none is kept for a room that is gone."""
    assert {room for room, _ in files()} == set().union(*FLOORS, APART)


def test_imports_go_down() -> None:
    """No room imports from its own floor or from above, not even inside a function."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for room, path in files():
        for module in imports(path):
            other = room_of(module)
            if other in ("", room, "set_user") or room in APART or (room, other) in SAME_FLOOR | UPWARDS:
                continue
            if floor.get(other, len(FLOORS)) >= floor[room] and not (room == "cli" and other in APART):
                wrong.append(f"{path.relative_to(HOUSE)} ({room}) imports {module}")
    assert not wrong, "\n".join(wrong)


def test_the_sandbox_knows_nothing_of_us() -> None:
    """What judges our uploads shares no code with what makes them."""
    assert {module for room, path in files() if room in APART for module in imports(path) if room_of(module) not in APART} == set()


def test_delivery_does_not_know_amplitude() -> None:
    """The generic half could deliver anything."""
    words = [
        path.name
        for room, path in files()
        if room == "delivery" and "amplitude" in path.read_text().lower().replace(TOP, "").replace("otel-amplitude", "")
    ]
    assert words == []


def test_requests_is_imported_in_one_room() -> None:
    """Only the transport talks HTTP, and only when it sends."""
    users = {
        room
        for room, path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "requests" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "requests")
    }
    assert users <= {"_adapter", "transport"}


def test_clocks_are_read_in_one_room() -> None:
    """A fake clock of a test must not meet a real one; what the command line measures for itself is its own affair."""
    clocks = {"time", "time_ns", "monotonic", "monotonic_ns"}
    users = {
        room
        for room, path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in clocks and isinstance(node.value, ast.Name) and node.value.id == "time")
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and any(alias.name in clocks for alias in node.names))
    }
    assert users - APART <= {"clock", "cli"}


def test_private_fields_of_the_sdk_are_read_in_one_room() -> None:
    """Another room asks `sdk_access`, which knows what to do where the SDK keeps them elsewhere."""
    private = {"_dict", "_dq", "_RUNTIME_CONTEXT", "_current_context", "_attributes", "_events", "_resource", "_start_time", "_end_time"}
    users = {
        room
        for room, path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in private and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert users - APART == {"sdk_access"}
