"""The cookie for trials is one that we read ourselves."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from cli.trial import KEY

from otel_amplitude.identity._cookie import read_cookie


def test_a_header(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key comes from the environment; device and session are new."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_API_KEY", KEY)
    ended = run("cookie", "--user-id", "u-12345")
    assert ended.code == 0
    found = read_cookie(ended.out.strip().removeprefix("Cookie: "), KEY)
    assert found
    assert (found.user_id, found.opt_out) == ("u-12345", False)
    assert found.device_id
    assert found.session_at(time.time() * 1000)


def test_all_of_it(run: Any) -> None:
    """What is given stands in the cookie."""
    words = ("--api-key", KEY, "--device-id", "laptop-1", "--session-id", "1790000000000", "--opt-out")
    value = run("cookie", *words, "--value").out.strip()
    found = read_cookie(value, KEY)
    assert found
    assert (found.device_id, found.user_id, found.session_id, found.opt_out) == ("laptop-1", None, 1_790_000_000_000, True)
    data = json.loads(run("cookie", *words, "--json").out)
    assert (data["name"], data["device_id"], data["session_id"]) == (f"AMP_{KEY[:10]}", "laptop-1", 1_790_000_000_000)


@pytest.mark.parametrize(
    ("words", "cure"),
    [((), "--api-key"), (("--api-key", "short"), "ten characters"), (("--api-key", KEY, "--session-id", "now"), "13 digits")],
)
def test_what_is_missing(words: tuple[str, ...], cure: str, run: Any) -> None:
    """It is said what to give."""
    ended = run("cookie", *words)
    assert (ended.code, ended.out) == (3, "")
    assert cure in ended.err
