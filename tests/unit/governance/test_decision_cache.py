from __future__ import annotations

import pytest

from sark_trio.governance.decision import Decision
from sark_trio.governance.decision_cache import CacheStatistics, DecisionCache

YES = Decision(allow=True, revision="r")


def test_an_allow_lives_five_seconds_at_most() -> None:
    cache = DecisionCache()
    assert cache.put(10.0, b"k", YES, ttl_s=300, size=1) == 15.0
    assert cache.get(14.999, b"k", "r") == (YES, 15.0)
    assert cache.get(15.0, b"k", "r") is None
    assert cache.statistics() == CacheStatistics(entries=0, hits=1, misses=1, flushes=0)


def test_a_clock_that_runs_back_revives_nothing() -> None:
    cache = DecisionCache()
    cache.put(10.0, b"k", YES, ttl_s=1, size=1)
    assert cache.get(11.0, b"k", "r") is None
    cache.put(0.0, b"k", YES, ttl_s=1, size=1)
    assert cache.get(0.5, b"k", "r") is None


def test_a_clock_that_runs_back_makes_nothing_younger() -> None:
    cache = DecisionCache()
    for key in (b"a", b"b"):
        cache.put(0.0, key, YES, ttl_s=5, size=1)
    assert cache.get(6.0, b"a", "r") is None
    assert cache.get(1.0, b"b", "r") is None


def test_of_two_answers_the_later_counts_though_it_lives_shorter() -> None:
    cache = DecisionCache()
    for later in (YES, Decision(allow=False, revision="r")):
        cache.put(0.0, b"k", YES, ttl_s=5, size=1)
        cache.put(0.0, b"k", later, ttl_s=0, size=1)
        assert cache.get(0.0, b"k", "r") is None


@pytest.mark.fault(22)
def test_denials_and_dead_or_large_entries_are_not_kept() -> None:
    cache = DecisionCache()
    cache.put(0.0, b"a", Decision(allow=False, revision="r"), ttl_s=5, size=1)
    cache.put(0.0, b"b", YES, ttl_s=0, size=1)
    cache.put(0.0, b"c", YES, ttl_s=5, size=16_385)
    assert cache.statistics().entries == 0
    cache.put(0.0, b"d", YES, ttl_s=5, size=16_384)
    assert cache.statistics().entries == 1


def test_a_new_revision_empties_it() -> None:
    cache = DecisionCache()
    cache.put(0.0, b"k", YES, ttl_s=5, size=1)
    assert cache.get(0.0, b"k", "other") is None
    assert cache.get(0.0, b"k", "r") is None
    assert cache.statistics().flushes == 1


def test_an_epoch_ends_whenever_the_policy_may_be_another() -> None:
    cache = DecisionCache()
    epochs = [cache.epoch]
    cache.get(0.0, b"k", "r")  # the first revision is news, too
    epochs.append(cache.epoch)
    cache.put(0.0, b"k", YES, ttl_s=5, size=1)
    cache.get(0.0, b"k", "r")
    epochs.append(cache.epoch)
    cache.get(0.0, b"k", "other")
    epochs.append(cache.epoch)
    cache.flush()
    epochs.append(cache.epoch)
    assert epochs == [0, 1, 1, 2, 3]


def test_the_least_recently_used_goes_first() -> None:
    cache = DecisionCache(entries_max=2)
    for key in (b"a", b"b"):
        cache.put(0.0, key, YES, ttl_s=5, size=1)
    cache.get(0.0, b"a", "r")
    cache.put(0.0, b"c", YES, ttl_s=5, size=1)
    assert [key for key in (b"a", b"b", b"c") if cache.get(0.0, key, "r")] == [b"a", b"c"]
    cache.check_invariants()


def test_an_empty_cache_keeps_nothing() -> None:
    for cache in (DecisionCache(entries_max=0), DecisionCache(ttl_max_s=0)):
        cache.put(0.0, b"k", YES, ttl_s=5, size=1)
        assert cache.get(0.0, b"k", "r") is None
        cache.check_invariants()


@pytest.mark.parametrize("options", [{"entries_max": -1}, {"ttl_max_s": -1}, {"ttl_max_s": 61}])
def test_options_are_checked(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max"):
        DecisionCache(**options)


def test_repr_is_one_line() -> None:
    assert repr(DecisionCache()) == "DecisionCache(entries_max=4096, ttl_max_s=5.0)"
