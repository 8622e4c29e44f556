"""Lets a stable share of the users through."""

from __future__ import annotations

from hashlib import blake2b

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.middleware._chain import Next, Payload


class SampleByUser:
    """Keep all events of a share of the users and none of the others; the same users in every process and release.

    The user id decides, else the device id. An event without an id passes, so that it is counted as `no_identity`.

    Args:
        rate: the share, 0 to 1. A user kept at one rate is kept at every higher one.

    Raises:
        ConfigurationError: the rate is not from 0 to 1.

    >>> tenth = SampleByUser(0.1)
    """

    def __init__(self, rate: float) -> None:
        if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ConfigurationError(f"rate must be 0 to 1, not {rate!r}: 0.1 keeps a tenth of the users")
        self._bound = int(rate * 2**64)

    def __call__(self, payload: Payload, next: Next) -> None:
        """Pass the event on if its user is in the share."""
        user = payload.event.get("user_id") or payload.event.get("device_id")
        if user is None or _place(str(user)) < self._bound:
            next(payload)


def _place(user: str) -> int:
    return int.from_bytes(blake2b(user.strip().encode("utf-8", "replace"), digest_size=8).digest(), "big")
