"""The pool's ledger: its queues, its ranking of demand, its counts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sark_trio.machines.ledger import Ledger, Origin, Waiter
from sark_trio.machines.slots import Fault, PoolOptions


def ledger(**limits: int) -> Ledger:
    return Ledger(PoolOptions(**limits))  # type: ignore[arg-type]


def wait(book: Ledger, origin: str, *, stream: bool = False) -> Waiter:
    """A new ticket in the queue of *origin*."""
    where = book.origins.setdefault(origin, Origin(origin))
    waiter = Waiter(book.mint(), where, stream)
    book.tickets[waiter.ticket] = waiter
    if stream:
        book.count_stream(where, 1)
    book.enqueue(waiter)
    return waiter


def covered(waiter: Waiter) -> list[int]:
    return list(waiter.origin.covered)


def test_dials_cover_the_oldest_tickets_whoever_leaves() -> None:
    book = ledger()
    first, second, third = (wait(book, "a") for _ in range(3))
    slot = book.open(first.origin)
    book.open(first.origin)
    assert covered(first) == [first.ticket, second.ticket]
    assert book.demand == 1
    book.forget(first)
    assert covered(second) == [second.ticket, third.ticket]
    assert book.demand == 0
    book.forget(third)
    assert covered(second) == [second.ticket]
    fourth = wait(book, "a")  # a dial was to spare
    assert covered(second) == [second.ticket, fourth.ticket]
    assert second.origin.oldest() is second
    book.begin_closing(slot)
    assert second.origin.connecting == 1


def test_demand_ends_where_an_origin_is_full() -> None:
    book = ledger(per_origin=2)
    waiters = [wait(book, "a") for _ in range(4)]
    assert book.demand == 2
    book.open(waiters[0].origin)
    assert book.demand == 1
    book.open(waiters[0].origin)
    assert book.demand == 0


def test_demand_is_ranked_by_its_oldest_ticket() -> None:
    book = ledger()
    waiters = [wait(book, origin) for origin in "abacb"]
    order = []
    for _ in waiters:
        ticket, where = book.first_in_demand()
        order.append(ticket)
        assert where is waiters[ticket - 1].origin
        book.forget(waiters[ticket - 1])
    assert order == [1, 2, 3, 4, 5]
    assert book.demand == 0
    assert not book.origins


def test_an_origin_that_left_the_ranking_comes_back() -> None:
    book = ledger(per_origin=1)
    first, other = wait(book, "a"), wait(book, "b")
    second = wait(book, "a")
    slot = book.open(first.origin)
    assert book.first_in_demand() == (other.ticket, other.origin)
    book.begin_closing(slot)
    book.forget(first)
    book.remove(slot)
    assert book.first_in_demand() == (other.ticket, other.origin)
    book.forget(other)
    assert book.first_in_demand() == (second.ticket, second.origin)


def test_closing_slots_are_owed_to_the_oldest_demand() -> None:
    book = ledger(total=1)
    slot = book.open(wait(book, "a").origin)
    other, mine = wait(book, "b"), wait(book, "a")
    assert book.is_owed_before(mine)
    assert not book.is_owed_before(other)
    book.begin_closing(slot)
    assert book.demand == 2
    book.forget(other)
    assert not book.is_owed_before(mine)


@pytest.mark.parametrize("origins", [40, 200])
def test_the_ranking_is_rebuilt_before_it_outgrows_the_queue(origins: int) -> None:
    book = ledger()
    kept = wait(book, "kept")
    for number in range(origins):
        book.forget(wait(book, f"passing {number}"))
        assert len(book.ranking) <= 2 * (book.waiting + 1) + 64
    late = wait(book, "late")
    assert book.first_in_demand() == (kept.ticket, kept.origin)
    book.forget(kept)
    assert book.first_in_demand() == (late.ticket, late.origin)
    assert len(book.origins) == 1


def test_the_ranking_is_as_long_as_it_may_be_and_not_longer() -> None:
    book = ledger()
    wait(book, "kept")
    lengths = []
    for number in range(200):
        passing = wait(book, f"passing {number}")
        lengths.append(len(book.ranking))
        book.forget(passing)
    assert max(lengths) == 2 * 2 + 64


def test_the_ranking_of_a_growing_queue_is_never_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each time costs as much as the queue is long, so it must not happen with every ticket.
    rebuilt: list[int] = []
    monkeypatch.setattr(Ledger, "_rebuild_ranking", lambda book: rebuilt.append(book.waiting))
    book = ledger()
    for number in range(1_000):
        wait(book, f"origin {number}")
    assert rebuilt == []


def test_a_rebuilt_ranking_is_in_order() -> None:
    book = ledger()
    gone, second, third = (wait(book, origin) for origin in "abc")
    # A heap as well, whose rest is none once its top is left out.
    book.ranking = [(w.ticket, w.origin) for w in (gone, third, second)]
    book.forget(gone)
    book._rebuild_ranking()
    assert book.first_in_demand() == (second.ticket, second.origin)


def test_slots_are_reused_newest_first_and_dropped_oldest_first() -> None:
    book = ledger()
    waiters = [wait(book, origin) for origin in "aba"]
    slots = [book.open(waiter.origin) for waiter in waiters]
    for waiter, slot in zip(waiters, slots, strict=True):
        book.made(slot)
        book.dequeue(waiter)
        book.shelve(slot)
    assert list(book.idle) == [slot.id for slot in slots]
    assert list(waiters[0].origin.idle) == [slots[0].id, slots[2].id]
    book.unshelve(slots[2])
    assert list(waiters[0].origin.idle) == [slots[0].id]


def test_a_slot_is_usable_until_it_is_idle_too_long_or_too_old() -> None:
    book = Ledger(PoolOptions(idle_s=10.0, age_max_s=25.0))
    slot = book.open(wait(book, "a").origin)
    book.advance(100.0)
    book.made(slot)
    assert (slot.born, slot.usable_until) == (100.0, 110.0)
    book.advance(120.0)
    book.used(slot)
    assert slot.usable_until == 125.0


def test_a_slot_that_goes_takes_everything_with_it() -> None:
    book = ledger()
    waiter = wait(book, "a", stream=True)
    slot = book.open(waiter.origin)
    book.made(slot)
    book.dequeue(waiter)
    slot.state, slot.holder, slot.stream, waiter.slot = "granted", waiter, True, slot
    book.check_invariants()
    assert book.streams == 1
    book.remove(slot)
    assert slot.state == "gone"
    assert (book.streams, book.closing, len(book.tickets), len(book.origins)) == (0, 0, 0, 0)
    book.check_invariants()


@pytest.mark.parametrize("state", ["connecting", "idle", "leased", "closing"])
def test_a_slot_goes_from_wherever_it_is(state: str) -> None:
    book = ledger()
    waiter = wait(book, "a")
    slot = book.open(waiter.origin)
    book.forget(waiter)
    if state != "connecting":
        book.made(slot)
        slot.state = "leased"
    if state == "idle":
        book.shelve(slot)
    if state == "closing":
        book.begin_closing(slot)
    book.check_invariants()
    book.remove(slot)
    assert not (book.slots or book.idle or book.closing or book.origins)
    book.check_invariants()


def test_a_snapshot_counts_slots_by_state() -> None:
    book = ledger()
    for state in ("connecting", "idle", "idle", "granted", "leased", "closing"):
        book.open(wait(book, "a").origin).state = state  # type: ignore[assignment]
    book.counts.update(dials=1, dial_failures=2, evictions=3, expiries=4, refusals=5)
    now = book.statistics()
    assert (now.connecting, now.idle, now.granted, now.leased, now.closing) == (1, 2, 1, 1, 1)
    assert (now.dials, now.dial_failures, now.evictions, now.expiries) == (1, 2, 3, 4)
    assert (now.refusals, now.waiting, now.streams) == (5, 6, 0)


def test_a_cancelled_stream_frees_its_place() -> None:
    book = ledger(streams_max=1)
    waiter = wait(book, "a", stream=True)
    assert not book.stream_room(None)
    assert not book.stream_room(waiter.origin)
    book.forget(waiter)
    assert book.stream_room(None)


@pytest.mark.parametrize(("most", "room"), [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("limit", ["total", "per_origin"])
def test_one_connection_remains_for_calls_where_there_are_two(
    limit: str, most: int, room: int
) -> None:
    book, admitted = ledger(**{limit: most}), 0
    where: Origin | None = None
    while book.stream_room(where):
        where = wait(book, "a", stream=True).origin
        admitted += 1
    assert admitted == room


def test_a_connection_that_was_a_stream_is_none_afterwards() -> None:
    book = ledger()
    waiter = wait(book, "a", stream=True)
    slot = book.open(waiter.origin)
    book.made(slot)
    book.dequeue(waiter)
    slot.holder, slot.stream, waiter.slot = waiter, True, slot
    book.vacate(slot)
    assert (slot.stream, book.streams) == (False, 0)
    book.vacate(slot)  # of the call that had it next
    assert book.streams == 0


def test_finding_tells_why_not() -> None:
    book = ledger()
    slot = book.open(wait(book, "a").origin)
    assert book.find("dialed", 1.0, slot.id) is slot
    assert book.find("closed", 1.0, slot.id) == Fault("closed", f"slot {slot.id} is connecting")
    assert book.find("closed", 1.0, 99) == Fault("closed", "slot 99 is unknown or gone")
    assert book.now == 1.0


def test_ids_are_never_used_twice() -> None:
    book = ledger()
    assert all(b == a + 1 for a, b in pairwise(book.mint() for _ in range(5)))


@pytest.mark.parametrize("name", ["count", "connecting", "streams", "demand"])
def test_invariants_see_a_count_that_is_off(name: str) -> None:
    book = ledger(total=1)
    waiter = wait(book, "a")
    book.open(waiter.origin)
    book.check_invariants()
    setattr(waiter.origin, name, getattr(waiter.origin, name) + 1)
    with pytest.raises(AssertionError):
        book.check_invariants()


@pytest.mark.parametrize("name", ["demand", "waiting", "closing", "streams"])
def test_invariants_see_a_total_that_is_off(name: str) -> None:
    book = ledger(total=1)
    book.open(wait(book, "a").origin)
    setattr(book, name, getattr(book, name) + 1)
    with pytest.raises(AssertionError):
        book.check_invariants()
