"""The connection pool, event by event."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from sark_trio.machines.pool import Close, Dial, Fail, Fault, Grant, Pool, PoolOptions
from sark_trio.machines.slots import TRANSITIONS


def leased(pool: Pool, origin: str = "a", now: float = 0.0, *, stream: bool = False) -> int:
    """A new connection in a lessee's hands."""
    ticket, effects = pool.want(now, origin, stream=stream)
    (dial,) = effects
    assert isinstance(dial, Dial)
    assert pool.dialed(now, dial.slot) == (Grant(ticket, dial.slot),)
    assert pool.start(now, ticket) == dial.slot
    return dial.slot


def idle(pool: Pool, origin: str = "a", now: float = 0.0) -> int:
    """A new connection on the shelf."""
    slot = leased(pool, origin, now)
    assert pool.give_back(now, slot, clean=True) == ()
    return slot


def fail_shutdown(pool: Pool) -> tuple[Fail]:
    ticket, effects = pool.want(0.0, "a")
    assert effects == (Fail(ticket, "shutdown"),)
    return effects  # type: ignore[return-value]


def test_a_connection_is_dialed_granted_used_kept_and_used_again() -> None:
    pool = Pool()
    ticket, effects = pool.want(0.0, "a")
    assert effects == (Dial(2, "a"),)
    assert pool.dialed(0.1, 2) == (Grant(ticket, 2),)
    assert repr(pool) == "<Pool connecting=0 idle=0 granted=1 leased=0 closing=0 waiting=0>"
    assert pool.start(0.1, ticket) == 2
    assert pool.give_back(1.0, 2, clean=True) == ()
    assert pool.next_deadline() == 31.0
    again, effects = pool.want(2.0, "a")
    assert effects == (Grant(again, 2),)


def test_the_newest_idle_connection_is_used_first_and_the_oldest_closed_first() -> None:
    pool = Pool(PoolOptions(idle_max=2))
    first, second, third = leased(pool), leased(pool), leased(pool)
    assert pool.give_back(1.0, second, clean=True) == ()
    assert pool.give_back(2.0, first, clean=True) == ()
    assert pool.give_back(3.0, third, clean=True) == (Close(second),)
    assert pool.try_lease(4.0, "a") == third
    assert pool.try_lease(4.0, "a") == first
    assert pool.try_lease(4.0, "a") is None
    assert pool.statistics().evictions == 1


def test_only_idle_connections_count_against_the_idle_limit() -> None:
    # httpcore 1.0.9 counts active ones, too, and so drops the only idle one.
    pool = Pool(PoolOptions(idle_max=1))
    leased(pool)
    assert pool.give_back(0.0, leased(pool), clean=True) == ()


def test_an_idle_connection_of_another_origin_makes_room() -> None:
    pool = Pool(PoolOptions(total=2))
    oldest, newest = leased(pool), leased(pool)
    pool.give_back(1.0, oldest, clean=True)
    pool.give_back(2.0, newest, clean=True)
    ticket, effects = pool.want(3.0, "b")
    assert effects == (Close(oldest),)
    (dial,) = pool.closed(3.0, oldest)
    assert dial == Dial(ticket + 1, "b")
    assert pool.statistics().idle == 1


def test_one_closing_slot_is_room_for_one() -> None:
    pool = Pool(PoolOptions(total=2))
    dirty, clean = leased(pool), leased(pool)
    pool.give_back(0.0, dirty, clean=False)
    pool.give_back(0.0, clean, clean=True)
    assert pool.want(0.0, "b")[1] == ()
    assert pool.want(0.0, "b")[1] == (Close(clean),)


def test_a_returned_connection_is_closed_for_an_older_ticket_elsewhere() -> None:
    pool = Pool(PoolOptions(total=1))
    slot = leased(pool)
    older, _ = pool.want(0.0, "b")
    younger, _ = pool.want(0.0, "a")
    assert pool.give_back(0.0, slot, clean=True) == (Close(slot),)
    (dial,) = pool.closed(0.0, slot)
    assert isinstance(dial, Dial)
    assert dial.origin == "b"
    assert pool.dialed(0.0, dial.slot) == (Grant(older, dial.slot),)
    assert pool.cancel(0.0, younger) == ()
    assert (pool.statistics().dials, pool.statistics().evictions) == (2, 1)


