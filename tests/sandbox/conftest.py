"""A running sandbox, and a client that keeps one connection."""

from __future__ import annotations

import http.client
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from otel_amplitude.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


def an_event(**fields: Any) -> dict[str, Any]:
    """An event that nobody would object to, each with its own insert_id."""
    return {
        "event_type": "Order Placed",
        "user_id": "customer-42",
        "device_id": "device-0001",
        "time": 1_795_305_661_234,
        "insert_id": f"insert-{next(_numbers)}",
        **fields,
    }


class Client:
    """What a program on this machine would use; every answer is (status, parsed body, headers)."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.host, _, port = sandbox.url.removeprefix("http://").rpartition(":")
        self.connection = http.client.HTTPConnection(self.host, int(port), timeout=10)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Send anything; header names are written with underscores."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if raw is not None:
            names.setdefault("Content-Type", "application/json")
        self.connection.request(method, path, raw, names)
        response = self.connection.getresponse()
        text = response.read()
        is_json = response.getheader("Content-Type") == "application/json"
        return response.status, json.loads(text) if is_json and text else text, dict(response.getheaders())

    def get(self, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        return self.request("GET", path, **headers)

    def upload(self, *events: Any, path: str = "/2/httpapi", **more: Any) -> tuple[int, Any]:
        """Upload events under some key; gives status and body."""
        status, body, _ = self.request("POST", path, {"api_key": "some-key", "events": list(events), **more})
        return status, body

    def tell(self, path: str, body: Any) -> tuple[int, Any]:
        """Change the sandbox's state, with the token."""
        status, answer, _ = self.request("POST", path, body, X_Sandbox_Token=self.sandbox.token)
        return status, answer


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Client]:
    """A client of the sandbox."""
    one = Client(sandbox)
    yield one
    one.connection.close()


@pytest.fixture
def make_event() -> Any:
    """The maker of unobjectionable events."""
    return an_event


@pytest.fixture
def make_client() -> Iterator[Any]:
    """A maker of clients, each closed afterwards."""
    made: list[Client] = []

    def make(sandbox: Sandbox) -> Client:
        made.append(Client(sandbox))
        return made[-1]

    yield make
    for one in made:
        one.connection.close()
