"""What the response cache holds: entries, as many and as large as its limits let it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar, final

from attrs import define, field, frozen

from sark_trio.machines.caching import CacheKey, CacheOptions

__all__ = ["Entry", "Shelf"]

V = TypeVar("V")


@final
@frozen(eq=False)
class Entry(Generic[V]):
    """A value, and for how long it is fresh: each has a time of its own."""

    key: CacheKey
    value: V
    size_bytes: int
    #: Of the fetch that it came from: of two answers the later fetch has the newer one.
    flight: int
    received_at: float
    ends_at: float


@final
@define(eq=False)
class Shelf(Generic[V]):
    """Entries by key, the least recently used first."""

    options: CacheOptions
    entries: OrderedDict[CacheKey, Entry[V]] = field(factory=OrderedDict, init=False)
    bytes: int = field(default=0, init=False)
    evictions: int = field(default=0, init=False)

    def put(self, entry: Entry[V]) -> bool:
        """Keep *entry*, at the cost of others if need be; not if its place is taken.

        One that is larger than the whole shelf clears nothing.
        """
        fits = 0 <= entry.size_bytes <= self.options.bytes_max and self.options.entries_max > 0
        if not fits or entry.key in self.entries:
            return False
        self.entries[entry.key] = entry
        self.bytes += entry.size_bytes
        while len(self.entries) > self.options.entries_max or self.bytes > self.options.bytes_max:
            self.drop(next(iter(self.entries)))
            self.evictions += 1
        return True

    def touch(self, key: CacheKey) -> None:
        """The entry of *key* was used."""
        self.entries.move_to_end(key)

    def drop(self, key: CacheKey) -> None:
        """Forget the entry of *key*."""
        self.bytes -= self.entries.pop(key).size_bytes

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert len(self.entries) <= self.options.entries_max
        assert self.bytes == sum(entry.size_bytes for entry in self.entries.values())
        assert self.bytes <= self.options.bytes_max
        assert all(entry.key == key for key, entry in self.entries.items())
