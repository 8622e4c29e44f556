"""The transport that is a fake."""

from __future__ import annotations

import threading

import pytest

from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.errors import TransportError
from otel_amplitude.testing import FakeTransport, answer
from otel_amplitude.transport import Request, Response
from otel_amplitude.wire._upload import build_upload


def request(*numbers: int, compression: str = "none") -> Request:
    """A request with these events."""
    parcels = [Parcel(b'{"n":%d}' % number, ("user-a",), 0) for number in numbers]
    return build_upload(parcels, api_key="key", url="https://api2.amplitude.com/2/httpapi", min_id_length=1, compression=compression)


def test_accepts_everything_by_default() -> None:
    """The answer is Amplitude's."""
    response = FakeTransport().send(request(1, 2))
    assert (response.status, response.json()) == (200, {"code": 200, "events_ingested": 2})


def test_gives_its_answers_in_turn_and_then_accepts() -> None:
    """Responses are given, exceptions raised."""
    transport = FakeTransport([answer(500), TransportError("reset"), answer(429, {"retry-after": "7"}, throttled_events=[0])])
    assert transport.send(request(1)).status == 500
    with pytest.raises(TransportError, match="reset"):
        transport.send(request(1))
    throttled = transport.send(request(1))
    assert (throttled.headers, throttled.json()) == ({"retry-after": "7"}, {"code": 429, "throttled_events": [0]})
    assert [transport.send(request(1)).status for _ in range(2)] == [200, 200]


def test_a_function_sees_each_request() -> None:
    """It may decide by what is sent."""
    transport = FakeTransport(lambda sent: answer(413) if len(sent.body) > 200 else answer(200))
    assert [transport.send(request(*range(count))).status for count in (1, 30)] == [200, 413]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_remembers_what_it_was_given(compression: str) -> None:
    """Decoded, compressed or not, refused or not."""
    transport = FakeTransport([answer(500)])
    for _ in range(2):
        transport.send(request(1, 2, compression=compression))
    assert transport.events == [{"n": 1}, {"n": 2}] * 2
    assert transport.requests[0].envelope == {"api_key": "key", "options": {"min_id_length": 1}, "events": [{"n": 1}, {"n": 2}]}
    assert transport.requests[0].events == [{"n": 1}, {"n": 2}]
    assert transport.requests[0].request.url == "https://api2.amplitude.com/2/httpapi"


def test_closing_is_counted() -> None:
    """So that a test can see it."""
    transport = FakeTransport()
    transport.close()
    assert transport.closed == 1


def test_many_threads_get_each_answer_once() -> None:
    """Nothing is given twice."""
    transport = FakeTransport([answer(500)] * 20)
    found: list[Response] = []
    threads = [threading.Thread(target=lambda: found.extend(transport.send(request(1)) for _ in range(10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.status for each in found) == [200] * 20 + [500] * 20
