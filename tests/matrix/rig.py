"""The matrix of requests: applications, servers, places, what each place can know, and the function that judges a cell.

A *cell* is (place where `set_user` is called, place where an event is made). One visit fills a row of cells: it calls `set_user` at one
place and makes events at all. The application keeps a journal of what it did (`apps/places.py`). The judge compares the journal with
what arrived in the sandbox and with `stats()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import re
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zero_code.running import BROWSER, KEY, POLL_SECONDS, START_SECONDS, Program, environment, free_port, sandboxed, tool

from otel_amplitude.identity import make_cookie

APPS = Path(__file__).parent / "apps"
KINDS = ("span", "log", "call")
CONCURRENT = 200
NOWHERE = "nowhere"


class Closed(NamedTuple):
    """A place outside of the request's scope.

    Attributes:
        reason: why, as the documentation says it.
        reads: events made here belong to the request's visitor all the same.
        own: `set_user` here may hold for what is made here and in other such places, and holds for nothing else. It depends on the server:
            an asyncio task that serves one request keeps it, a task that serves a kept connection does not.
    """

    reason: str
    reads: bool = False
    own: bool = False


BARE = Closed("a thread without a copy of the context belongs to no request")
Places = Mapping[str, Closed | None]


class Application(NamedTuple):
    """One program of `apps/`.

    Attributes:
        title: its name in the documentation.
        module: its file.
        variant: the value of its variable APPLICATION.
        servers: on which it runs.
        places: in the order of the documentation, each None or why it is closed; without our glue.
        glued: the same with our glue where that differs.
        glue: whether it is run without and with our glue.
        excludes: whether its instrumentation can leave out URLs.
    """

    title: str
    module: str
    variant: str
    servers: tuple[str, ...]
    places: Places
    glued: Places
    glue: tuple[bool, ...] = (False, True)
    excludes: bool = True


def _open(*names: str) -> dict[str, Closed | None]:
    return dict.fromkeys(names)


# Kept connections stay open however slow the machine is.
_GUNICORN = (tool("gunicorn"), "--no-control-socket", "--bind", "127.0.0.1:{port}", "--workers", "1", "--keep-alive", "60")
_UWSGI = (tool("uwsgi"), "--http", "127.0.0.1:{port}", "--master", "--processes", "1", "--lazy-apps", "--enable-threads", "--die-on-term")
_ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat")
_WORKER = (*(tool("celery"), "-A", "{module}:tasks", "worker", "-c", "1", "-l", "warning"), *_ALONE)
# The command of the server, and of what runs beside it.
SERVERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "gunicorn sync": ((*_GUNICORN, "{module}:app"),),
    "gunicorn gthread": ((*_GUNICORN, "-k", "gthread", "--threads", "8", "{module}:app"),),
    "gunicorn gevent": ((*_GUNICORN, "-k", "gevent", "{module}:app"),),
    "uWSGI": ((*_UWSGI, "--wsgi", "{module}:app"),),
    "uWSGI threads": ((*_UWSGI, "--threads", "8", "--wsgi", "{module}:app"),),
    "uvicorn": ((tool("uvicorn"), "--port", "{port}", "--timeout-keep-alive", "60", "--log-level", "warning", "{module}:app"),),
    "hypercorn": ((tool("hypercorn"), "--bind", "127.0.0.1:{port}", "--keep-alive", "60", "{module}:app"),),
    "daphne": ((tool("daphne"), "--port", "{port}", "--verbosity", "0", "{module}:app"),),
    "its own": ((tool("python"), "-m", "{module}", "{port}"),),
    "gunicorn sync, Celery prefork": ((*_GUNICORN, "{module}:app"), (*_WORKER, "-P", "prefork")),
    "gunicorn gthread, Celery solo": ((*_GUNICORN, "-k", "gthread", "--threads", "8", "{module}:app"), (*_WORKER, "-P", "solo")),
}
WSGI = ("gunicorn sync", "gunicorn gthread", "gunicorn gevent", "uWSGI", "uWSGI threads")
ASGI = ("uvicorn", "hypercorn")
THREADS = {"thread, copied context": None, "thread": BARE}

_INITIALIZE = Closed("`initialize()` runs before the instrumentation", own=True)
_OUTSIDE = Closed("middleware outside of the instrumentation has no request to fill", own=True)
_STREAM = Closed(
    "it runs after the request's span, on the server's own thread or task, and no hook of the framework is around it", own=True
)
_NO_HEADER = Closed("without our glue, who caused a task does not travel with it", own=True)
_QUEUED = Closed("what a task learns comes too late for the request that caused it", reads=True, own=True)
_STARLETTE = _open("hook", "view") | THREADS | _open("after hook", "body", "background task", "created task")
_FASTAPI = (
    _open("hook", "async dependency", "dependency", "view")
    | THREADS
    | _open("after hook", "body", "dependency exit", "background task", "created task")
)

APPLICATIONS = (
    Application(
        "Flask",
        "flask_visits",
        "",
        WSGI,
        _open("early hook", "hook", "view")
        | THREADS
        | _open("thread, request context", "after hook", "teardown", "body", "close", "call_on_close"),
        {},
    ),
    Application(
        "Django, WSGI",
        "django_visits",
        "wsgi",
        WSGI,
        _open("request_started", "early hook", "hook", "view") | THREADS | _open("after hook", "body", "close", "request_finished"),
        {},
    ),
    Application(
        "Django, ASGI",
        "django_visits",
        "asgi",
        (*ASGI, "daphne"),
        {"early ASGI hook": _OUTSIDE, "early hook": _OUTSIDE}
        | _open("hook", "view")
        | THREADS
        | {"after hook": None, "body": _STREAM, "close": _STREAM, "request_finished": _STREAM, "created task": None},
        _open("early hook", "body"),
    ),
    Application(
        "Falcon",
        "falcon_visits",
        "",
        WSGI[:-1],
        {"early WSGI hook": _OUTSIDE} | _open("hook", "view") | THREADS | _open("after hook") | dict.fromkeys(("body", "close"), _STREAM),
        _open("early WSGI hook", "body", "close"),
    ),
    *(
        Application(
            f"{name}, {how}",
            "starlette_visits",
            f"{name} {how}".lower(),
            ASGI,
            {"early ASGI hook": _OUTSIDE} | rest,
            _open("early ASGI hook"),
            excludes=how == "contrib",
        )
        for name, rest in (("Starlette", _STARLETTE), ("FastAPI", _FASTAPI))
        for how in ("contrib", "native")
    ),
    Application(
        "aiohttp",
        "aiohttp_visits",
        "",
        ("its own",),
        _open("hook", "view") | THREADS | {"after hook": None, "response prepared": _STREAM, "body": _STREAM, "created task": None},
        {},
        (False,),
    ),
    Application(
        "Tornado",
        "tornado_visits",
        "",
        ("its own",),
        {"early hook": _INITIALIZE}
        | _open("hook", "view")
        | THREADS
        | {"body": None, "teardown": None, "after finish": _STREAM, "created task": None},
        {},
        (False,),
    ),
    *(
        Application(
            name,
            "celery_visits",
            order,
            ("gunicorn sync, Celery prefork", "gunicorn gthread, Celery solo"),
            _open("view", "eager task") | {"queued task": _NO_HEADER},
            {"queued task": _QUEUED},
            glue,
        )
        for name, order, glue in (
            ("Celery", "instrumentation first", (False, True)),
            ("Celery, glue connected first", "glue first", (True,)),
        )
    ),
)


class Visit(NamedTuple):
    """A request to be made.

    Attributes:
        number: names it, and its visitor.
        says: the place where it calls `set_user`.
        known: whether the visitor has Amplitude's cookie.
        remote: whether it carries a trace parent.
        traced: False asks for a URL that is excluded from tracing.
    """

    number: str
    says: str
    known: bool
    remote: bool
    traced: bool = True

    @property
    def path(self) -> str:
        return f"/{'traced' if self.traced else 'excluded'}?visit={self.number}&says={self.says.replace(' ', '+')}&traced={self.traced:d}"

    @property
    def device(self) -> str | None:
        """The device of a visitor whom a cookie knows."""
        return f"device-of-{self.number}" if self.known else None

    @property
    def headers(self) -> dict[str, str]:
        headers = {"User-Agent": BROWSER}
        if self.device:
            headers["Cookie"] = make_cookie(KEY, self.device)
        if self.remote:
            headers["traceparent"] = f"00-{int(self.number) + 1:032x}-{1:016x}-01"
        return headers


class Made(NamedTuple):
    """An event that was made, or tried: where, and whether its visit had called `set_user` before."""

    visit: str
    place: str
    said: bool


class Who(NamedTuple):
    """Whom an event belongs to; neither user nor device stands for an event that was refused."""

    user: str | None = None
    device: str | None = None

    def __str__(self) -> str:
        return " and ".join(filter(None, self)) or "refused"


def allowed(visit: Visit, made: Made, places: Places) -> tuple[Who, ...]:
    """Judge a cell: whom an event may belong to, given where its visit called `set_user`.

    It is one answer, but for an `own` word, and for a request that is not traced: there it depends on the framework how much is known.
    """
    user, says, here = f"visitor-{visit.number}", places.get(visit.says), places.get(made.place)
    if not visit.traced:
        return tuple(Who(*who) for who in itertools.product((None, user) if made.said else (None,), (None, visit.device)))
    if here is not None and not here.reads:
        return (Who(), Who(user)) if made.said and here.own and says is not None and says.own else (Who(),)
    heard = made.said and (says is None or visit.says == made.place)
    return (Who(user if heard else None, visit.device),)


@dataclass
class Run:
    """One server with one application: its visits, and what became of them."""

    application: Application
    server: str
    glue: bool
    visits: dict[str, Visit] = field(default_factory=dict)
    journal: list[Made] = field(default_factory=list)
    events: dict[tuple[str, str, str], list[Who]] = field(default_factory=lambda: defaultdict(list))
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    outside: int = 0

    @property
    def places(self) -> dict[str, Closed | None]:
        return {**self.application.places, **(self.application.glued if self.glue else {})}

    @property
    def wanted(self) -> tuple[int, int]:
        """Give how many places its visits reach, and how many events they make: one of each kind at each place, one for a traced request."""
        requests, places = sum(visit.traced for visit in self.visits.values()), len(self.visits) * len(self.places)
        return requests + places, requests + places * len(KINDS)

    def cells(self) -> Iterator[tuple[Visit, Made, str, list[Who]]]:
        """Give each event that was made, by visit, place and kind, and whom those that arrived belong to: one or none."""
        for made in self.journal:
            for kind in ("request",) if made.place == "request" else KINDS:
                yield self.visits[made.visit], made, kind, self.events.get((made.visit, made.place, kind), [])

    def _outside(self) -> tuple[int, int]:
        """Give how often `set_user` must be refused or overtaken at least, and at most."""
        words = Counter(
            "perhaps" if not visit.traced or closed.own else "surely"
            for visit in self.visits.values()
            if (closed := self.places.get(visit.says)) is not None or not visit.traced
        )
        return words["surely"], words.total()

    def faults(self) -> list[str]:
        """Give what is wrong, a line for each kind of fault: a wrong person, a lost one, an event that is in no count."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        arrived = absent = 0
        for visit, made, kind, got in self.cells():
            want = allowed(visit, made, self.places)
            arrived, absent = arrived + len(got), absent + (not got)
            if len(got) > 1 or (got or [Who()])[0] not in want:
                fault = f"{_fault(visit, got)}: said at {visit.says}, made at {made.place}"
                cookie, parent = ("cookie" if visit.known else "no cookie"), (", remote parent" if visit.remote else "")
                found[fault][
                    f"{kind} ({'traced' if visit.traced else 'excluded'}, {cookie}{parent}): {' and '.join(map(str, got)) or 'refused'}, wanted {want[0]}"
                ] += 1
        if (arrived, absent) != (self.accepted, self.refused.total()) or len(self.journal) != self.wanted[0]:
            found[f"{arrived} arrived, {absent} did not; accepted {self.accepted}, refused {dict(self.refused)}"]["all"] += 1
        least, most = self._outside()
        if not least <= self.outside <= most:
            found[f"set_user was refused {self.outside} times, wanted {least} to {most}"]["all"] += 1
        return [f"{cells.total()} x {fault}; most often {cells.most_common(1)[0][0]}" for fault, cells in sorted(found.items())]


