"""Order and holds: an id that rests keeps its followers behind it, and nobody else."""

from __future__ import annotations

from parcels import names, parcel

from otel_amplitude.delivery.backlog import Backlog, bytes_of
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Split


def line(*parcels: Parcel) -> Backlog:
    backlog = Backlog()
    for order, each in enumerate(parcels, 1):
        each.order = order
    backlog.append(parcels, bytes_of(parcels))
    return backlog


def test_takes_the_first_by_count() -> None:
    """A batch has at most so many parcels, first things first."""
    backlog = line(*[parcel(f"{i}") for i in range(5)])
    assert names(backlog.take(3, 1000)) == ["0", "1", "2"]
    assert names(backlog.take(3, 1000)) == ["3", "4"]
    assert backlog.size == 0


def test_takes_the_first_by_bytes_with_commas() -> None:
    """A batch has at most so many bytes, the commas between the parcels included."""
    backlog = line(*[parcel(f"{i}", size=10) for i in range(5)])
    assert len(backlog.take(10, 33)) == 3
    assert len(backlog.take(10, 21)) == 1
    assert backlog.size == 10


def test_a_parcel_larger_than_a_batch_goes_alone() -> None:
    """One parcel above the byte bound is sent by itself, since nothing else can be done with it."""
    backlog = line(parcel("large", size=100), parcel("small"))
    assert names(backlog.take(10, 50)) == ["large"]


def test_a_batch_ends_at_a_cut() -> None:
    """While a request is being divided, a batch ends where a part ends."""
    backlog = line(*[parcel(f"{i}") for i in range(4)])
    backlog.cuts[2] = Split.BISECT
    assert names(backlog.take(10, 1000)) == ["0", "1"]


def test_an_id_that_rests_keeps_its_followers() -> None:
    """What shares an id with a held parcel waits, and holds its own ids in turn; others go on."""
    backlog = line(parcel("a", "u1", "d1"), parcel("b", "d1", "d2"), parcel("c", "d2"), parcel("d", "u4"))
    taken = backlog.take(1, 1000)
    backlog.give_back(taken, {"u1": 30.0, "d1": 30.0}, now=0.0)
    assert names(backlog.take(10, 1000)) == ["d"]
    assert names(backlog.aside) == ["a", "b", "c"]
    late = parcel("e", "d2")
    late.order = 9
    backlog.append([late], bytes_of([late]))
    assert names(backlog.aside) == ["a", "b", "c", "e"]
    assert backlog.next_release == 30.0
    backlog.release(29.0)
    assert not backlog.ready
    backlog.release(30.0)
    assert names(backlog.take(10, 1000)) == ["a", "b", "c", "e"]
    assert not backlog.holds


def test_followers_of_two_holds_wait_for_both() -> None:
    """A parcel with two ids waits for the later one; what waited only for the earlier one goes."""
    backlog = line(parcel("a", "u1"), parcel("b", "u2"), parcel("c", "u1", "u2"), parcel("d", "u1"))
    taken = backlog.take(2, 1000)
    backlog.give_back(taken, {"u1": 10.0, "u2": 20.0}, now=0.0)
    assert not backlog.ready
    backlog.release(10.0)
    assert names(backlog.ready) == ["a"]
    assert names(backlog.aside) == ["b", "c", "d"]


def test_the_share_of_an_id_is_counted() -> None:
    """Events and bytes behind an id are known at any time."""
    backlog = line(parcel("a", "u1", size=10))
    backlog.give_back(backlog.take(1, 1000), {"u1": 10.0}, now=0.0)
    more = parcel("b", "u1", "d1", size=7)
    more.order = 2
    backlog.append([more], bytes_of([more]))
    assert (backlog.holds["u1"].events, backlog.holds["u1"].bytes) == (2, 17)
    assert (backlog.holds["d1"].events, backlog.holds["d1"].bytes) == (1, 7)


