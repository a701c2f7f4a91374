"""A server's hints about its answers, and keys."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.caching import ANY, CacheKey, CacheStatistics, Partition, scope_of, ttl_of

KEY = CacheKey("db", "2026-07-28", "tools/list", "{}", "ann")


@pytest.mark.parametrize(
    ("ttl_ms", "ttl_s"),
    [
        (300_000, 300.0),
        (1, 0.001),
        (0, 0.0),
        (-1, 0.0),
        (86_400_001, 86_400.0),
        (10**400, 86_400.0),
        (True, 0.0),
        (1000.0, 0.0),
        ("1000", 0.0),
        ([1000], 0.0),
        (None, 0.0),
    ],
)
def test_only_a_positive_whole_number_is_a_ttl(ttl_ms: Any, ttl_s: float) -> None:
    assert ttl_of(ttl_ms) == ttl_s


@pytest.mark.parametrize(("absent_s", "ttl_s"), [(300.0, 300.0), (-1.0, 0.0), (1e9, 86_400.0)])
def test_where_no_hint_can_be_the_operator_has_one(absent_s: float, ttl_s: float) -> None:
    assert ttl_of(None, absent_s=absent_s) == ttl_s
    assert ttl_of(0, absent_s=absent_s) == ttl_of("x", absent_s=absent_s) == 0.0


def test_only_the_word_is_public() -> None:
    assert [scope_of(word) for word in ("public", "private")] == ["public", "private"]
    assert {scope_of(word) for word in (None, "PUBLIC", True, ["public"], "")} == {"unknown"}


def test_a_key_sees_itself_and_if_asked_what_is_shared() -> None:
    assert KEY.visible(shared=False) == (KEY,)
    assert KEY.visible(shared=True) == (KEY, KEY._replace(partition=Partition.SHARED))


def test_a_pattern_is_a_key_with_holes() -> None:
    assert KEY.matches(CacheKey(ANY, ANY, ANY, ANY, ANY))
    assert KEY.matches(CacheKey("db", ANY, "tools/list", ANY, ANY))
    assert not KEY.matches(CacheKey("db", ANY, "tools/call", ANY, ANY))
    assert not KEY.matches(CacheKey(ANY, ANY, ANY, None, ANY))


def test_the_hit_rate_of_nothing_is_nothing() -> None:
    blank = dict.fromkeys([field.name for field in CacheStatistics.__attrs_attrs__], 0)
    assert CacheStatistics(**blank).hit_rate == 0.0
    assert CacheStatistics(**{**blank, "hits": 4, "misses": 1}).hit_rate == 0.8
