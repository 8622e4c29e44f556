"""The examples in the documentation of the conversion are true."""

import doctest
import importlib
import pkgutil

import pytest

from otel_amplitude import convert

MODULES = [module.name for module in pkgutil.iter_modules(convert.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    """Each line after `>>>` gives what stands below it."""
    assert doctest.testmod(importlib.import_module(f"{convert.__name__}.{name}")).failed == 0
