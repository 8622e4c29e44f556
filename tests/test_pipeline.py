"""Whether a thread works for the pipeline is that thread's own business."""

from __future__ import annotations

import threading

from otel_amplitude import pipeline


def test_inside_is_nested_and_ends() -> None:
    """A thread is inside until the outermost block ends, also when it raises."""
    assert not pipeline.inside()
    with pipeline.entered():
        with pipeline.entered():
            assert pipeline.inside()
        assert pipeline.inside()
    assert not pipeline.inside()


def test_other_threads_are_outside() -> None:
    """One thread inside does not put another one there."""
    seen: list[bool] = []
    with pipeline.entered():
        thread = threading.Thread(target=lambda: seen.append(pipeline.inside()))
        thread.start()
        thread.join()
    assert seen == [False]
