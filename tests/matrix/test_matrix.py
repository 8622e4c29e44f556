"""Every event belongs to the right visitor: each framework on each server, wherever `set_user` is called and the event is made."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

import pytest
from matrix.rig import APPLICATIONS, CONCURRENT, Application, perform, table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "requests.md"
UPDATE = bool(os.environ.get("UPDATE_DOCS"))
FEW = 24


RUNS = [
    pytest.param(application, server, glue, id=f"{application.title}, {server}, {'glue' if glue else 'no glue'}")
    for application in APPLICATIONS
    for server in application.servers
    for glue in application.glue
]


def size(application: Application, server: str) -> int:
    """Give how many visitors come at once: 200 once for each server, which the first application meets, else few."""
    first = next(each for each in APPLICATIONS if server in each.servers)
    return CONCURRENT if application is first else FEW


@pytest.mark.heavy
@pytest.mark.timeout(150)
@pytest.mark.parametrize(("application", "server", "glue"), RUNS)
def test_every_event_belongs_to_its_own_visitor(application: Application, server: str, glue: bool, tmp_path: Path) -> None:
    """Each event has its visitor's user and device, or is refused and counted where nothing can be known; the documentation says which."""
    run = perform(application, server, glue, tmp_path, size=size(application, server))
    assert run.faults() == []
    _check_page(f"{application.title}, {'with our glue' if glue else 'without our glue'}", table(run))


@pytest.mark.soak
@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("application", "server", "glue"), RUNS)
def test_many_visitors_at_once(application: Application, server: str, glue: bool, tmp_path: Path) -> None:
    """The same with 200 visitors at once for each combination, and every row of the matrix ten times."""
    assert perform(application, server, glue, tmp_path, size=CONCURRENT, repeat=10).faults() == []


@pytest.mark.heavy
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("broken", "title", "server", "fault"),
    [
        ("by_thread", "Flask", "gunicorn sync", "WRONG PERSON"),
        ("left_attached", "Flask", "gunicorn gthread", "WRONG PERSON"),
        ("kept_words", "FastAPI, contrib", "uvicorn", "WRONG PERSON"),
        ("forgotten", "Flask", "gunicorn sync", "lost"),
    ],
)
def test_the_matrix_sees_a_broken_scope(broken: str, title: str, server: str, fault: str, tmp_path: Path) -> None:
    """With the package broken on purpose, the same run names wrong persons, or events that were lost."""
    (application,) = (each for each in APPLICATIONS if each.title == title)
    run = perform(application, server, False, tmp_path, size=FEW, broken=broken)
    assert any(fault in line for line in run.faults())


def test_the_page_has_a_table_for_every_application() -> None:
    """No table is left of an application that is not run any more."""
    wanted = [f"{each.title}, {'with our glue' if glue else 'without our glue'}" for each in APPLICATIONS for glue in each.glue]
    assert re.findall(r"^<!-- matrix: (?!end )(.*) -->$", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == wanted


def _check_page(title: str, wanted: str) -> None:
    """Compare a table of the page with the run's; under `UPDATE_DOCS` write it."""
    with PAGE.open("r+", encoding="utf-8") as page:
        fcntl.flock(page, fcntl.LOCK_EX)  # other workers write their own tables
        text = page.read()
        found = re.search(rf"(?<=^<!-- matrix: {re.escape(title)} -->\n).*?(?=^<!-- matrix: end -->$)", text, re.MULTILINE | re.DOTALL)
        assert found is not None, f"{PAGE} has no place for {title}"
        if UPDATE:
            page.seek(0)
            page.write(text[: found.start()] + wanted + text[found.end() :])
            page.truncate()
        else:
            assert found[0] == wanted, "UPDATE_DOCS=1 pytest tests/matrix writes it"
