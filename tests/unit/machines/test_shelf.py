"""What the cache holds, by example; the bounds are a law."""

from __future__ import annotations

from sark_trio.machines.caching import CacheKey, CacheOptions
from sark_trio.machines.shelf import Entry, Shelf


def entry(number: int, size_bytes: int = 1) -> Entry[str]:
    key = CacheKey("db", "era", "tools/list", number, "ann")
    return Entry(key, str(number), size_bytes, number, 0.0, 1.0)


def test_the_least_recently_used_make_room() -> None:
    shelf = Shelf[str](CacheOptions(entries_max=3, bytes_max=10))
    entries = [entry(0, 4), entry(1, 4), entry(2, 2), entry(3, 5)]
    assert [shelf.put(each) for each in entries[:3]] == [True] * 3
    shelf.touch(entries[0].key)
    assert shelf.put(entries[3]) is True
    assert [each.value for each in shelf.entries.values()] == ["0", "3"]
    assert (shelf.bytes, shelf.evictions) == (9, 2)
    shelf.check_invariants()


def test_a_place_that_is_taken_stays_taken() -> None:
    shelf = Shelf[str](CacheOptions())
    assert shelf.put(entry(1)) is True
    assert shelf.put(entry(1)) is False
    shelf.drop(entry(1).key)
    assert shelf.bytes == 0
    assert shelf.put(entry(1)) is True


def test_what_is_larger_than_the_shelf_clears_nothing() -> None:
    shelf = Shelf[str](CacheOptions(bytes_max=10))
    shelf.put(entry(1, 10))
    assert shelf.put(entry(3, 0)) is True  # nothing takes no room
    shelf.drop(entry(3).key)
    assert shelf.put(entry(2, 11)) is False
    assert shelf.put(entry(2, -1)) is False
    assert len(shelf.entries) == 1
