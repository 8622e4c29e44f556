"""OTLP in either encoding, as a document of a file holds it."""

from __future__ import annotations

from collections.abc import Iterator

from otel_amplitude.convert import otlp_json
from otel_amplitude.convert.documents import Document
from otel_amplitude.convert.looks import looks_json
from otel_amplitude.convert.recorded import Batch, KnownResources, Recorded

MISSING: str = "is OTLP in protobuf, which needs the extra: pip install otel-amplitude[otlp]"


def find_all(document: Document, problems: list[str], resources: KnownResources) -> Iterator[Recorded]:
    """Give the spans and log records of a document one by one; none, and what it looks like, for one that is no OTLP.

    Args:
        document: without a problem of its own.
        problems: takes what could not be read, in words.
        resources: those known so far.
    """
    if not document.is_json:
        return _protobuf(document.raw, problems, resources)
    found = otlp_json.find(document.data, problems, resources, document.size)
    if found is None:
        problems.append(looks_json(document.data))
    return iter(()) if found is None else found


def _protobuf(message: bytes, problems: list[str], resources: KnownResources) -> Iterator[Recorded]:
    if not message:
        return iter(())  # an empty request
    try:
        from otel_amplitude.convert import otlp_protobuf  # noqa: PLC0415 -- an extra
    except ImportError:
        problems.append(MISSING)
        return iter(())
    return otlp_protobuf.find(message, problems, resources)


def read_document(document: Document, resources: KnownResources) -> Batch:
    """Read everything in a document, whole; raises nothing, whatever it holds."""
    batch = Batch([], [], [document.problem] if document.problem else [])
    return batch if document.problem else batch.take(find_all(document, batch.problems, resources))
