"""Adding constants."""

from otel_amplitude.middleware import Enrich


def test_constants_are_added_cleaned(through) -> None:
    """Names that are no identifiers work too."""
    team = Enrich(team="checkout", build=b"ab", **{"release.channel": "beta"})
    expected = {"team": "checkout", "build": "YWI=", "release.channel": "beta"}
    assert through(team, {"event_type": "A"})["event_properties"] == expected


def test_a_property_of_the_event_stays(through) -> None:
    """The event knows better, and the map it came with is not touched."""
    own = {"team": "search"}
    assert through(Enrich(team="checkout", a=1), {"event_type": "A", "event_properties": own})["event_properties"] == {
        "team": "search",
        "a": 1,
    }
    assert own == {"team": "search"}
