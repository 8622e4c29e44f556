"""Amplitude's documented numbers, each with the page it comes from.

Pages are those of https://amplitude.com/docs, read in 2026: *HTTP V2* is `apis/analytics/http-v2`,
*Batch* is `apis/analytics/batch-event-upload`, *Limits* is `faq/limits`.
"""

from __future__ import annotations

from typing import Final

# HTTP V2 and Batch: "2000 events per request", counted after decompression.
MAX_REQUEST_EVENTS: Final = 2_000
# HTTP V2: 1 MB. The unit is not defined further, so the smaller reading counts, before compression.
MAX_REQUEST_BYTES: Final = 1_000_000
# Batch: 20 MB of JSON.
MAX_BATCH_REQUEST_BYTES: Final = 20_000_000
# Our own bound for one event: far above any honest event, far below a request.
MAX_EVENT_BYTES: Final = 64 * 1024
# Limits: any string value is cut after 1,024 characters.
MAX_STRING: Final = 1_024
# HTTP V2: nested objects up to 40 levels.
MAX_DEPTH: Final = 40
# Amplitude's SDKs drop a whole dictionary beyond this; we cut the rest of the keys.
MAX_KEYS: Final = 1_024
MAX_LIST: Final = 1_000
# JSON numbers beyond 2^53 lose precision in JavaScript readers: sent as text.
MAX_INTEGER: Final = 2**53
# HTTP V2: "minimum length 5 characters" for user_id and device_id, unless options.min_id_length says otherwise.
MIN_ID_LENGTH: Final = 5
# HTTP V2, "Device IDs and User IDs": these values are refused as an id. From `[]` on they are ours: what languages print for nothing or for
# any object, and the one name that Django and Spring Security give all visitors who are not logged in.
INVALID_IDS: Final = frozenset(
    {
        "",
        "0",
        "-1",
        "00000000-0000-0000-0000-000000000000",
        "anonymous",
        "lmy47d",
        "n/a",
        "na",
        "nil",
        "none",
        "null",
        "undefined",
        "unknown",
        "{}",
        "[]",
        "nan",
        "true",
        "false",
        "(null)",
        "<null>",
        "[object object]",
        "anonymoususer",
    }
)
# Groups page: at most 5 group types and 10 names for each event.
MAX_GROUP_TYPES: Final = 5
MAX_GROUP_NAMES: Final = 10
# HTTP V2, 429: "pause sending events for that user or device for a period of 30 seconds"; Batch says 15.
THROTTLE_PAUSE: Final = 30.0
BATCH_THROTTLE_PAUSE: Final = 15.0
# SDK debugging guide: after a 429 of the whole project wait 60 seconds.
PROJECT_PAUSE: Final = 60.0
# HTTP V2: an insert_id is remembered for 7 days, so nothing older than 6.5 days may be sent again.
MAX_EVENT_AGE: Final = 6.5 * 24 * 3600
# Our bound for reading an answer: the longest documented one is far below.
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_ANSWER_DEPTH: Final = 20
# Official SDKs compress from this size on, for Amplitude's own hosts.
MIN_GZIP_BYTES: Final = 2_048

# HTTP V2 page, "Regions": EU projects have their own host and key.
ENDPOINTS: Final = {
    ("US", False): "https://api2.amplitude.com/2/httpapi",
    ("US", True): "https://api2.amplitude.com/batch",
    ("EU", False): "https://api.eu.amplitude.com/2/httpapi",
    ("EU", True): "https://api.eu.amplitude.com/batch",
}
