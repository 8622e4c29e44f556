"""A stand-in for Amplitude on loopback: the real validation, the real answers, and a page to watch. Knows nothing of the exporter."""

from otel_amplitude.sandbox._guide import KEY
from otel_amplitude.sandbox._limits import EpsLimits
from otel_amplitude.sandbox._project import Received
from otel_amplitude.sandbox._server import Sandbox

__all__ = ["KEY", "EpsLimits", "Received", "Sandbox"]
