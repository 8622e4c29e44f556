"""A bounded memory of what was seen last."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.convert._recent import Recent


@given(st.integers(1, 4), st.lists(st.integers(0, 6)))
def test_it_remembers_the_newest(most: int, keys: list[int]) -> None:
    """What was last under a key, for the keys seen last, and never more of them."""
    recent: Recent[int, int] = Recent(most)
    model: OrderedDict[int, int] = OrderedDict()
    for at, key in enumerate(keys):
        assert recent.swap(key, at) == model.pop(key, None)
        model[key] = at
        while len(model) > most:
            model.popitem(last=False)
        assert len(recent._kept) == len(model)
