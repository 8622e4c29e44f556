"""The demo shows what it promises, and says so when it can not."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otel_amplitude.cli import demo
from otel_amplitude.cli._ask import ask
from otel_amplitude.convert._rules import load_rules
from otel_amplitude.sandbox import Sandbox

pytestmark = pytest.mark.timeout(150)
needs_shop = pytest.mark.heavy


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shop may be as slow as other tests make it."""
    for name in ("_STARTUP_SECONDS", "_TRADE_SECONDS", "_STOP_SECONDS"):
        monkeypatch.setattr(demo, name, 90.0 if name == "_STARTUP_SECONDS" else 40.0)


@needs_shop
def test_the_annotated_shop(run: Any) -> None:
    """Every event of every customer arrives, revenue included, and the exit code is 0."""
    ended = run("demo")
    assert ended.code == 0, ended.out + ended.err
    assert "FAILED" not in ended.out
    assert "Order Paid" in ended.out
    assert "337.50" in ended.out
    assert "no_identity" in ended.out


@needs_shop
def test_the_shop_without_amplitude_code(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rules file alone gives "Order Placed", "Cart Viewed" and revenue; the page has the counters of each process."""
    seen: dict[str, Any] = {}
    real = demo._report

    def look(sandbox: Sandbox, *of: Any) -> list[str]:
        problems = real(sandbox, *of)
        seen["counters"] = ask(sandbox.url, "/api/counters")["processes"]
        seen["events"] = sandbox.events()
        return problems

    monkeypatch.setattr(demo, "_report", look)
    ended = run("demo", "--rules")
    assert ended.code == 0, ended.out + ended.err
    assert Counter(event["event_type"] for event in seen["events"]) == {"HTTP Request": 24, "Cart Viewed": 6, "Order Placed": 6}
    order = next(event for event in seen["events"] if event["event_type"] == "Order Placed")
    assert (order["revenue"], order["currency"], order["event_properties"]["items"]) == (37.5, "EUR", 3)
    assert sum(process["counters"]["accepted"] for process in seen["counters"]) == 36
    source = demo._RULES.with_name("_plain_shop.py").read_text()
    assert "import" in source
    assert not [line for line in source.splitlines() if "amplitude" in line.lower() and "import" in line]


def test_the_rules_are_a_good_example() -> None:
    """Three rules, all of which the shop uses."""
    assert len(load_rules(demo._RULES).rules) == 3


@needs_shop
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"app": "no.such.module:app"}, "the shop ended before it answered"),
        ({"revenue": 1.0}, "the customers spent 1.00"),
        ({"visit": lambda shop: demo._visit_plain(shop) + Counter({"Unicorn": 1})}, "'Unicorn': 1}, but {"),
    ],
)
def test_what_fails(change: dict[str, Any], words: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in words, with what the shop said, and the exit code is 1."""
    monkeypatch.setattr(demo, "_WITH_RULES", replace(demo._WITH_RULES, **change))
    ended = run("demo", "--rules")
    assert ended.code == 1
    assert "FAILED: " in ended.out
    assert words in ended.out, ended.out


@needs_shop
def test_a_shop_that_does_not_stop(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed, and that is told."""

    class Stubborn(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            if timeout is not None:
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait()

    monkeypatch.setattr(demo.subprocess, "Popen", Stubborn)
    ended = run("demo", "--rules")
    assert (ended.code, "did not stop within" in ended.out) == (1, True)


def test_missing_packages(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that installs them is told."""
    monkeypatch.setattr(demo, "_NEEDED", {"no_such_module.inner": "a-package", "json": "json"})
    ended = run("demo")
    assert ended.code == 3
    assert ended.err.endswith("pip install a-package\n")


def test_keep(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page stays open until a signal comes."""

    class AtOnce:
        def wait(self) -> None:
            """Come at once."""

    monkeypatch.setattr(demo, "_play", lambda *_: [])
    monkeypatch.setattr(demo, "_importable", lambda _: True)
    monkeypatch.setattr(demo, "stop_signal", AtOnce)
    out = run("demo", "--keep").out
    assert "stays open; Ctrl-C ends it" in out
    assert "--keep" not in out
    assert re.search(r"otel-amplitude catalog --sandbox http://127\.0\.0\.1:\d+\n", out)


@pytest.mark.parametrize("rules", [(), ("--rules",)])
@pytest.mark.parametrize("where", ["on the path", "by its path", "under nox"])
def test_the_next_command_works_where_this_one_was_typed(
    where: str, rules: tuple[str, ...], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the last line, and a shell in the same place finds it."""
    monkeypatch.setattr(demo, "_play", lambda *_: [])
    monkeypatch.setattr(demo, "_importable", lambda _: True)
    monkeypatch.delenv("NOX_CURRENT_SESSION", raising=False)
    mine = Path(sys.executable).with_name("otel-amplitude")
    monkeypatch.setenv("PATH", str(tmp_path) if where == "by its path" else f"{mine.parent}{os.pathsep}{os.defpath}")
    if where == "under nox":
        monkeypatch.setenv("NOX_CURRENT_SESSION", "demo")
    *_, last = run("demo", *rules).out.splitlines()
    words = shlex.split(last)
    if where == "under nox":
        assert words[:4] == ["nox", "-s", "demo", "--"]
    else:
        assert Path(shutil.which(words[0]) or "").absolute() == mine  # below this folder it is a relative path
        assert words[1] == "demo"
    assert "--keep" in words
    assert ("--rules" in words) == bool(rules)


def test_a_busy_port(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as by the sandbox: the address, and the word that changes it."""
    monkeypatch.setattr(demo, "_importable", lambda _: True)
    with Sandbox() as other:
        port = other.url.rpartition(":")[2]
        ended = run("demo", "--port", port)
    assert ended.code == 3
    assert f"can not listen on 127.0.0.1:{port}" in ended.err
    assert "choose another --port" in ended.err


def test_a_shop_that_is_too_slow() -> None:
    """Its customers do not wait for ever, whether it refuses them or only dawdles."""
    visitor = demo._Visitor("http://127.0.0.1:9", closing=math.inf)
    with pytest.raises(demo._DemoError, match="did not answer /products"):
        visitor.go("/products")
    visitor.closing = 0.0
    with pytest.raises(demo._DemoError, match="too slow"):
        visitor.go("/products")


def test_what_is_found_wrong() -> None:
    """Events that were lost on the way and secrets in an event are problems."""
    event = {"event_type": "HTTP Request", "event_properties": {"url": "secret-that-must-not-travel"}}
    scene = replace(demo._ANNOTATED, revenue=0.0)
    problems = demo._problems(scene, Counter({"HTTP Request": 1}), [event], [{"pid": 1, "accepted": 2}])
    assert problems == ["the processes accepted 2 events, but 1 arrived", "a query string reached an event"]
