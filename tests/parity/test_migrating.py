"""The page for those who move over leaves out nothing that the other SDKs have, and names nothing that we do not have."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Final

import pytest

from otel_amplitude import Amplitude, Identify
from otel_amplitude.config import options

sdk = pytest.importorskip("amplitude", reason="pip install amplitude-analytics==1.3.0")
PAGE: Final = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
CODE: Final = " ".join(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))
# types/dist/src/options.d.ts, client.d.ts and identify/dist/src/identify.d.ts of 1.10.2.
NODE: Final = (
    "debug logLevel maxCachedEvents maxRetries retryTimeouts optOut retryClass transportClass serverUrl uploadIntervalInSec minIdLength "
    "requestTimeoutMillis onRetry plan ingestionMetadata init getOptions logEvent addEventMiddleware flush identify setGroup identifyGroup "
    "set setOnce append prepend postInsert preInsert remove add unset clearAll OfflineRetryHandler"
).split()


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", text))


def test_everything_of_the_node_client_has_its_place() -> None:
    """Methods, options and operations."""
    assert set(NODE) <= words(CODE)


@pytest.mark.parametrize("kind", [sdk.Amplitude, sdk.Identify])
def test_everything_of_the_python_client_has_its_place(kind: type) -> None:
    """Methods and operations."""
    names = {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")} - {"is_valid"}
    assert names <= words(CODE)


def test_every_option_of_the_python_client_has_its_place() -> None:
    """As its Config takes them."""
    assert set(inspect.signature(sdk.Config).parameters) <= words(CODE)


def test_our_own_names_exist() -> None:
    """Those of the third column: calls in the first table, options in the second."""
    first, second = (PAGE.split(f"## {title}\n")[1].split("\n## ")[0] for title in ("Calls", "Options"))
    known = {option.name for option in options()}
    rows = [line for line in second.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    for line in rows:
        assert set(re.findall(r"`(\w+)`", line.split("|")[3])) <= known, line
    for line in first.splitlines():
        calls = re.findall(r"`(\w+)\(", line.split("|")[3]) if line.startswith("| ") else []
        assert all(hasattr(Amplitude, call) or call in ("get_instance", "Identify", "Plugin") for call in calls), line
    assert all(hasattr(Identify, name) for name in ("set_once", "pre_insert", "post_insert", "clear_all"))


def test_the_program_on_the_page_runs(amplitude_events: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is accepted, and arrives."""
    program = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert program is not None
    exec(compile(program[1], "migrating.md", "exec"), {})
    types = amplitude_events.types  # type: ignore[attr-defined]
    # In the order of the calls for each user; the group is an id of its own, and may be sent beside them.
    assert [name for name in types if name != "$groupidentify"] == ["Order Paid", "$identify", "$identify", "revenue_amount"]
    assert types.count("$groupidentify") == 1
