"""The breaker, by example: defaults, words, and faults of the original that it has not."""

from __future__ import annotations

import pytest
from attrs import evolve

from sark_trio.machines.breaker import (
    Admit,
    Breaker,
    BreakerOptions,
    CircuitState,
    Fault,
    Mode,
    Outcome,
    Permit,
    Reject,
    Transition,
)
from sark_trio.machines.circuit import OUTSTANDING_MAX, Why
from sark_trio.machines.window import Counts, RateRule

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def admit(breaker: Breaker, now: float) -> Permit:
    answer = breaker.acquire(now)
    assert isinstance(answer, Admit)
    return answer.permit


def trip(breaker: Breaker, now: float = 0.0) -> Breaker:
    while breaker.state is CLOSED:
        breaker.settle(now, admit(breaker, now), Outcome.FAILURE)
    return breaker


def test_the_way_round_with_defaults() -> None:
    breaker = Breaker(key="db")
    permits = [admit(breaker, 1.0) for _ in range(5)]
    assert permits[0] == Permit(gen=0, seq=1, probe=False, admitted_at=1.0, key="db")
    answers = [breaker.settle(2.0, permit, Outcome.FAILURE) for permit in permits]
    assert answers == [None] * 4 + [Transition(CLOSED, OPEN, 1, Why.FAILURES)]
    assert breaker.acquire(12.0) == Reject("open", 20.0)
    first = breaker.acquire(32.0)
    assert isinstance(first, Admit)
    assert first.transition == Transition(OPEN, HALF_OPEN, 2, Why.ELAPSED)
    assert first.permit.probe
    assert breaker.next_deadline() == 92.0
    second = admit(breaker, 33.0)
    assert breaker.settle(34.0, first.permit, Outcome.SUCCESS) is None
    closed = breaker.settle(35.0, second, Outcome.SUCCESS)
    assert closed == Transition(HALF_OPEN, CLOSED, 3, Why.RECOVERED)
    assert (breaker.state, breaker.generation, breaker.peek(35.0)) == (CLOSED, 3, None)
    assert breaker.next_deadline() is None


def test_a_probe_that_hangs_is_given_up() -> None:
    breaker = trip(Breaker())
    hung = [admit(breaker, 30.0 + n) for n in range(3)]
    assert breaker.acquire(40.0) == Reject("probing", 50.0)
    assert breaker.tick(89.0) is None
    assert breaker.peek(90.0) == Reject("open", 30.0)
    stalled = Transition(HALF_OPEN, OPEN, 3, Why.STALLED)
    assert breaker.acquire(90.0) == Reject("open", 30.0, stalled)
    assert breaker.settle(91.0, hung[0], Outcome.SUCCESS) is None
    assert breaker.statistics().late == 1
    assert breaker.statistics().opens_in_row == 0


def test_each_failed_recovery_waits_longer_up_to_the_limit() -> None:
    options = BreakerOptions(open_multiplier=3.0, open_max_s=200.0)
    breaker, now, waits = trip(Breaker(options)), 0.0, []
    for _ in range(4):
        until = breaker.statistics().open_until
        assert until is not None
        waits.append(until - now)
        now = until
        breaker.settle(now, admit(breaker, now), Outcome.FAILURE)
    assert waits == [30.0, 90.0, 200.0, 200.0]
    assert options.open_time_s(10_000) == 200.0
    for _ in range(2):
        breaker.settle(now + 200.0, admit(breaker, now + 200.0), Outcome.SUCCESS)
    # It has recovered: what was before makes no wait longer.
    assert trip(breaker, now + 300.0).statistics().open_until == now + 330.0


