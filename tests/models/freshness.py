"""The response cache told naively, in lists; and a play of callers that keeps books of its own.

:class:`CacheModel` states the rules of ``machines.freshness`` without any care for cost, and
:class:`Play` drives the machine or the model by small numbers. Its answers are tagged with who
they are for and when they were fetched, and it notes which of them was served to whom.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from sark_trio.machines.caching import ANY, Partition
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

EVENTS = (
    *("lookup", "fill", "store", "fail", "deny", "abandon"),
    *("invalidate", "wait", "tick", "forge"),
)
KEYS = tuple(
    CacheKey(server, "era", method, "{}", who)
    for who in ("ann", "bob")
    for server in ("db", "fs")
    for method in ("tools/list", "resources/read")
)
PATTERNS: tuple[dict[str, Any], ...] = (
    {"server": "db", "method": "tools/list"},
    {"server": "fs"},
    {"partition": "ann"},
    {"server": "db", "partition": "bob"},
    {},
)
TTLS = (10.0, 0.0, 1.0, 400.0, 1e9, -1.0, float("nan"))
WAITS = (0.5, 0.0, 1.0, 8.5, 9.5, 10.0, 300.0, 90_000.0)
SIZES = (1, 40, 0, 60, 101, -1)
JITTERS = (0.999, 0.0, 0.5)


def covers(pattern: dict[str, Any], key: CacheKey) -> bool:
    """Whether *key* has the parts of *pattern*."""
    return all(key._asdict()[name] == part for name, part in pattern.items())


def everyone(key: CacheKey) -> CacheKey:
    """The key of what all may see."""
    return CacheKey(*key[:4], Partition.SHARED)


class CacheModel:
    """The oracle. Calls and answers are those of ``ResponseCache``."""

    def __init__(self, options: CacheOptions) -> None:
        self.o, self.now, self.ids = options, 0.0, 0
        self.kept: list[dict[str, Any]] = []  # the least recently used first
        self.flights: list[dict[str, Any]] = []

    def clock(self, now: float) -> None:
        self.now = max(self.now, now)

    def mint(self) -> int:
        self.ids += 1
        return self.ids

    def newest(self, key: CacheKey, shared: bool) -> dict[str, Any] | None:
        keys = [key, everyone(key)] if shared else [key]
        mine = [entry for entry in self.kept if entry["key"] in keys]
        return max(mine, key=lambda entry: entry["flight"], default=None)

    def forget(self, flight: dict[str, Any]) -> None:
        keys = [flight["key"], everyone(flight["key"])][: 1 + flight["shared"]]
        older = [e for e in self.kept if e["key"] in keys and e["flight"] < flight["id"]]
        self.kept = [entry for entry in self.kept if entry not in older]

    def lookup(self, now: float, key: CacheKey, jitter: float, *, shared: bool = False) -> Any:
        self.clock(now)
        entry = self.newest(key, shared)
        under_way = [f for f in self.flights if f["key"] == key and f["current"]]
        full = sum(len(f["waiters"]) for f in self.flights) >= self.o.waiters_max
        refreshed = None
        if entry is not None and self.now < entry["ends"]:
            life = entry["ends"] - entry["received"]
            begins = entry["ends"] - self.o.early * life
            early = self.o.early > 0 and jitter < (self.now - begins) / (self.o.early * life)
            taken = entry["flight"] in [f["refreshes"] for f in self.flights]
            if full or under_way or taken or not early:
                self.kept.remove(entry)
                self.kept.append(entry)
                return Hit(entry["value"], self.now - entry["received"])
            refreshed = entry["flight"]
        if full:
            return CacheFull(self.o.waiters_max)
        if under_way:
            under_way[0]["shared"] = under_way[0]["shared"] and shared
            under_way[0]["waiters"].append(self.mint())
            return Follow(under_way[0]["id"], self.ids)
        flight = {"id": self.mint(), "key": key, "shared": shared, "current": True}
        self.flights.append({**flight, "waiters": [self.mint()], "refreshes": refreshed})
        return Lead(flight["id"], self.ids)

    def land(self, number: int) -> dict[str, Any] | None:
        found = [flight for flight in self.flights if flight["id"] == number]
        self.flights = [flight for flight in self.flights if flight["id"] != number]
        return found[0] if found else None

    def store(self, now: float, number: int, value: Any, **how: Any) -> Any:
        self.clock(now)
        flight = self.land(number)
        if flight is None:
            return Fault("store", "")
        kept = False
        if flight["current"]:
            self.forget(flight)
            key, ttl_s = flight["key"], how["ttl_s"]
            if how["shared"] and flight["shared"]:
                key = everyone(key)
            taken = key in [entry["key"] for entry in self.kept]
            fits = 0 <= how["size_bytes"] <= self.o.bytes_max and self.o.entries_max > 0
            if ttl_s > 0 and fits and not taken:
                kept, ends = True, self.now + min(ttl_s, 86_400.0)
                entry = {"key": key, "value": value, "flight": number, "ends": ends}
                self.kept.append({**entry, "received": self.now, "size": how["size_bytes"]})
            while len(self.kept) > self.o.entries_max or self.size() > self.o.bytes_max:
                del self.kept[0]
        return Serve(tuple(flight["waiters"]), value, kept=kept)

    def size(self) -> int:
        return sum(entry["size"] for entry in self.kept)

    def fail(self, now: float, number: int, *, allow_stale: bool) -> Any:
        self.clock(now)
        flight = self.land(number)
        if flight is None:
            return Fault("fail", "")
        if flight["current"] and not allow_stale:
            self.forget(flight)
        entry = self.newest(flight["key"], flight["shared"])
        usable = entry is not None and self.now < entry["ends"] + self.o.stale_s
        if entry is None or not usable or not allow_stale or not flight["current"]:
            return Failed(tuple(flight["waiters"]))
        stale = self.now >= entry["ends"]
        return Serve(tuple(flight["waiters"]), entry["value"], stale=stale)

    def abandon(self, number: int, waiter: int) -> Any:
        for flight in self.flights:
            if flight["id"] == number and waiter in flight["waiters"]:
                flight["waiters"].remove(waiter)
                return None if flight["waiters"] else Cancel(self.land(number)["id"])  # type: ignore[index]
        return Fault("abandon", "")

    def invalidate(self, **pattern: Any) -> Invalidated:
        before = len(self.kept)
        self.kept = [entry for entry in self.kept if not covers(pattern, entry["key"])]
        cut = 0
        for flight in self.flights:
            keys = [flight["key"], everyone(flight["key"])][: 1 + flight["shared"]]
            if flight["current"] and any(covers(pattern, key) for key in keys):
                flight["current"], cut = False, cut + 1
        return Invalidated(before - len(self.kept), cut)

    def tick(self, now: float) -> int:
        self.clock(now)
        before = len(self.kept)
        self.kept = [e for e in self.kept if self.now < e["ends"] + self.o.stale_s]
        return before - len(self.kept)


@define(eq=False)
class Answer:
    """What a fetch brought: whose it is, and how old. Its size counts where it is held."""

    key: CacheKey
    public: bool
    size_bytes: int
    ttl_s: float
    received_at: float
    #: Invalidations that there had been when its fetch began.
    begun: int
    flight: int


@frozen
class Caller:
    """Who asked for what, and after how many invalidations."""

    key: CacheKey
    shared: bool
    asked: int


@frozen(eq=False)
class Served:
    """A value that somebody got: from the cache at once, or when a fetch was over."""

    caller: Caller
    answer: Answer
    now: float
    stale: bool
    #: It is what the fetch itself brought.
    live: bool


@define
class Play:
    """Callers, fetches and invalidations around one cache."""

    cache: ResponseCache[Answer] | CacheModel
    ttls: tuple[float, ...] = TTLS
    now: float = 0.0
    #: Of each fetch under way: its key and how many invalidations there were.
    fetches: dict[int, tuple[CacheKey, int]] = field(factory=dict)
    waiting: dict[int, dict[int, Caller]] = field(factory=dict)
    patterns: list[dict[str, Any]] = field(factory=list)
    served: list[Served] = field(factory=list)

    def do(self, event: str, a: int, b: int) -> Any:
        """One event; *a* and *b* choose what it is about. The cache's answer."""
        return getattr(self, f"_{event}")(a, b)

    def ask(self, key: CacheKey, jitter: float, *, shared: bool) -> Any:
        """A lookup, and what becomes of the caller."""
        caller = Caller(key, shared, len(self.patterns))
        got = self.cache.lookup(self.now, key, jitter, shared=shared)
        if isinstance(got, Hit):
            self.served.append(Served(caller, got.value, self.now, got.stale, live=False))
        elif isinstance(got, Lead | Follow):
            if isinstance(got, Lead):
                self.fetches[got.flight] = (key, len(self.patterns))
                self.waiting[got.flight] = {}
            self.waiting[got.flight][got.waiter] = caller
        return got

    def answer(self, flight: int, *, public: bool, size: int, ttl_s: float) -> Any:
        """The fetch brought something."""
        key, begun = self.fetches.pop(flight)
        value = Answer(key, public, size, ttl_s, self.now, begun, flight)
        how = {"size_bytes": size, "ttl_s": ttl_s, "shared": public}
        got = self.cache.store(self.now, flight, value, **how)
        return self._over(flight, got, live=True)

    def _lookup(self, a: int, b: int) -> Any:
        jitter = JITTERS[b % 3]
        return self.ask(KEYS[a % len(KEYS)], jitter, shared=b % 4 > 1)

    def _fill(self, a: int, b: int) -> Any:
        # A lookup, and at once the answer if it leads.
        got = self._lookup(a, b)
        if isinstance(got, Lead):
            return self.answer(got.flight, public=b % 2 == 1, size=1, ttl_s=self.ttls[0])
        return got

    def _store(self, a: int, b: int) -> Any:
        if (flight := self._pick(a)) is not None:
            size, ttl_s = SIZES[b % len(SIZES)], self.ttls[b % len(self.ttls)]
            return self.answer(flight, public=b % 2 == 1, size=size, ttl_s=ttl_s)
        return None

    def _fail(self, a: int, b: int, *, allow_stale: bool = True) -> Any:
        if (flight := self._pick(a)) is not None:
            del self.fetches[flight]
            got = self.cache.fail(self.now, flight, allow_stale=allow_stale)
            return self._over(flight, got, live=False)
        return None

    def _deny(self, a: int, b: int) -> Any:
        return self._fail(a, b, allow_stale=False)

    def _abandon(self, a: int, b: int) -> Any:
        if (flight := self._pick(a)) is None:
            return None
        waiter = list(self.waiting[flight])[b % len(self.waiting[flight])]
        got = self.cache.abandon(flight, waiter)
        del self.waiting[flight][waiter]
        assert isinstance(got, Cancel) == (not self.waiting[flight])
        if isinstance(got, Cancel):
            del self.fetches[flight], self.waiting[flight]
        return got

    def _invalidate(self, a: int, b: int) -> Any:
        self.patterns.append(PATTERNS[a % len(PATTERNS)])
        return self.cache.invalidate(**self.patterns[-1])

    def _wait(self, a: int, b: int) -> None:
        self.now += WAITS[a % len(WAITS)]

    def _tick(self, a: int, b: int) -> Any:
        return self.cache.tick(self.now)

    def _forge(self, a: int, b: int) -> Any:
        number = a + 1_000 * (b % 2)
        if number in self.fetches:
            return type(self.cache.abandon(number, 10**9))
        how = {"size_bytes": 1, "ttl_s": 9.0, "shared": False}
        return [
            type(self.cache.store(self.now, number, self, **how)),  # type: ignore[arg-type]
            type(self.cache.fail(self.now, number, allow_stale=True)),
            type(self.cache.abandon(number, number)),
        ]

    def _pick(self, a: int) -> int | None:
        return list(self.fetches)[a % len(self.fetches)] if self.fetches else None

    def _over(self, flight: int, got: Any, *, live: bool) -> Any:
        callers = self.waiting.pop(flight)
        assert got.waiters == tuple(callers)
        if isinstance(got, Serve):
            for caller in callers.values():
                self.served.append(Served(caller, got.value, self.now, got.stale, live))
        return got


def concerns(pattern: dict[str, Any], answer: Answer) -> bool:
    """Whether an invalidation is about where that answer is kept."""
    if answer.public and pattern.get("partition", ANY) is not ANY:
        return False
    return covers(pattern, answer.key)
