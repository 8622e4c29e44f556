"""Groups that come with `extra`."""

from otel_amplitude.middleware import GroupsFromExtra


def test_groups_of_extra_join_those_of_the_event(through) -> None:
    """The event's own stay."""
    event = through(GroupsFromExtra(), {"groups": {"org": "acme"}}, {"groups": {"org": "other", "team": ["a"]}})
    assert event == {"groups": {"org": "acme", "team": ["a"]}}
    assert through(GroupsFromExtra(), {"event_type": "A"}, {"groups": {"org": "acme"}}) == {"event_type": "A", "groups": {"org": "acme"}}


def test_anything_else_in_extra_is_left_alone(through) -> None:
    """No groups, no change."""
    for extra in ({}, {"groups": "acme"}, {"groups": None}):
        assert through(GroupsFromExtra(), {"event_type": "A"}, extra) == {"event_type": "A"}
