"""Laws of the limits that each caller of a gateway has."""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.machines.limiter import ConcurrencyLimiter, Fault, RateLimiter, RateOptions
from tests.models.limiter import Buckets
from tests.support.traces import traces

_options = st.builds(
    RateOptions, per_s=st.sampled_from([0.5, 1.0, 3.0, 64.0, 1000.0]), burst=st.integers(1, 6)
)
#: Steps of 1/1024 s: exact as floats, and in nanoseconds to within one.
_steps = traces(st.tuples(st.integers(-200, 3_000), st.sampled_from("abcd")), most=60)


def times(steps: list[tuple[int, str]]) -> list[tuple[float, str]]:
    """Absolute times, some of them before the last one."""
    at, found = 0, []
    for step, key in steps:
        at = max(0, at + step)
        found.append((at / 1024, key))
    return found


@pytest.mark.security(34)
@pytest.mark.law("L1")
@given(_options, _steps)
def test_l01_no_interval_lets_more_through_than_burst_and_rate(
    options: RateOptions, steps: list[tuple[int, str]]
) -> None:
    """In any interval of s seconds a key is let through at most burst + rate * s times."""
    limiter, passed, latest = RateLimiter(options), defaultdict(list), 0.0
    for now, key in times(steps):
        latest = max(latest, now)
        if limiter.take(now, key).allowed:
            passed[key].append(latest)
        limiter.check_invariants()
    for moments in passed.values():
        for first, begin in enumerate(moments):
            for last, end in enumerate(moments[first:], 1):
                assert last <= options.burst + options.per_s * (end - begin) + 1e-6


@pytest.mark.law("L2")
@given(_options, st.integers(0, 10**6), st.integers(0, 3_000))
def test_l02_whoever_waits_as_told_is_let_through(
    options: RateOptions, start: int, early_ms: int
) -> None:
    """Waiting the seconds that a refusal names is enough; a millisecond less is not."""
    limiter, now = RateLimiter(options), start / 64
    while (answer := limiter.take(now, "a")).allowed:
        assert answer.retry_after_s == 0
    assert answer.retry_after_s > 0
    too_early = now + answer.retry_after_s - 0.001 - early_ms / 1000
    assert not limiter.take(max(now, too_early), "a").allowed
    assert limiter.take(now + answer.retry_after_s, "a").allowed


@pytest.mark.law("L3")
@given(_options, _steps)
def test_l03_keys_do_not_know_of_each_other(
    options: RateOptions, steps: list[tuple[int, str]]
) -> None:
    """What one key is answered is what it would be answered alone."""
    together, alone = RateLimiter(options), {key: RateLimiter(options) for key in "abcd"}
    latest = 0.0
    for now, key in times(steps):
        latest = max(latest, now)
        assert together.take(now, key) == alone[key].take(latest, key)


@pytest.mark.law("L4")
@given(_options, _steps, st.integers(1, 4))
def test_l04_forgetting_changes_no_answer(
    options: RateOptions, steps: list[tuple[int, str]], keys_max: int
) -> None:
    """With few places for keys, every answer but a shared one is that of the naive model."""
    limiter = RateLimiter(options, keys_max=keys_max)
    model = Buckets(interval=Fraction(options.interval_ns, 10**9), burst=options.burst)
    for now, key in times(steps):
        crowded = limiter.statistics().crowded
        allowed = limiter.take(now, key).allowed
        limiter.check_invariants()
        if limiter.statistics().crowded > crowded:
            return  # from here on that key's own bucket and the shared one differ
        # The machine's clock has whole nanoseconds.
        assert allowed is model.take(Fraction(round(now * 10**9), 10**9), key)


@pytest.mark.law("L5")
@given(_options, st.integers(1, 40))
def test_l05_a_refusal_costs_nothing(options: RateOptions, times_refused: int) -> None:
    """However often a key is refused, it waits no longer."""
    limiter = RateLimiter(options)
    while (first := limiter.take(1.0, "a")).allowed:
        pass
    for _ in range(times_refused):
        assert limiter.take(1.0, "a") == first


@pytest.mark.law("L6")
@given(_options, _steps, st.integers(0, 1000))
def test_l06_only_differences_of_times_count_and_none_is_negative(
    options: RateOptions, steps: list[tuple[int, str]], later: int
) -> None:
    """A translation in time changes nothing; a time before the last one is the last one."""
    plain, moved, latest = RateLimiter(options), RateLimiter(options), 0.0
    for now, key in times(steps):
        latest = max(latest, now)
        expected, found = plain.take(now, key), moved.take(latest + later, key)
        assert (found.allowed, found.remaining) == (expected.allowed, expected.remaining)


@pytest.mark.law("L7")
@given(_options, st.integers(1, 5), st.integers(2, 30))
def test_l07_a_crowd_of_new_names_starves_only_itself(
    options: RateOptions, keys_max: int, crowd: int
) -> None:
    """Where all places are in use, newcomers share one bucket, and known keys keep their own."""
    limiter = RateLimiter(options, keys_max=keys_max)
    known = [f"known{number}" for number in range(keys_max)]
    for key in known:
        assert limiter.take(5.0, key).allowed
    passed = sum(limiter.take(5.0, f"new{number}").allowed for number in range(crowd))
    assert passed == min(crowd, options.burst)
    assert limiter.statistics().keys == keys_max
    for key in known:
        expected = options.burst - 1
        assert sum(limiter.take(5.0, key).allowed for _ in range(expected + 3)) == expected
    limiter.check_invariants()


@pytest.mark.security(34)
@pytest.mark.law("L8")
@given(
    st.integers(1, 4),
    traces(st.tuples(st.booleans(), st.sampled_from("abc")), most=80),
)
def test_l08_nobody_has_more_at_once_than_the_limit(
    limit: int, events: list[tuple[bool, str]]
) -> None:
    """A key holds at most the limit; a release frees its own key, and one too many nothing."""
    limiter, held = ConcurrencyLimiter(limit), Counter[str]()
    for acquires, key in events:
        if acquires:
            assert limiter.acquire(key) is (held[key] < limit)
            held[key] += held[key] < limit
        else:
            assert limiter.release(key) == (None if held[key] else Fault("not_held"))
            held[key] -= held[key] > 0
        limiter.check_invariants()
        statistics = limiter.statistics()
        assert statistics.held == held.total()
        assert statistics.keys == sum(count > 0 for count in held.values())