def test_a_returned_connection_stays_with_its_origin_if_its_ticket_is_the_oldest() -> None:
    pool = Pool(PoolOptions(total=1))
    slot = leased(pool)
    older, _ = pool.want(0.0, "a")
    pool.want(0.0, "b")
    assert pool.give_back(0.0, slot, clean=True) == (Grant(older, slot),)


def test_a_dial_that_nobody_wants_any_more_goes_idle() -> None:
    pool = Pool()
    ticket, _ = pool.want(0.0, "a")
    assert pool.cancel(0.0, ticket) == ()
    assert pool.dialed(1.0, 2) == ()
    assert pool.try_lease(1.0, "a") == 2


def test_a_dial_outlives_its_caller_and_serves_the_next() -> None:
    pool = Pool()
    first, _ = pool.want(0.0, "a")
    pool.cancel(0.0, first)
    second, effects = pool.want(0.0, "a")
    assert effects == ()
    assert pool.dialed(0.0, 2) == (Grant(second, 2),)


def test_a_granted_ticket_that_is_cancelled_hands_its_slot_on_at_once() -> None:
    pool = Pool(PoolOptions(total=1))
    first, (_dial,) = pool.want(0.0, "a")
    second, _ = pool.want(0.0, "a")
    assert pool.dialed(0.0, 2) == (Grant(first, 2),)
    assert pool.cancel(0.0, first) == (Grant(second, 2),)
    assert pool.peer_closed(0.0, 2) == ()
    assert pool.cancel(0.0, second) == (Close(2),)
    assert pool.closed(0.0, 2) == ()
    assert pool.statistics().waiting == 0


def test_a_grant_that_lies_around_until_it_expires_is_closed() -> None:
    pool = Pool()
    ticket, _ = pool.want(0.0, "a")
    pool.dialed(0.0, 2)
    assert pool.cancel(30.0, ticket) == (Close(2),)


def test_a_failed_dial_fails_the_oldest_and_dials_for_the_rest() -> None:
    pool = Pool(PoolOptions(per_origin=1))
    first, _ = pool.want(0.0, "a")
    second, _ = pool.want(0.0, "a")
    error = OSError("refused")
    effects = pool.dial_failed(0.0, 2, error)
    assert effects == (Fail(first, "dial_failed", error), Dial(4, "a"))
    assert pool.dial_failed(0.0, 4, error) == (Fail(second, "dial_failed", error),)
    assert pool.statistics().dial_failures == 2
    assert pool.statistics().connecting == 0


def test_a_failed_dial_that_nobody_wants_fails_nobody() -> None:
    pool = Pool()
    ticket, _ = pool.want(0.0, "a")
    pool.cancel(0.0, ticket)
    assert pool.dial_failed(0.0, 2) == ()


def test_idle_time_ends_on_the_tick() -> None:
    pool = Pool(PoolOptions(idle_s=30.0))
    first, second = leased(pool), leased(pool)
    pool.give_back(1.0, first, clean=True)
    pool.give_back(2.0, second, clean=True)
    assert pool.tick(30.9) == ()
    assert pool.tick(31.0) == (Close(first),)
    assert pool.next_deadline() == 32.0
    assert pool.statistics().expiries == 1
    assert Pool().next_deadline() is None


def test_what_is_expired_is_closed_when_wanted_and_not_leased() -> None:
    pool = Pool()
    first, second = leased(pool), leased(pool)
    pool.give_back(0.0, first, clean=True)
    pool.give_back(1.0, second, clean=True)
    assert pool.try_lease(31.0, "a") is None
    assert pool.statistics().idle == 2
    ticket, effects = pool.want(31.0, "a")
    assert effects == (Close(second), Close(first), Dial(ticket + 1, "a"))
    assert pool.statistics().expiries == 2


def test_old_age_ends_a_connection_however_busy() -> None:
    pool = Pool(PoolOptions(age_max_s=100.0))
    slot = leased(pool)
    for now in (25.0, 50.0, 75.0, 99.0):
        pool.give_back(now, slot, clean=True)
        assert pool.next_deadline() == min(now + 30.0, 100.0)
        assert pool.try_lease(now, "a") == slot
    assert pool.give_back(100.0, slot, clean=True) == (Close(slot),)


