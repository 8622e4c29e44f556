"""What the documents say is so: blocks run, what exists is documented, links lead somewhere, tables are those of the code."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_layers import FLOORS, HOUSE
from zero_code.running import Program, free_port, tool

import otel_amplitude.middleware
from otel_amplitude.cli._main import COMMANDS, main
from otel_amplitude.config import environment_variable, options, rows
from otel_amplitude.convert._matcher import WORDS
from otel_amplitude.convert._rules import _KINDS, _OPERATORS, _PICK_KEYS, _READERS, parse_rules
from otel_amplitude.convert._tables import REVENUE_FIELDS
from otel_amplitude.delivery.books import DROPPED_REASONS, REFUSED_REASONS, REJECTED_REASONS
from otel_amplitude.sandbox import Sandbox

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING, DOCS = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
REPOSITORY = "https://github.com/otel-amplitude/otel-amplitude"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
KEY = "0123456789abcdef0123456789abcdef"
UPDATE = bool(os.environ.get("UPDATE_DOCS"))
MIGRATING = DOCS / "migrating.md"
START = list(DOCS.glob("start/*.md"))

_FENCE = re.compile(r"^(?:<!-- (?P<mark>[^>]*?) -->\n)?```(?P<language>[\w{}-]+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block, with the comment above it, which says how it is tested."""

    page: Path
    line: int
    language: str
    mark: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        yield Block(path, text.count("\n", 0, found.start()) + 1, found["language"], found["mark"] or "", found["code"])


BLOCKS = [block for path in PAGES for block in blocks(path)]
# Of Sphinx, not code.
DIRECTIVES = {"{toctree}", "{eval-rst}", "{include}"}


def of_language(language: str, mark: str = "", page: Path | None = None) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and block.mark.startswith(mark) and page in (None, block.page)]


def environment(**more: str) -> dict[str, str]:
    """The environment without what might be set on this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AMPLITUDE_"))}
    return {**kept, "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY, "PYTHONWARNINGS": "error", **more}


# --- blocks ------------------------------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    """What it is, for whom, how to begin; everything else is a page of docs."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_every_block_is_tested_somehow() -> None:
    """A new kind of block needs a new kind of test. Files are those of the README and of docs/start, which tests/test_start.py follows."""
    assert {block.language for block in BLOCKS} <= {"python", "sh", "toml", "yaml", "text", "json", *DIRECTIVES}
    for block in of_language("python"):
        in_program = block.page == MIGRATING or (block.mark.startswith(("file:", "append:")) and block.page in (README, *START))
        assert in_program or block.mark.startswith(("gives:", "pytest")), block


@pytest.mark.heavy
@pytest.mark.parametrize("block", of_language("python", "gives:"), ids=str)
def test_a_python_block_runs_alone_and_gives_its_events(block: Block, tmp_path: Path) -> None:
    """In a process of its own, with a dry run, without a word on stderr."""
    events = tmp_path / "events.jsonl"
    ran = subprocess.run(
        [sys.executable, "-c", block.code],
        capture_output=True,
        text=True,
        check=False,
        env=environment(OTEL_EXPORTER_AMPLITUDE_DRY_RUN=str(events)),
        timeout=50,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    assert [line["event_type"] for line in lines if "event_type" in line] == block.mark.removeprefix("gives: ").split(", ")


@pytest.mark.heavy
def test_the_python_of_the_guide_for_those_who_move_runs() -> None:
    """As one program, with a dry run, without a word on stderr."""
    code = "".join(block.code for block in of_language("python", page=MIGRATING))
    env = environment(OTEL_EXPORTER_AMPLITUDE_DRY_RUN="true")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env, timeout=50)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.heavy
