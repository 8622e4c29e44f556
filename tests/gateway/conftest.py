"""A gateway with a spool, and a server around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway.sending import Gateway, Sender, gateway, serving

from otel_amplitude.gateway.server import Server


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose answers mean that events are on disk."""
    with gateway(tmp_path / "spool") as found:
        yield found


@pytest.fixture
def server(made: Gateway) -> Iterator[Server]:
    """A server around it."""
    with serving(made) as found:
        yield found


@pytest.fixture
def sender(server: Server) -> Sender:
    """A connection to it."""
    return Sender(server)
