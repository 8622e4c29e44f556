"""Answers of OTLP/HTTP, in the content type of the request (OTLP specification 1.x, "OTLP/HTTP response").

Success is an `Export…ServiceResponse`, which is empty, or says with `partial_success` what was rejected. Errors are a
`google.rpc.Status`, of which only the message is filled. Both are short enough to be written by hand, so that JSON needs no extra.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import orjson

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
Signal = Literal["traces", "logs", "metrics"]
_REJECTED: Final = {"traces": "rejectedSpans", "logs": "rejectedLogRecords", "metrics": "rejectedDataPoints"}
_MAX_MESSAGE: Final = 500
_LENGTH: Final = 2


class Answer(NamedTuple):
    """What is sent back.

    Attributes:
        status: HTTP's.
        body: its bytes.
        content_type: its type.
        retry_after: seconds, for a 503; 0: none.
        reason: why the request was refused, for the counters; `""` for success.
    """

    status: int
    body: bytes
    content_type: str
    retry_after: int = 0
    reason: str = ""


def accepted(signal: Signal, content_type: str, rejected: int = 0, problem: str = "") -> Answer:
    """Give the answer to a request that was taken.

    Args:
        signal: which kind of request.
        content_type: of the request.
        rejected: how many of its items were not.
        problem: why not.
    """
    message = problem[:_MAX_MESSAGE]
    if content_type == JSON:
        partial = {"partialSuccess": {_REJECTED[signal]: str(rejected), "errorMessage": message}}
        return Answer(200, orjson.dumps(partial if rejected else {}), JSON)
    if not rejected:
        return Answer(200, b"", PROTOBUF)
    return Answer(200, _field(1, b"\x08" + _varint(rejected) + _text(2, message)), PROTOBUF)


def refused(status: int, content_type: str, reason: str, message: str, retry_after: int = 0) -> Answer:
    """Give the answer to a request that was not taken; in JSON where its content type is not known."""
    message = message[:_MAX_MESSAGE]
    if content_type == PROTOBUF:
        return Answer(status, _text(2, message), PROTOBUF, retry_after, reason)
    return Answer(status, orjson.dumps({"message": message}), JSON, retry_after, reason)


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode("utf-8", "replace"))


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | _LENGTH,)) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)
