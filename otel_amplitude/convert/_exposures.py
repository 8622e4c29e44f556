"""Feature flag evaluations as Amplitude's `$exposure` events: once for each user, flag, variant and day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_amplitude import insert_ids
from otel_amplitude.convert._assembly import plain_event
from otel_amplitude.convert._casts import to_text
from otel_amplitude.convert._recent import Recent

if TYPE_CHECKING:
    from otel_amplitude.identity import Identity

# Amplitude Experiment, "Exposure tracking": event type `$exposure`, properties `flag_key` and `variant`.
EXPOSURE: Final = "$exposure"
# A log record, or the older span event, of the feature flag conventions.
FLAG_EVENTS: Final = frozenset({"feature_flag.evaluation", "feature_flag"})
_FLAG: Final = "feature_flag.key"
_VARIANT: Final = ("feature_flag.result.variant", "feature_flag.variant")
_DAY_MS: Final = 86_400_000


class Exposures:
    """Makes exposures; remembers who saw which variant on which day, at most `most` of them. Any thread may ask.

    What is forgotten, or was seen by another process, is sent again under the same `insert_id`, so Amplitude keeps one. Whoever hands
    an exposure on has it forgotten when it is not accepted, or nobody would hear of it on that day.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._seen: Recent[str, bool] = Recent(most)

    def event(self, attributes: Mapping[str, Any], identity: Identity, time_ms: int, properties: dict[str, Any]) -> dict[str, Any] | None:
        """Make the `$exposure` of an evaluation; None when it names no variant, or was told already on that day (in UTC).

        Args:
            attributes: of the log record or span event.
            identity: who saw it.
            time_ms: when.
            properties: further ones, clean.
        """
        flag = to_text(attributes.get(_FLAG))
        variant = to_text(attributes.get(_VARIANT[0], attributes.get(_VARIANT[1])))
        who = identity.user_id or identity.device_id
        if not (flag and variant and who):
            return None
        insert_id = insert_ids.of_exposure(who, flag, variant, time_ms // _DAY_MS)
        if self._seen.swap(insert_id, True):
            return None
        return plain_event(EXPOSURE, time_ms, insert_id, {**properties, "flag_key": flag, "variant": variant}, identity)

    def forget(self, event: Mapping[str, Any]) -> None:
        """Forget that `event` was told, if it is an exposure."""
        if event.get("event_type") == EXPOSURE:
            self._seen.forget(event.get("insert_id", ""))
