"""Laws of the limit on calls to one server that is found by trying (machines.adaptive)."""

from __future__ import annotations

import heapq
import pickle
from collections import deque
from itertools import product
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from sark_trio.machines import adaptive
from sark_trio.machines.adaptive import (
    ROUND_MIN,
    AdaptiveConcurrency,
    Admitted,
    Fault,
    Refused,
    Signal,
)
from tests.models.adaptive import EVENTS, AdaptiveModel, Crowd
from tests.support.traces import traces

OPTIONS = st.builds(
    lambda low, more, **rest: AdaptiveConcurrency(limit_min=low, limit_max=low + more, **rest),
    st.integers(1, 4),
    st.integers(0, 12),
    limit_start=st.integers(1, 20),
    keep_percent=st.sampled_from([1, 50, 70, 95]),
    slow_ratio=st.sampled_from([None, 1.5, 2.0]),
    waiters_max=st.integers(0, 6),
)
#: Multiples of 1/64: sums of floats are exact. The clock may go back.
STEP = st.tuples(st.sampled_from(EVENTS), st.integers(0, 20), st.integers(-32, 256))
STEPS = traces(STEP, most=120)
Step = tuple[str, int, int]


def crowd(options: AdaptiveConcurrency) -> Crowd:
    return Crowd(adaptive.AdaptiveLimiter(options))


def play(crowd: Crowd, steps: list[Step]) -> None:
    for event, pick, dt in steps:
        crowd.do(event, pick, dt / 64)
        crowd.machine.check_invariants()


@pytest.mark.law("L9")
@given(OPTIONS, STEPS)
def test_l09_no_call_goes_out_beyond_the_limit_and_the_limit_keeps_its_bounds(
    options: AdaptiveConcurrency, steps: list[Step]
) -> None:
    """No call is let out while as many are out as the limit says; the limit is within bounds."""
    calls = crowd(options)
    for event, pick, dt in steps:
        let = len(calls.let)
        calls.do(event, pick, dt / 64)
        assert options.limit_min <= calls.machine.limit <= options.limit_max
        assert len(calls.let) == let or len(calls.out) <= calls.machine.limit
        assert calls.machine.statistics().out == len(calls.out)


@pytest.mark.law("L10")
@given(OPTIONS, STEPS)
def test_l10_nobody_waits_for_what_is_free_and_nobody_is_overtaken(
    options: AdaptiveConcurrency, steps: list[Step]
) -> None:
    """Calls go out in the order in which they came, and none waits while there is room."""
    calls = crowd(options)
    for event, pick, dt in steps:
        got = calls.do(event, pick, dt / 64)
        assert calls.let == sorted(calls.let)
        assert not calls.line or len(calls.out) >= calls.machine.limit
        assert len(calls.line) <= options.waiters_max
        if isinstance(got, Refused):
            assert got == Refused(calls.machine.limit, options.waiters_max)


@pytest.mark.law("L11")
@given(OPTIONS, STEPS)
def test_l11_each_ticket_ends_once_and_no_event_raises(
    options: AdaptiveConcurrency, steps: list[Step]
) -> None:
    """Whoever is let out ends once; what ended, or never was, is a fault and changes nothing."""
    calls = crowd(options)
    for event, pick, dt in steps:
        ended = set(calls.let) - set(calls.out)
        calls.do(event, pick, dt / 64)
        for ticket in (*list(ended)[:2], 0, -1, 10**9):
            before = calls.machine.statistics()
            assert calls.machine.done(calls.now, ticket, Signal.DROPPED) == Fault("unknown_ticket")
            assert calls.machine.statistics() == before
    while calls.out:
        calls.do("ignore")
    now = calls.machine.statistics()
    assert (now.out, now.waiting) == (0, 0)
    assert now.admitted == len(calls.let) == len(set(calls.let))
    assert now.refused == calls.refused