def test_operators_stand_above_outcomes() -> None:
    breaker = Breaker(BreakerOptions(failures=1))
    before = admit(breaker, 0.0)
    assert breaker.force(0.0, Mode.AUTO) is None
    assert breaker.force(1.0, Mode.FORCED_OPEN) == Transition(CLOSED, OPEN, 1, Why.FORCED_OPEN)
    assert breaker.acquire(1e6) == Reject("forced")
    assert breaker.peek(1e6) == Reject("forced")
    assert breaker.statistics().open_until is None
    assert breaker.force(2e6, Mode.FORCED_CLOSED) == Transition(OPEN, CLOSED, 2, Why.FORCED_CLOSED)
    assert breaker.settle(2e6, admit(breaker, 2e6), Outcome.FAILURE) is None
    assert breaker.state is CLOSED
    assert breaker.force(3e6, Mode.AUTO) == Transition(CLOSED, CLOSED, 3, Why.RELEASED)
    assert breaker.settle(3e6, before, Outcome.FAILURE) is None
    assert breaker.state is CLOSED
    breaker.force(4e6, Mode.FORCED_OPEN)
    assert breaker.reset(4e6) == Transition(OPEN, CLOSED, 5, Why.RESET)
    assert breaker.mode is Mode.AUTO


@pytest.mark.parametrize("window", ["count", "time"])
def test_rates_open_it_as_well(window: str) -> None:
    rule = RateRule(window=window, min_calls=4)  # type: ignore[arg-type]
    breaker = Breaker(BreakerOptions(rate=rule))
    outcomes = [Outcome.FAILURE, Outcome.SUCCESS, Outcome.SUCCESS, Outcome.FAILURE]
    moves = [breaker.settle(0.0, admit(breaker, 0.0), outcome) for outcome in outcomes]
    assert moves == [None] * 3 + [Transition(CLOSED, OPEN, 1, Why.FAILURE_RATE)]
    probe = admit(breaker, 30.0)
    slow = breaker.settle(40.0, probe, Outcome.SUCCESS, duration_s=10.0)
    assert slow == Transition(HALF_OPEN, OPEN, 3, Why.PROBE_SLOW)
    breaker.reset(50.0)
    for _ in range(4):
        assert breaker.state is CLOSED
        last = breaker.settle(50.0, admit(breaker, 50.0), Outcome.SUCCESS, duration_s=10.0)
    assert last == Transition(CLOSED, OPEN, 5, Why.SLOW_RATE)
    assert breaker.statistics().window == Counts()


def test_a_fast_success_never_opens_whatever_the_rates() -> None:
    breaker = Breaker(BreakerOptions(rate=RateRule(min_calls=3)))
    outcomes = [Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS]
    assert not any(breaker.settle(0.0, admit(breaker, 0.0), outcome) for outcome in outcomes)
    assert breaker.statistics().window == Counts(3, 2, 0)


def test_a_permit_is_settled_once_and_only_where_it_was_issued() -> None:
    breaker, other = Breaker(key="a"), Breaker(key="b")
    permit, foreign = admit(breaker, 0.0), admit(other, 0.0)
    assert breaker.settle(0.0, foreign, Outcome.FAILURE) == Fault("unknown_permit", foreign)
    forged = evolve(permit, admitted_at=1.0)
    assert breaker.settle(0.0, forged, Outcome.FAILURE) == Fault("unknown_permit", forged)
    assert breaker.settle(0.0, evolve(permit), Outcome.SUCCESS) is None
    assert breaker.settle(0.0, permit, Outcome.SUCCESS) == Fault("double_settle", permit)
    assert breaker.settle(0.0, foreign, Outcome.FAILURE) == Fault("unknown_permit", foreign)
    assert breaker.statistics().faults == 4


def test_a_success_in_between_begins_the_row_of_failures_anew() -> None:
    breaker = Breaker()
    for _ in range(3):
        for outcome in (*[Outcome.FAILURE] * 4, Outcome.SUCCESS):
            assert breaker.settle(0.0, admit(breaker, 0.0), outcome) is None
        assert breaker.statistics().failures_in_row == 0


def test_permits_that_nobody_settles_are_forgotten_in_the_end() -> None:
    breaker = Breaker()
    oldest = admit(breaker, 0.0)
    for _ in range(65_535):
        breaker.acquire(0.0)
    assert (breaker.outstanding, breaker.statistics().forgotten) == (OUTSTANDING_MAX, 0)
    breaker.acquire(0.0)
    breaker.check_invariants()
    assert breaker.outstanding == OUTSTANDING_MAX
    assert breaker.statistics().forgotten == 1
    assert isinstance(breaker.settle(0.0, oldest, Outcome.FAILURE), Fault)


