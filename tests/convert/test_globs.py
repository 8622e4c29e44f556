"""Globs as people write them."""

import time

from otel_amplitude.convert._globs import compile_globs, has_wildcard


def test_star_and_question_mark_are_all_there_is() -> None:
    """Brackets, dots and braces are themselves; case counts."""
    matches = compile_globs(["/users/{*}", "a?c", "[x]*"])
    assert [text for text in ("/users/{uid}", "abc", "[x]y", "x", "ABC", "ac", "/users/") if matches(text)] == [
        "/users/{uid}",
        "abc",
        "[x]y",
    ]


def test_no_pattern_matches_nothing() -> None:
    """An empty list is not a list of everything."""
    assert not compile_globs([])("anything")


def test_a_glob_spans_slashes_and_lines() -> None:
    """A star is any text."""
    assert compile_globs(["/api/*"])("/api/v1/\nusers")


def test_many_stars_on_a_long_text_end_soon() -> None:
    """What is matched is bounded, so a pattern can not be made to work for ever."""
    start = time.process_time()
    assert not compile_globs(["*a*a*a*a*a*b"])("a" * 100_000)
    assert time.process_time() - start < 1.0


def test_a_wildcard_is_recognised() -> None:
    """Only star and question mark make a glob."""
    assert [has_wildcard(text) for text in ("a*", "a?", "a[b]")] == [True, True, False]
