"""Headers that instrumentations captured on spans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import captured_headers, header_names, header_texts

from otel_amplitude.identity._headers import captured


@given(st.data(), header_names, header_texts)
def test_a_captured_header_is_read_in_either_spelling_and_any_form(data: st.DataObject, name: str, text: str) -> None:
    """It gives the text that the client sent, and no other header does."""
    attributes = data.draw(captured_headers(name, text))
    assert captured(attributes, name) == text
    assert captured(attributes, f"x-{name}") is None


@pytest.mark.parametrize("value", ["[REDACTED]", ["[REDACTED]"], ("a", "[REDACTED]"), [], "", [1], 1, None])
def test_what_gives_no_header(value: object) -> None:
    """A redacted, an empty or an unreadable value is none."""
    assert captured({"http.request.header.x-id": value}, "x-id") is None
