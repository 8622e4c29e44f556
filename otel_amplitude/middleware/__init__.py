"""What users do to an event before it leaves: the chain, and a class for each common need."""

from otel_amplitude.middleware._chain import Chain, Middleware, Next, Payload
from otel_amplitude.middleware.enrich import Enrich
from otel_amplitude.middleware.filter import Filter
from otel_amplitude.middleware.groups import GroupsFromExtra
from otel_amplitude.middleware.plugin import Plugin
from otel_amplitude.middleware.redact import Redact
from otel_amplitude.middleware.rename import Rename
from otel_amplitude.middleware.sample import SampleByUser

__all__ = [
    "Chain",
    "Enrich",
    "Filter",
    "GroupsFromExtra",
    "Middleware",
    "Next",
    "Payload",
    "Plugin",
    "Redact",
    "Rename",
    "SampleByUser",
]
