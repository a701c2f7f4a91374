"""The words of the response cache: keys, a server's hints, limits, answers, counters."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, unique
from typing import Final, Generic, Literal, NamedTuple, TypeVar, final

from attrs import field, frozen

from sark_trio.machines.checks import between, whole

__all__ = [
    "CacheFull",
    "CacheKey",
    "CacheOptions",
    "CacheScope",
    "CacheStatistics",
    "Cancel",
    "Failed",
    "Fault",
    "Follow",
    "Hit",
    "Invalidated",
    "Lead",
    "Partition",
    "Serve",
    "Wildcard",
    "scope_of",
    "ttl_of",
]

#: Longer than a day nobody is believed: by then a restart would have forgotten it anyway.
TTL_S_MAX: Final = 86_400.0
#: What may have been true so long ago is still better than nothing; RFC 5861 leaves the limit
#: to us, and five minutes outlast a restart of the server.
STALE_S_MAX: Final = 300.0

V = TypeVar("V")

CacheScope = Literal["public", "private", "unknown"]


@unique
class Partition(Enum):
    """The partition of entries that all may see. No principal's partition is equal to it."""

    SHARED = "shared"


@unique
class Wildcard(Enum):
    """Stands for every value of one part of a key."""

    ANY = "any"


ANY: Final = Wildcard.ANY


class CacheKey(NamedTuple):
    """What an answer depends on: compared for equality, and otherwise never looked into.

    ``params`` in a canonical form. ``partition`` names who may see the answer: a digest over
    principal, credential and policy revision (no secret: keys are shown in tracebacks).
    """

    server: Hashable
    era: Hashable
    method: Hashable
    params: Hashable
    partition: Hashable

    def visible(self, *, shared: bool) -> tuple[CacheKey, ...]:
        """The keys of the entries that who asks for this one may see: its own first."""
        return (self, self._replace(partition=Partition.SHARED)) if shared else (self,)

    def matches(self, pattern: CacheKey) -> bool:
        """Whether each part is that of *pattern*, or the pattern's is a wildcard."""
        pairs = zip(pattern, self, strict=True)
        return all(want is ANY or want == have for want, have in pairs)


@final
@frozen(kw_only=True)
class CacheOptions:
    """The limits of a cache.

    :raises ValueError: an option is out of its bounds.
    """

    #: Entries kept, the least recently used one goes first; 0 keeps none.
    entries_max: int = field(default=1_024, validator=whole(0, 1_000_000))
    #: Bytes of all entries, as their sizes were told.
    bytes_max: int = field(default=64 * 1024 * 1024, validator=whole(0, 2**40))
    #: Callers that may wait for fetches, over all keys: as many as may wait for a connection.
    waiters_max: int = field(default=10_000, validator=whole(1, 1_000_000))
    #: Seconds after its end for which an entry may stand in for a fetch that failed.
    stale_s: float = field(default=STALE_S_MAX, validator=between(0, STALE_S_MAX))
    #: The last share of an entry's life, in which it is more and more likely fetched anew.
    early: float = field(default=0.1, validator=between(0, 0.5))


@final
@frozen
class Hit(Generic[V]):
    """Use *value*; it came in *age_s* seconds ago and is fresh."""

    value: V
    age_s: float
    stale: Literal[False] = False


@final
@frozen
class Lead:
    """Start a fetch, in a task that outlives its callers; then wait for it as *waiter*."""

    flight: int
    waiter: int


@final
@frozen
class Follow:
    """That fetch is under way: wait for it as *waiter*."""

    flight: int
    waiter: int


@final
@frozen
class CacheFull:
    """As many wait as may: nothing was begun."""

    limit: int


@final
@frozen
class Serve(Generic[V]):
    """The fetch is over: hand *value* to each of *waiters*.

    *stale*: its time is over, it stands in for a fetch that failed: say so. *kept*: it is in
    the cache now.
    """

    waiters: tuple[int, ...]
    value: V
    stale: bool = False
    kept: bool = False


@final
@frozen
class Failed:
    """The fetch is over: hand its error to each of *waiters*."""

    waiters: tuple[int, ...]


@final
@frozen
class Cancel:
    """Nobody waits for that fetch any more: stop it. It is over already, as the cache sees it."""

    flight: int


@final
@frozen
class Invalidated:
    """So many entries were dropped, and so many fetches under way will not be kept."""

    entries: int
    flights: int


@final
@frozen
class Fault:
    """The event made no sense here (unknown or settled flight) and changed nothing."""

    event: str
    reason: str


@final
@frozen(kw_only=True)
class CacheStatistics:
    """What is held now, and how lookups fared so far."""

    entries: int
    bytes: int
    flights: int
    waiting: int
    #: Lookups that were answered at once, ...
    hits: int
    #: ... that began a fetch, ...
    misses: int
    #: ... that joined one, ...
    joined: int
    #: ... that were turned away.
    refused: int
    #: Of the misses, those that were early: the entry had not ended yet.
    refreshes: int
    #: Callers that got a stale value for a fetch that failed.
    stale: int
    evictions: int
    invalidations: int
    faults: int

    @property
    def hit_rate(self) -> float:
        """The share of lookups that were answered at once; 0 where there were none."""
        lookups = self.hits + self.misses + self.joined
        return self.hits / lookups if lookups else 0.0


def ttl_of(ttl_ms: object, absent_s: float = 0.0) -> float:
    """Seconds for which an answer is fresh, of its ``ttlMs`` (MCP 2026-07-28, Caching).

    :param absent_s: for ``None``: a server of an earlier revision gives no hint, and the
        operator may have one. What is no whole number, or negative, counts as 0.
    """
    if ttl_ms is None:
        return min(max(absent_s, 0.0), TTL_S_MAX)
    if type(ttl_ms) is not int or ttl_ms <= 0:
        return 0.0
    return min(ttl_ms, int(TTL_S_MAX) * 1000) / 1000


def scope_of(cache_scope: object) -> CacheScope:
    """What ``cacheScope`` says. Of ``unknown`` only one thing is safe to think: private."""
    if cache_scope == "public":
        return "public"
    return "private" if cache_scope == "private" else "unknown"
