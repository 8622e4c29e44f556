"""Attaches groups that come with an event's `extra`."""

from __future__ import annotations

from collections.abc import Mapping

from otel_amplitude.middleware._chain import Next, Payload


class GroupsFromExtra:
    """Attach `extra["groups"]` (type to name or names) to the event; a group type the event has already stays.

    >>> attach_groups = GroupsFromExtra()
    """

    def __call__(self, payload: Payload, next: Next) -> None:
        """Attach the groups, pass the event on."""
        groups = payload.extra.get("groups")
        if isinstance(groups, Mapping):
            payload.event["groups"] = {**groups, **(payload.event.get("groups") or {})}
        next(payload)
