"""What may be answered from memory, and who fetches what may not: the cache of responses.

Theory of operation. An *entry* is a value that came in at some moment and is fresh for its own
time from then on. A *flight* is a fetch; those who ask for its key meanwhile wait for it, too,
so that any number of misses is one fetch. The flight belongs to no caller: it ends when its
answer or failure is told, or when the last who waits for it goes away.

- *Who sees what.* A key names its partition, and nothing crosses it. Only a lookup that is
  ``shared`` sees the entries that were stored as shared, besides its own. Of the two the one
  whose fetch began later counts, so nobody reads backwards.
- *Invalidation* drops entries, and cuts the flights under way off from their keys: those who
  wait for them get what they get, it is not kept, and whoever asks from now on is not told
  what was fetched before. Flights are cut off one by one; a generation number per pattern
  would have to be kept for as long as any flight, and patterns are without bound.
- *Failure* may be covered up by an entry that ended not long ago, if the server could not be
  asked. If it answered, or the caller was denied, the entries of that key are dropped: what
  the server disowned is served no more, fresh or stale.
- *Early refresh.* In the last tenth of an entry's life one of those who ask for it is sent to
  fetch it anew, with a probability that rises to one, and the rest are served from it. So a
  popular key is fetched once and never by a herd (after XFetch, Vattani et al., VLDB 2015).

Values are opaque, and must not be changed by those who share them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar, final

from attrs import Factory, define, field

from sark_trio.machines.caching import (
    ANY,
    TTL_S_MAX,
    CacheFull,
    CacheKey,
    CacheOptions,
    CacheStatistics,
    Cancel,
    Failed,
    Fault,
    Follow,
    Hit,
    Invalidated,
    Lead,
    Serve,
    scope_of,
    ttl_of,
)
from sark_trio.machines.deadline import TIME_S_MAX
from sark_trio.machines.shelf import Entry, Shelf

__all__ = [
    "CacheFull",
    "CacheKey",
    "CacheOptions",
    "CacheStatistics",
    "Cancel",
    "Failed",
    "Fault",
    "Follow",
    "Hit",
    "Invalidated",
    "Lead",
    "ResponseCache",
    "Serve",
    "scope_of",
    "ttl_of",
]

V = TypeVar("V")


@define(eq=False)
class _Flight:
    number: int
    key: CacheKey
    shared: bool
    #: In the order in which they came.
    waiters: dict[int, None] = field(factory=dict)
    #: Nothing was invalidated since: its answer may be kept, and be joined.
    current: bool = True
    #: The entry, by its flight, that this one is to replace before it ends.
    refreshes: int | None = None


@final
@define(eq=False, repr=False)
class ResponseCache(Generic[V]):
    """The cache of one gateway; see the module's docstring.

    A ``now`` (monotonic seconds, best of a clock that runs on in suspend) before the last one
    counts as the last one. Every ``Lead`` ends with ``store``, ``fail`` or ``Cancel``.
    """

    options: CacheOptions = field(factory=CacheOptions)
    _shelf: Shelf[V] = field(
        init=False, default=Factory(lambda self: Shelf(self.options), takes_self=True)
    )
    _flights: dict[int, _Flight] = field(factory=dict, init=False)
    #: The current flight of each key that has one.
    _current: dict[CacheKey, _Flight] = field(factory=dict, init=False)
    #: Entries, by their flights, that are being refreshed early.
    _refreshing: set[int] = field(factory=set, init=False)
    _waiting: int = field(default=0, init=False)
    _last_id: int = field(default=0, init=False)
    _now: float = field(default=0.0, init=False)
    _counts: Counter[str] = field(factory=Counter, init=False)

    def lookup(
        self, now: float, key: CacheKey, jitter: float, *, shared: bool = False
    ) -> Hit[V] | Lead | Follow | CacheFull:
        """Ask for the answer to *key*.

        :param jitter: in [0, 1), drawn anew for each lookup: decides about an early refresh.
        :param shared: what was stored as shared may be used, and the answer be stored so.
        """
        self._advance(now)
        flight, entry = self._current.get(key), self._newest(key, shared=shared)
        full = self._waiting >= self.options.waiters_max
        fresh = entry is not None and self._now < entry.ends_at
        if entry is not None and fresh:
            busy = full or flight is not None or entry.flight in self._refreshing
            if busy or not self._is_early(entry, jitter):
                self._counts["hits"] += 1
                self._shelf.touch(entry.key)
                return Hit(entry.value, self._now - entry.received_at)
        if full:
            self._counts["refused"] += 1
            return CacheFull(self.options.waiters_max)
        if flight is not None:
            self._counts["joined"] += 1
            flight.shared &= shared  # as private as the most private of those who wait for it
            return Follow(flight.number, self._join(flight))
        self._counts["misses"] += 1
        flight = _Flight(self._mint(), key, shared)
        self._flights[flight.number] = self._current[key] = flight
        if entry is not None and fresh:
            self._counts["refreshes"] += 1
            flight.refreshes = entry.flight
            self._refreshing.add(entry.flight)
        return Lead(flight.number, self._join(flight))

    def store(
        self,
        now: float,
        flight: int,
        value: V,
        *,
        size_bytes: int,
        ttl_s: float,
        shared: bool = False,
    ) -> Serve[V] | Fault:
        """The answer of *flight* came in.

        :param size_bytes: of value and key, as they are held.
        :param ttl_s: seconds for which it is fresh; of 0 it is handed on and not kept.
        :param shared: everybody may see it: the server says so, *and* the operator believes
            it. Does nothing for a flight whose lookup was not shared.
        """
        self._advance(now)
        landed = self._land(flight)
        if landed is None:
            return self._fault("store", flight)
        kept = False
        if landed.current:
            self._supersede(landed)
            key = landed.key.visible(shared=shared and landed.shared)[-1]
            ends_at = self._now + min(ttl_s, TTL_S_MAX)
            entry = Entry(key, value, size_bytes, landed.number, self._now, ends_at)
            kept = ttl_s > 0 and self._shelf.put(entry)
        return Serve(tuple(landed.waiters), value, kept=kept)

    def fail(self, now: float, flight: int, *, allow_stale: bool) -> Serve[V] | Failed | Fault:
        """*flight* got no answer that may be kept.

        :param allow_stale: the server could not be asked, or said that it is sick (5xx), and
            the request only reads. False for everything else, denials above all.
        """
        self._advance(now)
        landed = self._land(flight)
        if landed is None:
            return self._fault("fail", flight)
        waiters = tuple(landed.waiters)
        if not landed.current:
            return Failed(waiters)
        if not allow_stale:
            self._supersede(landed)
            return Failed(waiters)
        entry = self._newest(landed.key, shared=landed.shared)
        if entry is None or self._now >= self._useless_at(entry):
            return Failed(waiters)
        stale = self._now >= entry.ends_at
        self._counts["stale"] += len(waiters) * stale
        return Serve(waiters, entry.value, stale=stale)

    def abandon(self, flight: int, waiter: int) -> Cancel | Fault | None:
        """*waiter* waits no more (it was cancelled). ``None``: others still do."""
        found = self._flights.get(flight)
        if found is None or waiter not in found.waiters:
            return self._fault("abandon", flight)
        del found.waiters[waiter]
        self._waiting -= 1
        if found.waiters:
            return None
        self._land(flight)
        return Cancel(flight)

    def invalidate(
        self,
        *,
        server: Hashable = ANY,
        era: Hashable = ANY,
        method: Hashable = ANY,
        params: Hashable = ANY,
        partition: Hashable = ANY,
    ) -> Invalidated:
        """What was fetched, or began to be, for keys with these parts is not current any more.

        The parts left out stand for all there are. Walks all entries and flights.
        """
        pattern = CacheKey(server, era, method, params, partition)
        entries = [key for key in self._shelf.entries if key.matches(pattern)]
        flights = [
            flight
            for flight in self._current.values()
            if any(key.matches(pattern) for key in flight.key.visible(shared=flight.shared))
        ]
        for key in entries:
            self._shelf.drop(key)
        for flight in flights:
            flight.current = False
            del self._current[flight.key]
        self._counts["invalidations"] += 1
        return Invalidated(len(entries), len(flights))

    def tick(self, now: float) -> int:
        """Let time pass: drop what may not be served any more, not even as stale. How many?"""
        self._advance(now)
        over = [
            key
            for key, entry in self._shelf.entries.items()
            if self._now >= self._useless_at(entry)
        ]
        for key in over:
            self._shelf.drop(key)
        return len(over)

    def next_deadline(self) -> float | None:
        """When ``tick`` drops something. Walks all entries: for a timer, not for each call."""
        return min(
            (self._useless_at(entry) for entry in self._shelf.entries.values()), default=None
        )

    def statistics(self) -> CacheStatistics:
        """A snapshot of what is held, and the counters."""
        names = ("hits", "misses", "joined", "refused", "refreshes", "stale", "invalidations")
        return CacheStatistics(
            entries=len(self._shelf.entries),
            bytes=self._shelf.bytes,
            flights=len(self._flights),
            waiting=self._waiting,
            evictions=self._shelf.evictions,
            faults=self._counts["faults"],
            **{name: self._counts[name] for name in names},
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        self._shelf.check_invariants()
        assert self._waiting == sum(len(flight.waiters) for flight in self._flights.values())
        assert self._waiting <= self.options.waiters_max
        assert all(flight.waiters for flight in self._flights.values())
        current = {f.key: f for f in self._flights.values() if f.current}
        assert self._current == current
        refreshing = {f.refreshes for f in self._flights.values()} - {None}
        assert self._refreshing == refreshing
        for entry in self._shelf.entries.values():
            assert entry.received_at <= self._now
            assert entry.ends_at <= entry.received_at + TTL_S_MAX

    def __repr__(self) -> str:
        held = f"entries={len(self._shelf.entries)} bytes={self._shelf.bytes}"
        return f"<ResponseCache {held} flights={len(self._flights)} waiting={self._waiting}>"

    def _advance(self, now: float) -> None:
        if self._now < now < TIME_S_MAX:
            self._now = now

    def _mint(self) -> int:
        self._last_id += 1
        return self._last_id

    def _fault(self, event: str, flight: int) -> Fault:
        self._counts["faults"] += 1
        return Fault(event, f"flight {flight} is unknown, over, or not waited for")

    def _join(self, flight: _Flight) -> int:
        waiter = self._mint()
        flight.waiters[waiter] = None
        self._waiting += 1
        return waiter

    def _land(self, number: int) -> _Flight | None:
        flight = self._flights.pop(number, None)
        if flight is not None:
            self._waiting -= len(flight.waiters)
            if flight.current:
                del self._current[flight.key]
            if flight.refreshes is not None:
                self._refreshing.discard(flight.refreshes)
        return flight

    def _newest(self, key: CacheKey, *, shared: bool) -> Entry[V] | None:
        best = None
        for each in key.visible(shared=shared):
            entry = self._shelf.entries.get(each)
            if entry is not None and (best is None or entry.flight > best.flight):
                best = entry
        return best

    def _supersede(self, flight: _Flight) -> None:
        # A shared entry may be of a fetch that began after this one: then it stays.
        for key in flight.key.visible(shared=flight.shared):
            entry = self._shelf.entries.get(key)
            if entry is not None and entry.flight < flight.number:
                self._shelf.drop(key)

    def _useless_at(self, entry: Entry[V]) -> float:
        return entry.ends_at + self.options.stale_s

    def _is_early(self, entry: Entry[V], jitter: float) -> bool:
        # The chance is 0 where the last share of its life begins, and 1 where it ends.
        span = (entry.ends_at - entry.received_at) * self.options.early
        return jitter * span < self._now - (entry.ends_at - span)