def test_a_connection_closed_by_its_peer_is_not_used_again() -> None:
    pool = Pool()
    slot, other = leased(pool), idle(pool)
    assert pool.peer_closed(0.0, slot) == ()
    assert pool.give_back(0.0, slot, clean=True) == (Close(slot),)
    assert pool.peer_closed(0.0, other) == (Close(other),)
    assert pool.peer_closed(0.0, other) == ()
    assert pool.closed(0.0, slot) == pool.closed(0.0, other) == ()
    assert pool.statistics().closing == 0


def test_a_lessee_may_close_its_connection_itself() -> None:
    pool = Pool(PoolOptions(total=1))
    slot = leased(pool, stream=True)
    ticket, _ = pool.want(0.0, "b")
    assert pool.closed(0.0, slot) == (Dial(ticket + 1, "b"),)
    assert pool.statistics().streams == 0


def test_an_idle_connection_that_is_gone_is_forgotten() -> None:
    pool = Pool()
    slot = idle(pool)
    assert pool.closed(0.0, slot) == ()
    assert pool.try_lease(0.0, "a") is None


def test_waiters_are_bounded() -> None:
    pool = Pool(PoolOptions(total=1, waiters_max=1))
    slot = leased(pool)
    kept, effects = pool.want(0.0, "a")
    assert effects == ()
    refused, effects = pool.want(0.0, "b")
    assert effects == (Fail(refused, "full"),)
    assert pool.give_back(0.0, slot, clean=True) == (Grant(kept, slot),)
    assert pool.statistics().refusals == 1
    pool.check_invariants()


def test_a_refusal_still_closes_what_it_found_expired() -> None:
    pool = Pool(PoolOptions(total=2, per_origin=1, waiters_max=1))
    expired = idle(pool, "a")
    leased(pool, "b")
    pool.want(0.0, "b")
    refused, effects = pool.want(40.0, "a")
    assert effects == (Close(expired), Fail(refused, "full"))


def test_full_is_no_matter_to_those_for_whom_a_connection_is_idle() -> None:
    pool = Pool(PoolOptions(per_origin=1, waiters_max=1))
    slot = idle(pool, "a")
    leased(pool, "b")
    pool.want(0.0, "b")
    ticket, effects = pool.want(0.0, "a")
    assert effects == (Grant(ticket, slot),)


@pytest.mark.parametrize(
    ("total", "per_origin", "streams_max", "origins", "allowed"),
    [
        (50, 10, 20, 1, 9),  # one is left for calls to that origin
        (50, 10, 20, 10, 20),
        (4, 10, 20, 10, 3),  # one is left for calls to anyone
        (1, 1, 20, 1, 1),  # ... where there are two
        (50, 10, 0, 1, 0),
    ],
)
def test_streams_leave_room_for_calls(
    total: int, per_origin: int, streams_max: int, origins: int, allowed: int
) -> None:
    pool = Pool(PoolOptions(total=total, per_origin=per_origin, streams_max=streams_max))
    admitted = []
    for number in range(60):
        ticket, effects = pool.want(0.0, number % origins, stream=True)
        if effects != (Fail(ticket, "streams_full"),):
            admitted.append(ticket)
    assert len(admitted) == pool.statistics().streams == allowed
    for ticket in admitted:
        pool.cancel(0.0, ticket)
    assert pool.statistics().streams == 0
    pool.check_invariants()


def test_a_stream_may_take_an_idle_connection_and_frees_its_place_with_it() -> None:
    pool = Pool(PoolOptions(per_origin=2, streams_max=1))
    first, second = leased(pool), leased(pool)
    pool.give_back(0.0, first, clean=True)
    pool.give_back(0.0, second, clean=True)
    assert pool.try_lease(0.0, "a", stream=True) == second
    assert pool.try_lease(0.0, "a", stream=True) is None
    ticket, effects = pool.want(0.0, "a", stream=True)
    assert effects == (Fail(ticket, "streams_full"),)
    pool.check_invariants()
    pool.give_back(0.0, second, clean=True)
    assert pool.statistics().streams == 0
    ticket, effects = pool.want(0.0, "a", stream=True)
    assert effects == (Grant(ticket, second),)
    assert pool.statistics().streams == 1
    pool.cancel(0.0, ticket)
    assert pool.statistics().streams == 0


def test_a_call_may_take_an_idle_connection_while_streams_are_full() -> None:
    pool = Pool(PoolOptions(streams_max=1))
    leased(pool, stream=True)
    slot = idle(pool)
    assert pool.try_lease(0.0, "a", stream=True) is None
    assert pool.try_lease(0.0, "a") == slot


