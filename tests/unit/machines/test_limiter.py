"""What the laws of the limits do not say: options, counters, one line to read."""

from __future__ import annotations

import math

import pytest

from sark_trio.machines.limiter import ConcurrencyLimiter, RateLimiter, RateOptions


@pytest.mark.parametrize(
    "options",
    [{"per_s": 0}, {"per_s": math.inf}, {"per_s": math.nan}, {"burst": 0}, {"burst": 10**7}],
)
def test_limits_that_are_none_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        RateOptions(**options)  # type: ignore[arg-type]


def test_options_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError):
        RateOptions(per_s="10")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        RateLimiter(keys_max=0)
    with pytest.raises(ValueError):
        ConcurrencyLimiter(0)


def test_what_is_left_is_told() -> None:
    limiter = RateLimiter(RateOptions(per_s=2, burst=3))
    assert limiter.options.window_s == 1.5
    answers = [limiter.take(10.0, "a") for _ in range(4)]
    assert [answer.remaining for answer in answers] == [2, 1, 0, 0]
    assert [answer.reset_s for answer in answers] == [0.5, 1.0, 1.5, 1.5]
    assert answers[3].retry_after_s == 0.500001  # a microsecond more than the bucket needs
    later = limiter.take(10.3, "a")
    assert (later.allowed, later.remaining) == (False, 0)  # 0.6 of one are none
    assert limiter.next_deadline() is None


def test_counters_and_one_line() -> None:
    limiter = RateLimiter(RateOptions(per_s=1, burst=1), keys_max=1)
    for key in ("a", "a", "b", "b"):
        limiter.take(0.0, key)
    found = limiter.statistics()
    assert (found.keys, found.allowed, found.refused, found.crowded) == (1, 2, 2, 2)
    assert repr(limiter) == "<RateLimiter 1 keys, 2 refused>"
    # A second later the known key's bucket is full: it makes room for the newcomer.
    assert limiter.take(1.0, "b").allowed
    assert limiter.statistics().keys == 1


def test_refusals_are_no_requests_that_went_on() -> None:
    limiter = RateLimiter(RateOptions(per_s=1, burst=1))
    for _ in range(3):
        limiter.take(0.0, "a")
    found = limiter.statistics()
    assert (found.allowed, found.refused) == (1, 2)


def test_the_longest_unused_key_makes_room_the_moment_its_bucket_is_full() -> None:
    limiter = RateLimiter(RateOptions(per_s=1, burst=1), keys_max=2)
    for now, key in ((0.0, "a"), (0.5, "b"), (1.0, "a")):
        assert limiter.take(now, key).allowed
    # "b" was used least recently, and is full at 1.5: "c" gets its place, and no shared bucket.
    assert limiter.take(1.5, "c").allowed
    assert limiter.statistics().crowded == 0
    assert not limiter.take(1.5, "a").allowed


def test_a_time_that_is_none_is_the_last_one() -> None:
    limiter = RateLimiter(RateOptions(per_s=1, burst=1))
    assert limiter.take(5.0, "a").allowed
    for now in (math.nan, math.inf, 2.0**60):
        assert not limiter.take(now, "a").allowed
    limiter.check_invariants()


def test_how_many_at_once() -> None:
    limiter = ConcurrencyLimiter(2)
    assert [limiter.acquire("a") for _ in range(3)] == [True, True, False]
    assert limiter.acquire("b")
    assert repr(limiter) == "<ConcurrencyLimiter 3 held by 2 keys>"
    assert limiter.statistics().refused == 1
    assert limiter.release("a") is None
    assert limiter.acquire("a")
    assert limiter.next_deadline() is None