@pytest.mark.law("L12")
@given(OPTIONS, STEPS, st.integers(1, 20))
def test_l12_a_crowd_that_fails_together_cuts_once(
    options: AdaptiveConcurrency, steps: list[Step], wants: int
) -> None:
    """However many fail of those let out under one limit, it is cut once, by its share."""
    calls = crowd(evolve(options, waiters_max=0))
    play(calls, steps)
    for _ in range(wants):
        calls.do("want")
    before, cuts = calls.machine.limit, calls.machine.statistics().cuts
    while calls.out:
        calls.do("drop")
    after = calls.machine.limit
    assert calls.machine.statistics().cuts <= cuts + 1
    assert after in {before, max(options.limit_min, before * options.keep_percent // 100)}
    assert isinstance(calls.do("want"), Admitted)
    calls.do("drop")
    assert calls.machine.limit == max(options.limit_min, after * options.keep_percent // 100)
    assert calls.machine.limit < after or after == options.limit_min


def rounds(calls: Crowd, count: int, took_s: float, at_once: int = 10**6) -> list[int]:
    """So many rounds of answers, each after *took_s*; the limit after each of them."""
    limits = []
    for _ in range(count):
        left = max(calls.machine.limit, ROUND_MIN)
        while left:
            while len(calls.out) < min(calls.machine.limit, at_once, left):
                assert isinstance(calls.do("want"), Admitted)
            for number in range(len(calls.out)):
                calls.do("answer", dt=0.0 if number else took_s)
                left -= 1
        limits.append(calls.machine.limit)
    return limits


@pytest.mark.law("L13")
@given(st.integers(2, 40), st.sampled_from([1.5, 2.0, None]), st.floats(0.5, 8.0))
def test_l13_a_round_whose_fastest_is_slow_cuts(
    start: int, ratio: float | None, times: float
) -> None:
    """The limit is cut where even the fastest of a round took too many times as long as ever."""
    options = AdaptiveConcurrency(limit_start=start, slow_ratio=ratio)
    calls = crowd(options)
    # Nobody but a full crowd: nothing grows meanwhile.
    assert rounds(calls, 1, 1.0, at_once=1) == [start]
    (after,) = rounds(calls, 1, times, at_once=1)
    slow = ratio is not None and times > ratio * min(1.0, times)
    assert after == (max(1, start * 70 // 100) if slow else start)


@pytest.mark.law("L13")
@given(st.integers(2, 40), st.integers(0, 9))
def test_l13_slow_tools_among_fast_ones_are_no_congestion(start: int, place: int) -> None:
    """One answer as fast as ever shows that nothing waits over there, however slow the others."""
    calls = crowd(AdaptiveConcurrency(limit_start=start))
    rounds(calls, 1, 1.0, at_once=1)
    for number in range(max(start, ROUND_MIN)):
        calls.do("want")
        calls.do("answer", dt=1.0 if number == place else 60.0)
    assert calls.machine.limit == start
    assert calls.machine.statistics().cuts == 0


@pytest.mark.law("L14")
@given(OPTIONS, STEPS, st.sampled_from([0.0, 1 / 64, 1.0, 1024.0]))
@example(AdaptiveConcurrency(limit_max=16, slow_ratio=1.5), [("want", 0, 0)], 1024.0)
def test_l14_from_wherever_it_was_driven_it_comes_back(
    options: AdaptiveConcurrency, steps: list[Step], took_s: float
) -> None:
    """Once answers come again, however long they now take, the limit grows to its largest."""
    calls = crowd(options)
    play(calls, steps)
    while calls.out or calls.line:
        calls.do("leave")
        calls.do("ignore")
    calls.now += 10_000.0  # the clock may have gone back; it has caught up
    # Cuts down to the least limit, one round there, and then one more call a round.
    cuts = limit = 0
    limit = options.limit_max
    while limit > options.limit_min:
        limit, cuts = max(options.limit_min, limit * options.keep_percent // 100), cuts + 1
    span = options.limit_max - options.limit_min
    assert rounds(calls, cuts + span + 3, took_s)[-1] == options.limit_max


@pytest.mark.law("L15")
@given(OPTIONS, STEPS, st.integers(1, 10), st.integers(1, 30))
def test_l15_it_grows_only_where_it_is_used_up_and_slowly(
    options: AdaptiveConcurrency, steps: list[Step], at_once: int, times: int
) -> None:
    """A limit that no crowd reaches says nothing: it stays; one that is reached grows by one."""
    calls = crowd(options)
    for event, pick, dt in steps:
        before = calls.machine.limit
        calls.do(event, pick, dt / 64)
        assert calls.machine.limit <= before + 1
    while calls.out or calls.line:
        calls.do("leave")
        calls.do("ignore")
    # A cut begins a round: what was answered in the last one is forgotten.
    calls.do("want")
    calls.do("drop")
    before = calls.machine.limit
    found = rounds(calls, times, 0.0, at_once=min(at_once, max(1, before - 1)))
    assert before == 1 or found == [before] * times


def settled(capacity: int, options: AdaptiveConcurrency) -> list[int]:
    """Limits of the last rounds against a server that does so many at once, each in a second."""
    machine, free = adaptive.AdaptiveLimiter(options), [0.0] * capacity
    ends: list[tuple[float, int]] = []
    now, limits = 0.0, []
    for number in range(60_000 if capacity > 10 else 8_000):
        while len(ends) < machine.limit:
            got = machine.want(now)
            assert isinstance(got, Admitted)
            end = max(now, heapq.heappop(free)) + 1.0
            heapq.heappush(free, end)
            heapq.heappush(ends, (end, got.ticket))
        now, ticket = heapq.heappop(ends)
        machine.done(now, ticket, Signal.ANSWERED)
        if number > (30_000 if capacity > 10 else 4_000):
            limits.append(machine.limit)
    return limits


@pytest.mark.law("L16")
@pytest.mark.parametrize("capacity", [1, 3, 8, 20])
def test_l16_it_finds_what_a_server_can_bear(capacity: int) -> None:
    """Where c calls at once are served, the limit ends within (ratio + 1) * c + 1 and 70 % of it.

    With n calls there the fastest takes n // c times as long as one alone, so that what is more
    than twice as long shows at 3 c calls, and to be seen in a whole round it takes one more.
    """
    found = settled(capacity, AdaptiveConcurrency(limit_max=200))
    assert max(found) <= 3 * capacity + 1
    assert min(found) >= 3 * capacity * 70 // 100


@pytest.mark.law("L17")
@given(OPTIONS, STEPS)
def test_l17_it_does_what_the_whole_history_says(
    options: AdaptiveConcurrency, steps: list[Step]
) -> None:
    """Every program gets the answers of a model that reads all of history anew each time."""
    real, naive = crowd(options), Crowd(AdaptiveModel(options))
    for event, pick, dt in steps:
        expected = naive.do(event, pick, dt / 64)
        assert real.do(event, pick, dt / 64) == expected
        real.machine.check_invariants()
        limit, out = naive.machine.present()
        assert (real.machine.limit, sorted(real.out)) == (limit, sorted(out))


@pytest.mark.law("L17")
@given(OPTIONS, STEPS, st.integers(0, 1000))
def test_l17_time_has_no_origin_and_does_not_go_back(
    options: AdaptiveConcurrency, steps: list[Step], later: int
) -> None:
    """A translation in time changes nothing; a time before the last one is the last one."""
    real, moved = crowd(options), crowd(options)
    latest = 0.0
    for event, pick, dt in steps:
        expected = real.do(event, pick, dt / 64)
        latest = max(latest, real.now)
        moved.now = latest + later
        assert moved.do(event, pick) == expected


@pytest.mark.law("L17")
def test_l17_every_reachable_state_of_a_small_one_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls at most, one in line, rounds of two: model and machine agree in every state."""
    monkeypatch.setattr(adaptive, "ROUND_MIN", 2)
    options = AdaptiveConcurrency(
        limit_max=2, limit_start=1, keep_percent=50, slow_ratio=1.5, waiters_max=1
    )
    # Written down, so that a search which stops early does not pass for a complete one.
    assert explore(options, times=(0.0, 1.0, 2.0)) == (888, 16_551)


def explore(options: AdaptiveConcurrency, times: tuple[float, ...]) -> tuple[int, int]:
    """Every state in which no call is out for longer than *times*; how many, and steps to them."""
    start = Crowd(adaptive.AdaptiveLimiter(options)), Crowd(AdaptiveModel(options, round_min=2))
    seen, steps = {canonical(start[0])}, 0
    frontier = deque([pickle.dumps(start)])
    while frontier:
        here = frontier.popleft()
        now, _ = pickle.loads(here)
        for event in dict.fromkeys(EVENTS):
            whose = {"leave": now.line, "want": [0], "forge": [0]}.get(event, now.out)
            for pick, dt in product(range(len(whose)), times):
                pair = real, naive = pickle.loads(here)
                assert real.do(event, pick, dt) == naive.do(event, pick, dt)
                real.machine.check_invariants()
                assert real.machine.limit == naive.machine.present()[0]
                steps += 1
                state = canonical(real)
                if state not in seen and all(age <= max(times) for age, _ in state[-1]):
                    seen.add(state)
                    frontier.append(pickle.dumps(pair))
    return len(seen), steps


def canonical(calls: Crowd) -> tuple[Any, ...]:
    """The state but for names and the time of day."""
    it = calls.machine
    out = sorted((it._now - one.since, one.epoch == it._cuts) for one in it._out.values())
    counts = (it.limit, len(calls.line), it._answers, it._fastest_s, it._used_up, it._ever_s)
    return (*counts, tuple(out))
