"""Spans and log records as events: `Selector` chooses, `Converter` makes; `_rules` reads the rules file, for those who have one."""

from otel_amplitude.convert._select import Choice, Selector
from otel_amplitude.convert._spans import Converter

__all__ = ["Choice", "Converter", "Selector"]