@pytest.mark.parametrize("rate", [None, RateRule(), RateRule(window="time")])
def test_a_snapshot_restores_permits_probes_and_window(rate: RateRule | None) -> None:
    options = BreakerOptions(rate=rate, failures=2)
    breaker = Breaker(options, "db")
    old = admit(breaker, 0.0)
    breaker.settle(1.0, admit(breaker, 1.0), Outcome.FAILURE)
    copy = Breaker.from_snapshot(options, breaker.snapshot())
    assert copy.statistics() == breaker.statistics()
    trip(copy, 2.0)
    probe = admit(copy, 32.0)
    copy = Breaker.from_snapshot(options, copy.snapshot())
    copy.check_invariants()
    assert (copy.statistics().probes, copy.next_deadline()) == (1, 92.0)
    assert copy.settle(33.0, old, Outcome.FAILURE) is None
    assert copy.settle(33.0, probe, Outcome.NEUTRAL) is None
    assert copy.peek(33.0) is None
    assert admit(copy, 33.0).probe


def test_repr_is_one_line() -> None:
    breaker = Breaker(key="db")
    admit(breaker, 0.0)
    assert repr(breaker) == "<Breaker 'db' closed gen=0 outstanding=1 probes=0>"
    breaker.force(0.0, Mode.FORCED_OPEN)
    assert repr(breaker) == "<Breaker 'db' open forced_open gen=1 outstanding=1 probes=0>"


# -- faults of the original system -------------------------------------------------------------


@pytest.mark.fault(7)
def test_calls_that_end_while_half_open_free_no_slot_they_never_took() -> None:
    breaker = Breaker(BreakerOptions(probes=1))
    old = [admit(breaker, 0.0) for _ in range(20)]
    trip(breaker)
    probe = admit(breaker, 30.0)
    for permit in old:
        breaker.settle(31.0, permit, Outcome.SUCCESS)
        assert breaker.acquire(31.0) == Reject("probing", 59.0)
    assert breaker.statistics().probes == 1
    breaker.settle(32.0, probe, Outcome.NEUTRAL)
    assert breaker.statistics().probes == 0


@pytest.mark.fault(8)
def test_results_of_calls_from_before_the_trip_do_not_count() -> None:
    breaker = Breaker(BreakerOptions(successes=1))
    old = [admit(breaker, 0.0) for _ in range(3)]
    trip(breaker)
    breaker.settle(29.0, old[0], Outcome.FAILURE)
    assert breaker.statistics().open_until == 30.0  # not prolonged
    admit(breaker, 30.0)
    breaker.settle(31.0, old[1], Outcome.SUCCESS)
    assert breaker.state is HALF_OPEN  # not closed
    breaker.settle(31.0, old[2], Outcome.FAILURE)
    assert breaker.state is HALF_OPEN  # not reopened


@pytest.mark.fault(9)
def test_reading_changes_nothing_and_time_that_goes_back_stands_still() -> None:
    breaker = trip(Breaker(), now=100.0)
    before = breaker.snapshot()
    for now in (0.0, 130.0, 1e9):
        breaker.peek(now)
        assert (breaker.state, breaker.statistics().open_until) == (OPEN, 130.0)
    assert (repr(breaker), breaker.snapshot()) == (repr(breaker), before)
    assert breaker.acquire(50.0) == Reject("open", 30.0)
    assert isinstance(breaker.acquire(130.0), Admit)


@pytest.mark.fault(10)
def test_rejected_calls_dilute_no_rate() -> None:
    breaker = trip(Breaker(BreakerOptions(rate=RateRule())))
    for _ in range(1_000):
        breaker.acquire(1.0)
    count = breaker.statistics()
    assert (count.admitted, count.failures, count.rejected) == (5, 5, 1_000)
    assert count.window == Counts()


@pytest.mark.fault(11)
def test_a_cancelled_probe_proves_nothing_and_is_recorded() -> None:
    breaker = trip(Breaker(BreakerOptions(probes=1, successes=1)))
    breaker.settle(31.0, admit(breaker, 30.0), Outcome.NEUTRAL)
    assert breaker.state is HALF_OPEN
    assert (breaker.statistics().neutral, breaker.statistics().probes) == (1, 0)
    assert breaker.settle(32.0, admit(breaker, 31.0), Outcome.SUCCESS) is not None