def test_the_pytest_block_passes(tmp_path: Path) -> None:
    """With our plugin, which pytest finds by itself."""
    (block,) = of_language("python", "pytest")
    (tmp_path / "test_readme.py").write_text(block.code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment(),
        timeout=50,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.heavy
def test_the_view_of_the_readme_gives_its_events(tmp_path: Path) -> None:
    """Both belong to the user of the session."""
    (view,) = of_language("python", "file: views.py", README)
    (tmp_path / "views.py").write_text(view.code, encoding="utf-8")
    visit = (
        "import otel_amplitude\n"
        "otel_amplitude.configure()\n"
        "from opentelemetry.instrumentation.flask import FlaskInstrumentor\n"
        "FlaskInstrumentor().instrument()\n"
        "from views import app\n"
        "app.secret_key = 'x'\n"
        "with app.test_client() as browser:\n"
        "    with browser.session_transaction() as session:\n"
        "        session['customer'] = 'u-12345'\n"
        "    assert browser.post('/orders').text == 'paid\\n'\n"
        "otel_amplitude.get_instance().flush()\n"
    )
    env = environment(OTEL_EXPORTER_AMPLITUDE_DRY_RUN=str(tmp_path / "events.jsonl"), PYTHONPATH=str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", visit], capture_output=True, text=True, check=False, env=env, timeout=50)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    events = [line for line in lines if "event_type" in line]
    assert {(event["event_type"], event["user_id"]) for event in events} == {("Order Placed", "u-12345"), ("Order Paid", "u-12345")}


def cookie_of_the_readme() -> str:
    """What the command inside the README's curl prints, as a header's value."""
    words = next(words for words in commands("otel-amplitude cookie") if KEY in words)
    ran = subprocess.run([tool(words[0]), *words[1:]], capture_output=True, text=True, check=True, env=environment())
    return ran.stdout.strip().removeprefix("Cookie: ")


def visited(script: str, ready: str, folder: Path) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Start the README's shop by a shell script, visit it with the cookie and without, stop it; the events, and the counters of its processes."""
    (shop,) = of_language("python", "file: shop.py", README)
    (folder / "shop.py").write_text(shop.code, encoding="utf-8")
    port = free_port()
    with Sandbox() as sandbox:
        for there, here in (
            ("--sandbox", f"--sandbox --port {sandbox.url.rpartition(':')[2]}"),
            (":8010", sandbox.url[16:]),
            ("8000", str(port)),
        ):
            script = script.replace(there, here)
        path = os.pathsep.join((str(Path(tool("gunicorn")).parent), os.environ["PATH"]))
        script = f"cd {shlex.quote(str(folder))}\n" + re.sub(
            r"^(opentelemetry-instrument|otel-amplitude)", r"exec \1", script, flags=re.MULTILINE
        )
        with Program(["bash", "-e", "-c", script], {"PATH": path, "HOME": str(folder), "PYTHONUNBUFFERED": "1"}) as server:
            server.until(ready)
            for headers in ({"Cookie": cookie_of_the_readme()}, {}):
                request = urllib.request.Request(f"http://127.0.0.1:{port}/products/tea", headers=headers)
                with urllib.request.urlopen(request, timeout=10) as answer:
                    assert answer.read() == b"tea costs 12.50\n"
            assert sandbox.wait_for(lambda _: sandbox.accepted == 1, 20), server.output
            server.stop()
            return sandbox.events(), server.books


@pytest.mark.heavy
def test_the_quick_start_of_the_readme_works_as_written(tmp_path: Path) -> None:
    """Its shop and its command give one event for a known visitor, and count one that is not."""
    (script,) = (block.code for block in of_language("sh", page=README) if "run --sandbox" in block.code)
    events, _ = visited(re.sub(r"^pip.*\n", "", script), "Running on", tmp_path)
    (event,) = events
    assert (event["event_type"], event["user_id"]) == ("HTTP Request", "u-12345")
    assert {"device_id", "session_id"} <= event.keys()
    assert {"method", "route", "status_code", "duration_ms", "service"} <= event["event_properties"].keys()


@pytest.mark.heavy
def test_the_exports_in_place_of_run_work_as_written(tmp_path: Path) -> None:
    """What `run` sets, written down, does the same under a server with workers; the last line counts who was refused."""
    (script,) = (block.code for block in of_language("sh") if "opentelemetry-instrument gunicorn" in block.code)
    events, books = visited(script, "Booting worker", tmp_path)
    assert [(event["event_type"], event["user_id"]) for event in events] == [("HTTP Request", "u-12345")]
    assert books["refused.no_identity"] == 1


def test_the_rules_block_is_the_file_of_the_example() -> None:
    """Without a doubt about any rule of it."""
    (block,) = of_language("toml", page=DOCS / "guide/rules.md")
    assert (ROOT / "examples/rules/rules.toml").read_text(encoding="utf-8") == block.code
    assert parse_rules(block.code).warnings == ()


def test_the_language_of_rules_is_documented() -> None:
    """Every key, word and operator of the file, where users read."""
    assert {*_READERS, *WORDS, *_OPERATORS, *_PICK_KEYS, *_KINDS, *REVENUE_FIELDS} <= words_in_tables("guide/rules.md")


RULES = DOCS / "guide/rules.md"
_PRINTED = re.compile(r"<!-- prints: -->\n```sh\n(?P<shell>.*?)```\n```text\n(?P<text>.*?)```$", re.MULTILINE | re.DOTALL)


@pytest.mark.heavy
@pytest.mark.parametrize("number", range(len(_PRINTED.findall(RULES.read_text(encoding="utf-8")))))
def test_a_command_prints_what_the_page_shows(number: int, tmp_path: Path) -> None:
    """In the folder examples/rules, in a terminal of 110 columns."""
    found = list(_PRINTED.finditer(RULES.read_text(encoding="utf-8")))[number]
    shutil.copytree(ROOT / "examples/rules", tmp_path, dirs_exist_ok=True)
    path = os.pathsep.join((str(Path(tool("otel-amplitude")).parent), os.environ["PATH"]))
    for command in found["shell"].splitlines():
        ran = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(COLUMNS="110", PATH=path)
        )
        assert ran.returncode == 0, ran.stderr
    printed = "".join(f"{line.rstrip()}\n" for line in ran.stdout.strip().splitlines())
    if UPDATE:
        text = RULES.read_text(encoding="utf-8")
        RULES.write_text(text[: found.start("text")] + printed + text[found.end("text") :], encoding="utf-8")
    else:
        assert printed == found["text"]


def test_the_declarative_block_is_the_file_of_the_example() -> None:
    """Which tests/test_examples.py starts."""
    (block,) = of_language("yaml")
    assert (ROOT / "examples/declarative/otel.yaml").read_text(encoding="utf-8") == block.code


# --- commands ----------------------------------------------------------------------------------------------------------------


def commands(start: str) -> list[list[str]]:
    """Every shell command in the documents that begins so, as words; also those inside of others."""
    shell = "".join(block.code for path in (*PAGES, CONTRIBUTING) for block in blocks(path) if block.language == "sh")
    found = re.findall(rf"(?:^|&& |\$\()({re.escape(start)}[^)#&|>\n]*)", shell, re.MULTILINE)
    return [shlex.split(part) for part in found]


def help_of(words: list[str]) -> str:
    """What `otel-amplitude WORDS --help` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return out.getvalue()


@pytest.mark.parametrize("words", commands("otel-amplitude "), ids=" ".join)
def test_a_documented_command_has_these_words(words: list[str]) -> None:
    """The command, its subcommand and its options are in `--help`."""
    chosen = words[1:2]
    page = help_of(chosen)
    words = words[: words.index("--")] if "--" in words else words  # behind it stands another program's command
    if len(words) > 2 and (found := re.search(r"\{([\w,-]+)\}", page)) and words[2] in found.group(1).split(","):
        chosen = words[1:3]
        page = help_of(chosen)
    for option in (word.partition("=")[0] for word in words if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", page), f"{' '.join(chosen)} has no {option}"


def test_every_command_is_documented() -> None:
    """By an example that can be copied."""
    assert {words[1] for words in commands("otel-amplitude ")} == set(COMMANDS)


def test_nox_sessions_in_the_documents_exist() -> None:
    """And every session is named in one of them."""
    sessions = set(re.findall(r"^def ([a-z]\w*)\(session: nox\.Session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for path in (*PAGES, CONTRIBUTING) for name in re.findall(r"nox -s (\w+)", path.read_text(encoding="utf-8"))}
    assert named == sessions


def test_variables_in_the_documents_exist() -> None:
    """A variable that nobody reads is a promise that nobody keeps."""
    known = {environment_variable(option) for option in options()}
    assert set(re.findall(r"OTEL_EXPORTER_AMPLITUDE_[A-Z_]+[A-Z]", TEXT)) <= known


def test_extras_in_the_documents_exist() -> None:
    """And all of them are named."""
    assert set(re.findall(r"otel-amplitude\[(\w+)\]", TEXT)) == set(PROJECT["project"]["optional-dependencies"])


def test_pins_in_the_documents_are_those_the_tests_run_with() -> None:
    """So that what a newcomer installs is what was tried."""
    pinned = {requirement for group in PROJECT["dependency-groups"].values() for requirement in group}
    used = {word for words in commands("pip install") for word in words if "==" in word}
    advised = set(re.findall(r"package `([\w.=-]+)`", TEXT))
    assert advised
    assert used | advised <= pinned


# --- what exists is documented ------------------------------------------------------------------------------------------------


def between(text: str, name: str) -> tuple[str, str, str]:
    """The text before, between and after two markers."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    inside, found_end, after = rest.partition(end)
    assert found, f"no marker {begin!r}"
    assert found_end, f"no marker {end!r}"
    return before + begin, inside, end + after


def hold(path: Path, name: str, expected: str) -> None:
    """The text between the markers of a document is as expected; with UPDATE_DOCS it is written."""
    before, inside, after = between(path.read_text(encoding="utf-8"), name)
    if UPDATE:
        path.write_text(before + expected + after, encoding="utf-8")
        return
    assert inside == expected, f"{path.name} is out of date: UPDATE_DOCS=1 pytest tests/test_docs.py"


def table(head: tuple[str, ...], lines: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    rules = ("---",) * len(head)
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (head, rules, *lines))


def test_the_table_of_options_is_made_of_their_declaration() -> None:
    """Every option, its default, its name in `@amplitude/node`, its help."""

    def code(text: str) -> str:
        return f"`{text}`" if text else ""

    lines = [(code(name), code(default), code(node), help_) for name, default, _, node, help_ in rows()]
    hold(DOCS / "reference/options.md", "options", table(("option", "default", "in `@amplitude/node`", "meaning"), lines))


def words_in_tables(page: str) -> set[str]:
    """Everything in code font on a page, but for blocks."""
    return set(re.findall(r"`([^`]+)`", _FENCE.sub("", (DOCS / page).read_text(encoding="utf-8"))))


def test_every_reason_of_the_books_is_documented() -> None:
    """A new one is a change of the interface."""
    assert {*REJECTED_REASONS, *DROPPED_REASONS, *REFUSED_REASONS} <= words_in_tables("reference/reasons.md")


def log_events() -> set[str]:
    """The names under which the package logs, read from its source."""
    named = re.compile(
        r"(?:debug|warning|error|announce|tell|_told|hint_once|say_books)\(\s*f?\"([a-z_]+\.[a-z_]+)[\":]"
        r"|noticed\(\"(spool\.\w+)\"|event: str = \"([a-z_]+\.[a-z_]+)\""
    )
    sources = [path.read_text(encoding="utf-8") for path in HOUSE.rglob("*.py") if "sandbox" not in path.parts]
    return {"".join(groups) for source in sources for groups in named.findall(source)}


def test_every_log_event_is_documented() -> None:
    """And none that does not exist."""
    documented = {word for word in words_in_tables("reference/log-events.md") if re.fullmatch(r"[a-z_]+\.[a-z_]+", word)}
    assert documented == log_events()


def test_every_middleware_and_framework_is_documented() -> None:
    """By the name that is imported."""
    public = [name for name in otel_amplitude.middleware.__all__ if name != "Chain"]
    glue = [f"otel_amplitude.frameworks.{path.stem}" for path in (HOUSE / "frameworks").glob("[a-z]*.py")]
    assert [name for name in (*public, *glue) if name not in TEXT] == []


def test_every_metric_is_documented() -> None:
    """And none that does not exist."""
    source = (HOUSE / "telemetry/_metrics.py").read_text(encoding="utf-8")
    assert {word for word in words_in_tables("operate/monitoring.md") if word.startswith("otel.")} == set(
        re.findall(r'"(otel\.sdk\.[\w.]+)"', source)
    )


# What of an entry point a user must find in the README, by group; `{}` is its name.
ENTRY_POINTS = {
    "opentelemetry_traces_exporter": "OTEL_TRACES_EXPORTER={}",
    "opentelemetry_logs_exporter": "OTEL_LOGS_EXPORTER={}",
    "opentelemetry_propagator": "OTEL_PROPAGATORS=tracecontext,baggage,{}",
    "opentelemetry_pre_instrument": "opentelemetry-instrument",
    "opentelemetry_instrumentor": "python: {}:",
    "opentelemetry_environment_variables": "--exporter_{}_",
    "opentelemetry_traces_sampler": "`{}`",
    "opentelemetry_sampler": "`{}`",
    "pytest11": "amplitude_events",
}


def test_every_entry_point_is_documented() -> None:
    """By the words a user writes."""
    points = PROJECT["project"]["entry-points"]
    assert set(points) == set(ENTRY_POINTS)
    assert [name for group, names in points.items() for name in names if ENTRY_POINTS[group].format(name) not in TEXT] == []


def anchors(path: Path) -> set[str]:
    """The headings of a file, as links name them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, *ROOT.glob("[A-Z]*.md")], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Files exist, also those that are named by their address in the repository, and headings."""
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", _FENCE.sub("", path.read_text(encoding="utf-8")))
    for target in (first or second for first, second in targets):
        local = re.sub(
            rf"^{REPOSITORY}/blob/main/|^https://raw.githubusercontent.com/otel-amplitude/otel-amplitude/main/", f"{ROOT}/", target
        )
        if local.startswith("https://"):
            continue
        file, _, anchor = local.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), target
        # Sphinx knows pages and pictures; everything else is named by its address in the repository.
        assert DOCS not in path.parents or local.startswith(str(ROOT)) or found.suffix in (".md", ".png", ".svg"), target
        assert not anchor or anchor in anchors(found), target


