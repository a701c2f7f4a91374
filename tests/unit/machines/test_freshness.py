"""The response cache, by example."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.caching import Partition
from sark_trio.machines.freshness import (
    CacheFull,
    CacheKey,
    CacheOptions,
    Cancel,
    Failed,
    Fault,
    Follow,
    Hit,
    Invalidated,
    Lead,
    ResponseCache,
    Serve,
)

ANN = CacheKey("db", "2026-07-28", "tools/list", "{}", "ann")
BOB = ANN._replace(partition="bob")


def lead(cache: ResponseCache[str], now: float, key: CacheKey = ANN, **how: Any) -> int:
    got = cache.lookup(now, key, 0.0, **how)
    assert isinstance(got, Lead)
    cache.check_invariants()
    return got.flight


def fill(
    cache: ResponseCache[str], now: float, value: str, key: CacheKey = ANN, **how: Any
) -> Serve[str]:
    flight = lead(cache, now, key, shared="shared" in how)
    options: dict[str, Any] = {"size_bytes": 1, "ttl_s": 10.0, **how}
    got = cache.store(now, flight, value, **options)
    assert isinstance(got, Serve)
    cache.check_invariants()
    return got


def test_the_way_round() -> None:
    cache = ResponseCache[str]()
    assert cache.lookup(0.0, ANN, 0.0) == Lead(1, 2)
    assert cache.lookup(0.5, ANN, 0.0) == Follow(1, 3)
    assert repr(cache) == "<ResponseCache entries=0 bytes=0 flights=1 waiting=2>"
    assert cache.store(1.0, 1, "v", size_bytes=7, ttl_s=10.0) == Serve((2, 3), "v", kept=True)
    assert cache.lookup(5.0, ANN, 0.0) == Hit("v", 4.0)
    assert isinstance(cache.lookup(11.0, ANN, 0.999), Lead)
    now = cache.statistics()
    assert (now.entries, now.bytes, now.flights, now.waiting) == (1, 7, 1, 1)
    assert (now.hits, now.misses, now.joined, now.refreshes) == (1, 2, 1, 0)
    assert now.hit_rate == 0.25


def test_what_nobody_called_public_is_private() -> None:
    cache = ResponseCache[str]()
    flight = lead(cache, 0.0, shared=True)
    cache.store(0.0, flight, "v", size_bytes=1, ttl_s=10.0)
    assert isinstance(cache.lookup(1.0, BOB, 0.0, shared=True), Lead)


def test_a_value_that_stands_in_is_not_kept_anew() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "v")
    answer = cache.fail(11.0, lead(cache, 11.0), allow_stale=True)
    assert isinstance(answer, Serve)
    assert (answer.value, answer.stale, answer.kept) == ("v", True, False)


def test_a_fault_names_the_event() -> None:
    cache = ResponseCache[str]()
    faults = [
        cache.store(0.0, 7, "v", size_bytes=1, ttl_s=1.0),
        cache.fail(0.0, 7, allow_stale=True),
        cache.abandon(7, 8),
    ]
    why = "flight 7 is unknown, over, or not waited for"
    assert faults == [Fault(event, why) for event in ("store", "fail", "abandon")]


def test_one_who_goes_does_not_stop_the_others() -> None:
    cache = ResponseCache[str]()
    first, second = cache.lookup(0.0, ANN, 0.0), cache.lookup(0.0, ANN, 0.0)
    assert isinstance(first, Lead)
    assert isinstance(second, Follow)
    assert cache.abandon(first.flight, first.waiter) is None
    assert isinstance(cache.abandon(first.flight, first.waiter), Fault)
    assert cache.abandon(first.flight, second.waiter) == Cancel(first.flight)
    why = f"flight {first.flight} is unknown, over, or not waited for"
    assert cache.store(1.0, first.flight, "v", size_bytes=1, ttl_s=9.0) == Fault("store", why)
    assert cache.fail(1.0, first.flight, allow_stale=True) == Fault("fail", why)
    assert lead(cache, 1.0) != first.flight
    assert cache.statistics().faults == 3


def test_what_does_not_fit_is_handed_on() -> None:
    cache = ResponseCache[str](CacheOptions(bytes_max=10))
    fill(cache, 0.0, "old")
    cache.invalidate()
    assert fill(cache, 0.0, "v", size_bytes=11).kept is False
    assert fill(cache, 0.0, "v", size_bytes=-1).kept is False
    assert fill(cache, 0.0, "v", ttl_s=0.0).kept is False
    assert fill(ResponseCache[str](CacheOptions(entries_max=0)), 0.0, "v").kept is False
    assert fill(cache, 0.0, "v", size_bytes=10).kept is True


def test_an_answer_that_is_not_kept_ends_the_one_before() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "old")
    fill(cache, 20.0, "new", ttl_s=0.0)
    assert cache.fail(20.0, lead(cache, 20.0), allow_stale=True) == Failed((6,))


def test_the_least_recently_used_goes() -> None:
    cache = ResponseCache[str](CacheOptions(entries_max=2))
    keys = [ANN._replace(params=number) for number in range(3)]
    fill(cache, 0.0, "0", keys[0])
    fill(cache, 0.0, "1", keys[1])
    assert isinstance(cache.lookup(1.0, keys[0], 0.0), Hit)
    fill(cache, 1.0, "2", keys[2])
    assert isinstance(cache.lookup(1.0, keys[0], 0.0), Hit)
    assert isinstance(cache.lookup(1.0, keys[1], 0.0), Lead)
    assert cache.statistics().evictions == 1


def test_a_failure_is_told_to_all_and_not_kept() -> None:
    cache = ResponseCache[str]()
    flight = lead(cache, 0.0)
    cache.lookup(0.0, ANN, 0.0)
    assert cache.fail(1.0, flight, allow_stale=True) == Failed((2, 3))
    assert lead(cache, 1.0)


def test_what_is_stale_stands_in_for_five_minutes() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "v")
    flight = lead(cache, 309.0)
    cache.lookup(309.0, ANN, 0.0)
    assert cache.fail(309.5, flight, allow_stale=True) == Serve((4, 5), "v", stale=True)
    assert cache.fail(310.0, lead(cache, 309.9), allow_stale=True) == Failed((7,))
    assert cache.statistics().stale == 2


def test_a_denial_ends_what_was_known() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "v")
    assert cache.fail(9.9, lead(cache, 9.9), allow_stale=False) == Failed((4,))
    assert cache.fail(10.0, lead(cache, 10.0), allow_stale=True) == Failed((6,))


def test_one_refreshes_early_and_the_others_are_served() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "v")
    assert cache.lookup(9.5, ANN, 0.5) == Hit("v", 9.5)
    flight = lead(cache, 9.5)
    assert cache.lookup(9.9, ANN, 0.0) == Hit("v", 9.9)
    assert cache.statistics().refreshes == 1
    assert cache.fail(9.9, flight, allow_stale=True) == Serve((4,), "v")
    assert lead(cache, 9.9)


def test_who_finds_the_waiting_room_full_is_still_served_what_is_fresh() -> None:
    cache = ResponseCache[str](CacheOptions(waiters_max=1))
    fill(cache, 0.0, "v")
    lead(cache, 0.0, BOB)
    assert cache.lookup(9.99, ANN, 0.0) == Hit("v", 9.99)
    assert cache.lookup(10.0, ANN, 0.0) == CacheFull(1)
    assert cache.statistics().refused == 1


@pytest.mark.security(28)
def test_what_is_public_is_shared_if_both_sides_say_so() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "mine")
    assert isinstance(cache.lookup(0.0, BOB, 0.0, shared=True), Lead)
    cache.abandon(3, 4)
    fill(cache, 0.0, "everybody's", BOB, shared=True)
    assert cache.lookup(1.0, BOB, 0.0, shared=True) == Hit("everybody's", 1.0)
    assert isinstance(cache.lookup(1.0, BOB, 0.0), Lead)
    assert cache.lookup(1.0, ANN, 0.0) == Hit("mine", 1.0)
    assert cache.lookup(1.0, ANN, 0.0, shared=True) == Hit("everybody's", 1.0)


def test_public_is_only_a_word_where_the_lookup_was_private() -> None:
    cache = ResponseCache[str]()
    flight = lead(cache, 0.0)
    cache.store(0.0, flight, "mine", size_bytes=1, ttl_s=9.0, shared=True)
    assert isinstance(cache.lookup(0.0, BOB, 0.0, shared=True), Lead)


def test_who_joins_privately_makes_the_fetch_private() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "everybody's", BOB, shared=True)
    flight = lead(cache, 20.0, shared=True)
    assert isinstance(cache.lookup(20.0, ANN, 0.0), Follow)
    assert isinstance(cache.fail(20.0, flight, allow_stale=True), Failed)


def test_of_two_shared_answers_the_later_fetch_counts() -> None:
    cache = ResponseCache[str]()
    early, late = lead(cache, 0.0, ANN, shared=True), lead(cache, 1.0, BOB, shared=True)
    how: dict[str, Any] = {"size_bytes": 1, "ttl_s": 100.0, "shared": True}
    assert cache.store(2.0, late, "new", **how) == Serve((4,), "new", kept=True)
    assert cache.store(3.0, early, "old", **how) == Serve((2,), "old", kept=False)
    assert cache.lookup(4.0, ANN, 0.0, shared=True) == Hit("new", 2.0)


def test_one_of_all_refreshes_what_is_shared() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "v", shared=True)
    assert isinstance(cache.lookup(9.9, ANN, 0.0, shared=True), Lead)
    assert isinstance(cache.lookup(9.9, BOB, 0.0, shared=True), Hit)


def test_an_invalidation_cuts_off_what_was_begun_before() -> None:
    cache = ResponseCache[str]()
    fill(cache, 0.0, "other", ANN._replace(server="fs"))
    fill(cache, 0.0, "old")
    flight = lead(cache, 20.0)
    assert cache.invalidate(server="db", method="tools/list") == Invalidated(1, 1)
    newer = lead(cache, 20.0)
    assert cache.store(21.0, flight, "older", size_bytes=1, ttl_s=60.0).kept is False  # type: ignore[union-attr]
    assert isinstance(cache.lookup(21.0, ANN, 0.0), Follow)
    assert cache.store(22.0, newer, "newer", size_bytes=1, ttl_s=60.0).kept is True  # type: ignore[union-attr]
    assert cache.invalidate(server="db", method="resources/list") == Invalidated(0, 0)
    assert cache.lookup(23.0, ANN, 0.0) == Hit("newer", 1.0)
    assert cache.statistics().invalidations == 2


def test_a_fetch_that_was_cut_off_covers_nothing_up() -> None:
    cache = ResponseCache[str]()
    old = lead(cache, 0.0)
    cache.invalidate(partition="ann")
    fill(cache, 0.0, "v")
    assert cache.fail(1.0, old, allow_stale=True) == Failed((2,))
    older = lead(cache, 9.99)
    cache.invalidate()
    fill(cache, 9.99, "new")
    assert cache.fail(9.99, older, allow_stale=False) == Failed((6,))
    assert cache.lookup(10.0, ANN, 0.0) == Hit("new", pytest.approx(0.01))


def test_a_fetch_that_may_be_shared_is_cut_off_with_what_is_shared() -> None:
    cache = ResponseCache[str]()
    flight = lead(cache, 0.0, shared=True)
    lead(cache, 0.0, BOB)
    assert cache.invalidate(partition=Partition.SHARED) == Invalidated(0, 1)
    assert cache.store(1.0, flight, "v", size_bytes=1, ttl_s=9.0, shared=True).kept is False  # type: ignore[union-attr]


def test_time_clears_what_is_of_no_use() -> None:
    cache = ResponseCache[str](CacheOptions(stale_s=5.0))
    assert cache.next_deadline() is None
    fill(cache, 0.0, "a")
    fill(cache, 1.0, "b", BOB)
    assert cache.next_deadline() == 15.0
    assert cache.tick(14.9) == 0
    assert cache.tick(15.0) == 1
    assert cache.next_deadline() == 16.0


@pytest.mark.parametrize(
    "options",
    [
        {"entries_max": -1},
        {"bytes_max": 1.5},
        {"waiters_max": 0},
        {"stale_s": 301},
        {"early": 0.6},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        CacheOptions(**options)