def test_a_released_parcel_does_not_overtake_an_earlier_one() -> None:
    """A parcel that waited for one id comes back behind an earlier parcel of its other id."""
    backlog = line(parcel("a", "u1"), parcel("b", "d2"), parcel("c", "u1", "d2"))
    backlog.give_back(backlog.take(1, 1000), {"u1": 10.0}, now=0.0)
    assert names(backlog.ready) == ["b"]
    backlog.release(10.0)
    assert names(backlog.ready) == ["a", "b", "c"]


def test_what_comes_back_stands_before_its_followers() -> None:
    """A parcel in flight that comes back goes before a later one of the same id that was set aside meanwhile."""
    backlog = line(parcel("a", "d1"), parcel("b", "u2"), parcel("c", "u2", "d1"))
    flying = backlog.take(1, 1000)
    backlog.give_back(backlog.take(1, 1000), {"u2": 10.0}, now=0.0)
    assert names(backlog.aside) == ["b", "c"]
    backlog.give_back(flying, {}, now=0.0)
    assert names(backlog.ready) == ["a"]
    assert names(backlog.aside) == ["b", "c"]


def test_a_longer_pause_is_not_shortened() -> None:
    """A second answer that asks for less does not end a hold earlier."""
    backlog = line(parcel("a", "u1"))
    backlog.give_back(backlog.take(1, 100), {"u1": 20.0}, now=0.0)
    backlog.give_back([], {"u1": 5.0}, now=0.0)
    assert backlog.next_release == 20.0


def test_a_second_sender_passes_what_is_in_flight() -> None:
    """Parcels with an id in flight, and those behind them, stay in their order; the rest may go."""
    backlog = line(parcel("a", "u1", "d1"), parcel("b", "d1", "d2"), parcel("c", "d2"), parcel("d", "u4"), parcel("e", "u5"))
    assert names(backlog.take_beside({"u1", "d1"}, 2, 1000, partly=False)) == ["d", "e"]
    assert names(backlog.ready) == ["a", "b", "c"]
    assert backlog.size == 30


def test_a_second_sender_takes_no_crumbs() -> None:
    """Less than half a batch is not worth a request, unless somebody flushes."""
    backlog = line(parcel("a", "u1"), parcel("b", "u2"))
    assert backlog.take_beside({"u1"}, 4, 1000, partly=False) == []
    assert names(backlog.ready) == ["a", "b"]
    assert names(backlog.take_beside({"u1"}, 4, 1000, partly=True)) == ["b"]


def test_a_second_sender_respects_bounds_and_cuts() -> None:
    """Count, bytes and cuts bound the batch of a second sender as well."""
    backlog = line(*[parcel(f"{i}", f"u{i}", size=10) for i in range(6)])
    backlog.cuts[5] = Split.ONCE
    assert names(backlog.take_beside({"x"}, 2, 1000, partly=True)) == ["0", "1"]
    assert names(backlog.take_beside({"x"}, 9, 25, partly=True)) == ["2", "3"]
    assert names(backlog.take_beside({"x"}, 9, 1000, partly=True)) == ["4"]


def test_the_old_leave_wherever_they_wait() -> None:
    """Expiry takes from the line and from those aside; followers of an expired parcel are free again."""
    backlog = line(parcel("a", "u1", "d1", accepted_ms=1), parcel("b", "d1", accepted_ms=50), parcel("c", "u3", accepted_ms=2))
    backlog.give_back(backlog.take(1, 1000), {"u1": 30.0}, now=0.0)
    assert names(backlog.aside) == ["a", "b"]
    assert sorted(names(backlog.expired(10, 0.0))) == ["a", "c"]
    assert names(backlog.ready) == ["b"]
    assert backlog.expired(10, 0.0) == []