def test_pypi_shows_the_readme() -> None:
    """Every link and picture of it is absolute, or leads to one of its own headings."""
    text = _FENCE.sub("", README.read_text(encoding="utf-8"))
    assert re.findall(r"\]\((?!https://|#)[^)]*\)|(?:src|srcset)=\"(?!https://)[^\"]+\"", text) == []
    assert set(PROJECT["project"]["urls"]) >= {"Documentation", "Source", "Changelog", "Issues"}
    assert PROJECT["project"]["urls"]["Source"] == REPOSITORY


def test_every_page_is_in_the_navigation() -> None:
    """A page that no table of contents names is not found."""
    named = {
        (block.page.parent / f"{line.strip()}.md").resolve()
        for block in of_language("{toctree}")
        for line in block.code.splitlines()
        if line.strip() and not line.startswith(":")
    }
    assert {path.resolve() for path in DOCS.rglob("*.md")} - named == {(DOCS / "index.md").resolve()}


# --- the picture of the house -------------------------------------------------------------------------------------------------


def purpose(room: str) -> str:
    """The first sentence of the docstring of a room."""
    path = HOUSE / room / "__init__.py" if (HOUSE / room).is_dir() else HOUSE / f"{room}.py"
    found = re.match(r'r?"""(.+?)(?:\n\n|"""|\n)', path.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{path.name} has no docstring"
    return found.group(1).replace("|", "or")


def test_contributing_shows_the_floors_that_the_layers_test_holds() -> None:
    """Highest floor first; what each room owns is the first line of its docstring."""
    lines = [
        (str(floor) if room == min(rooms) else "", f"`{room}`", purpose(room))
        for floor, rooms in reversed(list(enumerate(FLOORS)))
        for room in sorted(rooms)
    ]
    hold(CONTRIBUTING, "house", table(("floor", "room", "what it owns"), lines))


def test_public_names_have_a_docstring_that_says_more_than_the_name() -> None:
    """What users read in their editor."""
    for name in otel_amplitude.__all__:
        value = getattr(otel_amplitude, name)
        # Python 3.10 takes an alias such as Callable[…] for a class.
        if inspect.isfunction(value) or (inspect.isclass(value) and not isinstance(value, types.GenericAlias)):
            assert len((inspect.getdoc(value) or "").split()) >= 5, name