def _fault(visit: Visit, got: list[Who]) -> str:
    own = {None, f"visitor-{visit.number}", f"device-of-{visit.number}"}
    wrong = any({*who} - own for who in got)
    return "WRONG PERSON" if wrong else "twice" if len(got) > 1 else "lost" if not got else "not as wanted"


def visits(run: Run, rng: random.Random, repeat: int) -> Iterator[Visit]:
    """Give visits of every kind to an application, in an order that makes all kinds neighbours."""
    kinds = list(itertools.product([NOWHERE, *run.places], (False, True), (False, True)))
    for _ in range(repeat):
        rng.shuffle(kinds)
        for says, known, remote in kinds:
            yield Visit(str(len(run.visits)), says, known, remote)
            if remote and run.application.excludes:  # a third of all
                yield Visit(str(len(run.visits)), says, known, remote=False, traced=False)


class Host(Program):
    """One of the programs of a run."""

    def __init__(self, run: Run, command: tuple[str, ...], sandbox_url: str, folder: Path, broken: str) -> None:
        self.books_port = free_port()
        self._serves = any("{port}" in part for part in command)
        variables = {
            "PYTHONPATH": str(APPS),
            "GLUE": "glue" if run.glue else "none",
            "APPLICATION": run.application.variant,
            "BROKEN": broken,
            "JOURNAL": str(folder / "journal.jsonl"),
            "BROKER": str(folder),
            "BOOKS": str(self.books_port),
            "OTEL_PYTHON_EXCLUDED_URLS": "/excluded",
        }
        super().__init__([part.replace("{module}", run.application.module) for part in command], environment(sandbox_url, **variables))

    def until_ready(self) -> None:
        """Wait until it answers: for its counters, which it serves last, and on its port."""
        end = time.monotonic() + START_SECONDS
        for port in (self.books_port, self.port) if self._serves else (self.books_port,):
            while True:
                with (
                    contextlib.suppress(OSError),
                    contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection,
                ):
                    connection.connect()
                    break
                assert self.process.poll() is None, f"the server ended:\n{self.output}"
                assert time.monotonic() < end, f"the server did not start:\n{self.output}"
                time.sleep(POLL_SECONDS)

    def books(self) -> dict[str, Any]:
        """Give the counters of its client."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.books_port}", timeout=START_SECONDS) as answer:
            return json.load(answer)


def alternate(port: int, run: Run, planned: Iterator[Visit]) -> None:
    """Let two visitors take turns, each on a connection that is kept where the server keeps it."""
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS) for _ in range(2)]
    for visit, connection in zip(planned, itertools.cycle(connections)):
        run.visits[visit.number] = visit
        connection.request("GET", visit.path, headers=visit.headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
    for connection in connections:
        connection.close()


def crowd(port: int, run: Run, planned: Iterator[Visit], size: int) -> None:
    """Let many visitors in at once, each on a connection of its own."""

    async def one(visit: Visit) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = "".join(
            f"{name}: {value}\r\n" for name, value in {"Host": f"127.0.0.1:{port}", "Connection": "close", **visit.headers}.items()
        )
        writer.write(f"GET {visit.path} HTTP/1.1\r\n{lines}\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, run_visits))

    run_visits = []
    for visit in itertools.islice(planned, size):
        run.visits[visit.number] = visit
        run_visits.append(visit)
    asyncio.run(all_of_them())


def perform(application: Application, server: str, glue: bool, folder: Path, *, size: int, repeat: int = 1, broken: str = "") -> Run:
    """Run one server of the matrix; give what became of its visits.

    Args:
        application: what to run.
        server: on which of its servers.
        glue: with our glue.
        folder: an empty one.
        size: how many visitors come at once, after those that come one after the other.
        repeat: how often each row of the matrix is visited.
        broken: a function of `apps/broken.py` that breaks the package first.
    """
    run = Run(application, server, glue)
    rng = random.Random(f"{application.title} {server} {glue}")
    (folder / "journal.jsonl").touch()
    for queue in ("in", "out", "control"):
        (folder / queue).mkdir()
    with sandboxed() as sandbox, contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Host(run, command, sandbox.url, folder, broken)) for command in SERVERS[server]]
        for host in hosts:
            host.until_ready()
        alternate(hosts[0].port, run, visits(run, rng, repeat))
        crowd(hosts[0].port, run, itertools.chain.from_iterable(visits(run, rng, 1) for _ in itertools.count()), size)
        _until_settled(run, hosts, sandbox, folder / "journal.jsonl")
        for event in sandbox.events():
            run.events[_origin(event)].append(Who(event.get("user_id"), event.get("device_id")))
    return run


def _until_settled(run: Run, hosts: list[Host], sandbox: Any, journal: Path) -> None:
    """Wait until every visit was at all its places and every event is accepted or refused, and has arrived."""
    (places, made), end = run.wanted, time.monotonic() + START_SECONDS
    while True:
        lines = journal.read_bytes().splitlines()
        books = [host.books() for host in hosts]
        run.accepted, run.refused = sum(each["accepted"] for each in books), sum((Counter(each["refused"]) for each in books), Counter())
        run.outside = sum(each["outside"] for each in books)
        settled = run.accepted + run.refused.total()
        if len(lines) >= places and settled >= made and len(sandbox.events()) >= run.accepted:
            run.journal = [Made(**json.loads(line)) for line in lines]
            return
        said = "".join(host.output[-4000:] for host in hosts)
        assert all(host.process.poll() is None for host in hosts), said
        assert time.monotonic() < end, (
            f"{len(lines)} of {places} places were reached, {settled} of {made} events are counted, "
            f"{len(sandbox.events())} of {run.accepted} arrived:\n{said}"
        )
        time.sleep(POLL_SECONDS)


def _origin(event: dict[str, Any]) -> tuple[str, str, str]:
    """Give visit, place and kind of an event."""
    properties = event["event_properties"]
    if "place" in properties:
        return properties["visit"], properties["place"], event["event_type"]
    found = next(filter(None, (re.search(r"visit=(\d+)", str(value)) for value in properties.values())))
    return found[1], "request", "request"


# --- the documentation ---------------------------------------------------------------------------------------------------------------


def table(run: Run) -> str:
    """Give the cells of a run as the documentation shows them: those of visitors with a cookie, so that each cell shows who is known."""
    numbers = {name: number for number, name in enumerate([*run.places, "request"], 1)}
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for visit, made, _, got in run.cells():
        if visit.known and visit.traced:
            mark = "◐" if len(allowed(visit, made, run.places)) > 1 else "-" if not got else "●" if got[0].user else "○"
            found[visit.says, made.place].add(mark)
    rows = [
        (f"{numbers[says]}. {says}" if says in numbers else says, [found[says, place] for place in numbers])
        for says in (*run.places, NOWHERE)
    ]
    return "\n".join(
        [
            f"Last column: the event of the request itself. Servers: {', '.join(run.application.servers)}.",
            "",
            f"| `set_user` in | {' | '.join(map(str, list(numbers.values())[:-1]))} | request |",
            f"| --- |{' :-: |' * len(numbers)}",
            *(f"| {name} | {' | '.join(''.join(sorted(cell)) for cell in cells)} |" for name, cells in rows),
            "",
            *(f"* {numbers[place]}, {place}: {closed.reason}." for place, closed in run.places.items() if closed is not None),
            "",
        ]
    )
