"""What the events of one resource share is converted once."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource

from otel_amplitude.convert._assembly import Resources


def test_dozens_of_resources_in_turn() -> None:
    """A Collector's file has the resources of all its services; each is converted once, whatever their order."""
    resources = [Resource({"service.name": f"shop-{number}"}) for number in range(300)]
    known = Resources(())
    first = [known.facts(resource) for resource in resources]
    assert [facts.properties["service"] for facts in first] == [f"shop-{number}" for number in range(300)]
    assert all(known.facts(resource) is facts for resource, facts in zip(resources, first, strict=True))


def test_the_number_of_resources_is_bounded() -> None:
    """The oldest gives way, and is right when it comes again."""
    known = Resources(())
    resources = [Resource({"service.name": f"shop-{number}"}) for number in range(1_100)]
    for resource in resources:
        known.facts(resource)
    assert len(known._facts) == 1_024
    assert known.facts(resources[0]).properties["service"] == "shop-0"
    assert known.facts(resources[-1]) is known.facts(resources[-1])