def test_a_pool_is_drained_only_once_shut_down() -> None:
    pool = Pool()
    assert not pool.drained
    pool.shutdown(0.0)
    assert pool.drained


def test_a_fresh_connection_is_granted_even_where_clocks_are_too_coarse_to_age_it() -> None:
    pool = Pool()
    ticket, _ = pool.want(1e18, "a")
    assert pool.dialed(1e18, 2) == (Grant(ticket, 2),)


def test_a_stream_whose_dial_fails_frees_its_place() -> None:
    pool = Pool(PoolOptions(streams_max=1))
    ticket, _ = pool.want(0.0, "a", stream=True)
    assert pool.dial_failed(0.0, 2) == (Fail(ticket, "dial_failed"),)
    assert pool.statistics().streams == 0


def test_shutdown_fails_waiters_aborts_dials_closes_idle_and_waits_for_leases() -> None:
    pool = Pool(PoolOptions(per_origin=1, grace_s=5.0))
    kept, spare = leased(pool, "a"), idle(pool, "b")
    waiting, _ = pool.want(0.0, "a")
    dialing, (dial,) = pool.want(0.0, "c")
    assert isinstance(dial, Dial)
    effects = pool.shutdown(1.0)
    assert set(effects) == {
        Fail(waiting, "shutdown"),
        Fail(dialing, "shutdown"),
        Close(spare),
        Close(dial.slot),
    }
    assert pool.shutdown(1.0) == ()
    assert fail_shutdown(pool)
    assert pool.next_deadline() == 6.0
    # The dial may end either way before its abortion is noticed.
    assert pool.dialed(1.0, dial.slot) == (Close(dial.slot),)
    assert pool.dial_failed(1.0, dial.slot) == ()
    assert pool.closed(1.0, spare) == ()
    assert not pool.drained
    assert pool.tick(5.9) == ()
    assert pool.tick(6.0) == (Close(kept),)
    assert pool.tick(7.0) == ()
    assert pool.next_deadline() is None
    assert pool.give_back(7.0, kept, clean=True) == ()
    assert pool.closed(7.0, kept) == ()
    assert pool.drained
    assert repr(pool).startswith("<Pool shut connecting=0 ")


def test_a_lease_that_ends_within_the_grace_is_closed() -> None:
    pool = Pool()
    slot = leased(pool)
    pool.shutdown(0.0)
    assert pool.give_back(1.0, slot, clean=True) == (Close(slot),)


def test_the_grace_of_a_grant_that_never_started_ends_with_a_failure() -> None:
    pool = Pool()
    ticket, _ = pool.want(0.0, "a")
    pool.dialed(0.0, 2)
    assert pool.shutdown(0.0) == ()
    assert pool.tick(math.inf) == (Fail(ticket, "shutdown"), Close(2))
    assert isinstance(pool.start(math.inf, ticket), Fault)


def test_what_is_closing_already_when_the_grace_ends_is_left_to_it() -> None:
    pool = Pool()
    busy, dirty = leased(pool), leased(pool)
    pool.give_back(0.0, dirty, clean=False)
    pool.shutdown(0.0)
    assert pool.tick(5.0) == (Close(busy),)
    assert pool.statistics().closing == 2


def test_time_never_goes_back() -> None:
    pool = Pool()
    slot = leased(pool, now=100.0)
    pool.give_back(50.0, slot, clean=True)
    assert pool.next_deadline() == 130.0
    assert pool.tick(math.nan) == ()
    assert pool.try_lease(0.0, "a") == slot


@pytest.mark.parametrize(
    "event", ["try_lease", "want", "start", "cancel", "dialed", "closed", "tick", "shutdown"]
)
def test_every_event_tells_the_time(event: str) -> None:
    pool = Pool()
    slot = leased(pool)
    argument = {"try_lease": ("z",), "want": ("z",), "tick": (), "shutdown": ()}.get(event, (99,))
    getattr(pool, event)(50.0, *argument)
    pool.give_back(0.0, slot, clean=True)
    assert pool.try_lease(79.0, "a") == (None if event == "shutdown" else slot)
    assert pool._ledger.now == 79.0
    assert pool._ledger.slots[slot].usable_until == 80.0