def test_clear_gives_everything_in_order() -> None:
    """At the end all comes out, held or not, as it was accepted."""
    backlog = line(parcel("a", "u1"), parcel("b", "u2"))
    backlog.give_back(backlog.take(1, 1000), {"u1": 30.0}, now=0.0)
    assert names(backlog.clear()) == ["a", "b"]
    assert (backlog.size, backlog.next_release, backlog.holds, backlog.cuts) == (0, None, {}, {})


def on_disk(*parcels: Parcel) -> list[Parcel]:
    for each in parcels:
        each.place = "somewhere"
    return list(parcels)


def test_what_is_too_much_to_wait_stays_on_disk() -> None:
    """The last ones go, but none that lies in memory alone, nor one that such a one waits for."""
    backlog = line(*on_disk(parcel("a", "u1"), parcel("b", "u1", "d1"), parcel("c", "u1")), parcel("d", "d1"), *on_disk(parcel("e", "u1")))
    backlog.cuts[5] = Split.BISECT
    backlog.give_back(backlog.take(1, 1000), {"u1": 30.0}, now=0.0)
    assert names(backlog.aside) == ["a", "b", "c", "d", "e"]
    assert not backlog.shelve_excess(5, 1000)
    assert names(backlog.shelve_excess(1, 1000)) == ["e", "c"]
    assert names(backlog.aside) == ["a", "b", "d"]
    assert (backlog.holds["u1"].events, backlog.holds["u1"].bytes) == (2, 20)
    assert backlog.shelf.first == 3
    assert not backlog.cuts
    assert names(backlog.shelve_excess(5, 25)) == []  # whatever is left has to be kept


def test_who_shares_an_id_with_what_stays_on_disk_is_late() -> None:
    """A new event waits for it, and so does whoever shares an id with that one; others do not."""
    backlog = line(*on_disk(parcel("a", "u1"), parcel("b", "u1")))
    backlog.give_back(backlog.take(1, 1000), {"u1": 30.0}, now=0.0)
    (shelved,) = backlog.shelve_excess(1, 1000)
    new = [parcel("c", "u1", "d1"), parcel("d", "d1"), parcel("e", "u2")]
    for order, each in enumerate(new, 3):
        each.order = order
    backlog.append(new, bytes_of(new))
    assert (names(backlog.late), names(backlog.ready)) == (["c", "d"], ["e"])
    assert backlog.sweep_at() == 30.0
    backlog.release(30.0)
    assert backlog.sweep_at() <= 30.0  # type: ignore[operator]
    backlog.shelf.begin_sweep(30.0)
    assert backlog.sweep_at() is None
    assert not backlog.read_back([shelved], 30.0)
    backlog.end_sweep(30.0)
    assert names(backlog.take(10, 1000)) == ["a", "b", "c", "d", "e"]
    assert backlog.sweep_at() is None


def test_what_is_read_back_does_not_overtake_who_is_late() -> None:
    """An event from the disk that was accepted after a late one of the same id stays where it is until that one is let in."""
    backlog = line(*on_disk(parcel("a", "u1"), parcel("b", "u1")))
    backlog.give_back(backlog.take(1, 1000), {"u1": 30.0}, now=0.0)
    (shelved,) = backlog.shelve_excess(1, 1000)
    late = parcel("c", "u1", "d1")
    late.order = 3
    backlog.append([late], bytes_of([late]))
    (other,) = on_disk(parcel("d", "d1"))
    other.order = 4
    assert names(backlog.read_back([other], 0.0)) == ["d"]
    backlog.release(30.0)
    backlog.shelf.begin_sweep(30.0)
    assert names(backlog.read_back([shelved, other], 30.0)) == ["d"]
    backlog.end_sweep(30.0)
    assert (names(backlog.ready), backlog.late) == (["a", "b", "c"], [])
    assert backlog.sweep_at() is not None
    backlog.shelf.begin_sweep(31.0)
    assert not backlog.read_back([other], 31.0)
    backlog.end_sweep(31.0)
    assert names(backlog.ready) == ["a", "b", "c", "d"]
