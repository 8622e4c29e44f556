"""A `select` that stumbles over one span."""

from __future__ import annotations

from typing import Any


def select(span: Any) -> bool:
    """Raise for the user customer-1."""
    if span.attributes["user.id"] == "customer-1":
        raise ZeroDivisionError
    return True