def slot_in(pool: Pool, state: str) -> int:
    """A slot in that state."""
    if state in {"leased", "idle"}:
        return leased(pool) if state == "leased" else idle(pool)
    if state == "closing":
        slot = leased(pool)
        pool.give_back(0.0, slot, clean=False)
        return slot
    _ticket, (dial,) = pool.want(0.0, "a")
    assert isinstance(dial, Dial)
    if state == "granted":
        pool.dialed(0.0, dial.slot)
    return dial.slot


STATES = ["connecting", "idle", "granted", "leased", "closing"]
ARGUMENTS: dict[str, dict[str, Any]] = {"give_back": {"clean": True}}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", sorted(TRANSITIONS.keys() - {"start", "cancel"}))
def test_events_do_what_the_table_says_and_nothing_else(event: str, state: str) -> None:
    pool = Pool()
    slot = slot_in(pool, state)
    before = pool.statistics()
    effects = getattr(pool, event)(0.0, slot, **ARGUMENTS.get(event, {}))
    pool.check_invariants()
    found = pool._ledger.slots.get(slot)
    after = "gone" if found is None else found.state
    if state in TRANSITIONS[event]:  # type: ignore[comparison-overlap]
        assert after in TRANSITIONS[event][state]  # type: ignore[index]
        assert not [effect for effect in effects if isinstance(effect, Fault)]
    else:
        assert effects == (Fault(event, f"slot {slot} is {state}"),)
        assert pool.statistics() == before
        assert after == state


def test_each_move_of_the_table_happens_and_no_other() -> None:
    """A long and always the same walk meets every move there is, of one event and its slot."""
    found: set[tuple[str, str, str]] = set()
    for seed in range(40):
        draw = random.Random(seed)
        pool, now = Pool(PoolOptions(total=2, idle_max=seed % 2)), 0.0
        ledger = pool._ledger
        for _ in range(100):
            now += draw.choice([0.0, 1.0, 40.0])
            held = {ticket: w.slot for ticket, w in ledger.tickets.items() if w.slot is not None}
            event = draw.choice(["want", "leave", *TRANSITIONS])
            if event == "want" or not ledger.slots:
                pool.want(now, draw.choice("ab"))
                continue
            if event == "leave":  # of who waits, and has no slot
                for ticket in ledger.tickets.keys() - held.keys():
                    pool.cancel(now, ticket)
                continue
            if event in {"start", "cancel"}:
                ticket, slot = draw.choice([*held.items(), (0, None)])
            else:
                ticket, slot = 0, draw.choice([*ledger.slots.values()])
            if slot is None:
                continue
            before = slot.state
            number = ticket or slot.id
            answer = getattr(pool, event)(now, number, **ARGUMENTS.get(event, {}))
            if Fault not in map(type, answer if isinstance(answer, tuple) else [answer]):
                found.add((event, before, slot.state))
    assert found == {
        (event, before, after)
        for event, moves in TRANSITIONS.items()
        for before, afters in moves.items()
        for after in afters
    }


@pytest.mark.parametrize("event", sorted(TRANSITIONS.keys() - {"start", "cancel"}))
def test_unknown_slots_are_faults(event: str) -> None:
    (fault,) = getattr(Pool(), event)(0.0, 7, **ARGUMENTS.get(event, {}))
    assert fault == Fault(event, "slot 7 is unknown or gone")


def test_unknown_and_finished_tickets_are_faults() -> None:
    pool = Pool(PoolOptions(total=1))
    assert pool.start(0.0, 7) == Fault("start", "ticket 7 has no grant")
    assert pool.cancel(0.0, 7) == (Fault("cancel", "ticket 7 neither waits nor has a grant"),)
    ticket, _ = pool.want(0.0, "a")
    assert isinstance(pool.start(0.0, ticket), Fault)  # it waits
    pool.dialed(0.0, 2)
    assert pool.start(0.0, ticket) == 2
    assert isinstance(pool.start(0.0, ticket), Fault)
    assert isinstance(pool.cancel(0.0, ticket)[0], Fault)
    assert pool.statistics().leased == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total", 0),
        ("per_origin", 0),
        ("idle_max", -1),
        ("idle_s", 0.0),
        ("idle_s", math.nan),
        ("waiters_max", 0),
        ("age_max_s", math.inf),
        ("streams_max", -1),
        ("streams_max", 1.5),
        ("grace_s", -1.0),
    ],
)
def test_options_are_checked(name: str, value: float) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        PoolOptions(**{name: value})  # type: ignore[arg-type]
