"""A `BatchExporter` that speaks Amplitude's HTTP contract over a transport."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import orjson

from otel_amplitude import limits
from otel_amplitude.clock import monotonic
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.retry import ExponentialBackoff, FixedWaits
from otel_amplitude.errors import TransportError, without_frames
from otel_amplitude.transport import RequestsTransport, Transport
from otel_amplitude.wire._answers import read_receipt
from otel_amplitude.wire._dry_run import DryRunTransport
from otel_amplitude.wire._too_large import TooLarge
from otel_amplitude.wire._upload import build_upload

if TYPE_CHECKING:
    from otel_amplitude.config import Config
    from otel_amplitude.delivery.disk.spool import Spool
    from otel_amplitude.delivery.observer import Observer
    from otel_amplitude.delivery.receipt import Receipt


def ids_of(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the ids of an event that Amplitude may throttle: the user's first, since it decides the shard."""
    user_id, device_id = event.get("user_id"), event.get("device_id")
    return (user_id, device_id) if user_id and device_id else (user_id or device_id or "",)


def read_ids(body: bytes) -> tuple[str, ...]:
    """Give the same for an event that was read from a file.

    Raises:
        ValueError: the bytes are not exactly one JSON object with the keys of an event. They must not travel: they could end the array of
            events that they stand in, and add keys to the request.
    """
    event = orjson.loads(body)
    if not isinstance(event, dict) or not isinstance(event.get("event_type"), str):
        raise ValueError("not an event")  # noqa: TRY004 -- the bytes are wrong, not their type
    return tuple(map(str, ids_of(event)))


class AmplitudeExporter(BatchExporter):
    """Delivers encoded events to one Amplitude project.

    Made by `Amplitude`; owns its transport and its spool. Nothing is opened or started before the first event.
    """

    def __init__(self, config: Config, observers: Sequence[Observer] = (), *, at_end: Literal["spool", "drop", "return"] = "spool") -> None:
        """Take everything from the options.

        Args:
            config: the options.
            observers: receive what happens.
            at_end: what becomes of what is left at shutdown; `return` is for a source that keeps its events itself.

        Raises:
            SpoolError: when the spool directory can not be trusted.
        """
        self._config = config
        self._url = config.endpoint
        self._transport: Transport = _transport(config)
        self._too_large = TooLarge()
        envelope = build_upload((), api_key=config.api_key, url=self._url, min_id_length=config.min_id_length, compression="none").body
        super().__init__(
            DeliveryOptions(
                upload_interval=config.upload_interval,
                max_batch_events=config.max_batch_events,
                max_batch_bytes=max(1, config.max_batch_bytes - len(envelope)),
                max_cached_events=config.max_cached_events,
                max_cached_bytes=config.max_cached_bytes,
                max_event_age=config.max_event_age,
                max_in_flight=config.max_in_flight,
                request_timeout=config.request_timeout,
                shutdown_timeout=config.shutdown_timeout,
                at_end=at_end,
            ),
            observers=observers,
            retry=config.retry or (ExponentialBackoff() if config.retry_timeouts is None else FixedWaits(config.retry_timeouts)),
            spool=_spool(config),
            read_ids=read_ids,
        )

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        """Make one request of the parcels, send it once, and read the answer. Runs on a sender thread.

        Args:
            batch: what to send; the request keeps its order.
            deadline: when the attempt must end, on `clock.monotonic`.
        """
        config = self._config
        request = build_upload(
            batch,
            api_key=config.api_key,
            url=self._url,
            min_id_length=config.min_id_length,
            headers=config.headers,
            compression="none" if config.dry_run else config.compression,
            timeout=max(0.001, deadline - monotonic()),
        )
        try:
            answer = self._transport.send(request)
        except TransportError as error:
            return read_receipt(without_frames(error), batch)
        return read_receipt(answer, batch, batch_endpoint=config.batch_endpoint, too_large=self._too_large)

    def shutdown(self, timeout: float) -> bool:
        """As for every `BatchExporter`; then close the connections. A dry run writes the books at the end of its file."""
        settled = super().shutdown(timeout)
        if isinstance(self._transport, DryRunTransport):
            self._transport.keep_books(self.stats())
        with contextlib.suppress(Exception):  # it may be one of the user's own
            self._transport.close()
        return settled


def _transport(config: Config) -> Transport:
    if config.dry_run:
        return DryRunTransport(config.dry_run)
    return config.transport or RequestsTransport(ca_file=config.ca_file)


def _spool(config: Config) -> Spool | None:
    if not config.spool_dir:
        return None
    from otel_amplitude.delivery.disk.spool import Spool, fingerprint  # noqa: PLC0415 -- only those who keep events on disk pay for it

    # The fingerprint in the path keeps events to the key and region they were accepted for.
    return Spool(
        config.spool_dir,
        fingerprint(config.endpoint, config.api_key),
        max_bytes=config.max_spool_bytes,
        max_age=min(config.max_event_age, limits.MAX_EVENT_AGE),
    )
