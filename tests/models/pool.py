"""The connection pool told naively, in lists; and a shell that keeps books of its own.

:class:`PoolModel` states the rules of ``machines.pool`` without any care for cost: it walks
all that waits for each decision. :class:`PoolShell` plays the pool's body: it carries out
effects, notes who owns which slot, and lets a test drive the machine by small numbers.
"""

from __future__ import annotations

from typing import Any

from sark_trio.machines.pool import (
    Close,
    Dial,
    Fail,
    Fault,
    Grant,
    Pool,
    PoolOptions,
)


class Conn:
    """A connection of the model."""

    def __init__(self, slot: int, origin: str) -> None:
        self.slot, self.origin, self.state = slot, origin, "connecting"
        self.born = self.usable_until = 0.0
        self.dead, self.ticket, self.stream = False, None, False


class PoolModel:
    """The oracle. Calls and effects are those of ``Pool`` (faults aside)."""

    def __init__(self, options: PoolOptions) -> None:
        self.o, self.now, self.ids, self.kill_at = options, float("-inf"), 0, None
        self.conns: list[Conn] = []
        self.shelf: list[Conn] = []  # the longest idle first
        self.queue: list[tuple[int, str]] = []  # (ticket, origin), the oldest first
        self.long: set[int] = set()  # tickets in the queue that want a stream
        self.out: list[Any] = []

    def of(self, *states: str, origin: str | None = None) -> list[Conn]:
        return [c for c in self.conns if c.state in states and origin in (None, c.origin)]

    def count(self, origin: str) -> int:
        return sum(c.origin == origin for c in self.conns)

    def room(self, origin: str) -> bool:
        """May one more be a stream? All but one connection may, and all of a single one."""
        held = [c.origin for c in self.conns if c.stream]
        held += [where for ticket, where in self.queue if ticket in self.long]
        here = held.count(origin) < max(1, self.o.per_origin - 1)
        return here and len(held) < min(self.o.streams_max, max(1, self.o.total - 1))

    def demand(self) -> list[tuple[int, str]]:
        """Tickets that no dial covers and whose origin may open one more, the oldest first."""
        found = []
        for ticket, origin in self.queue:
            rank = [t for t, o in self.queue if o == origin].index(ticket)
            rank -= len(self.of("connecting", origin=origin))
            if 0 <= rank < self.o.per_origin - self.count(origin):
                found.append((ticket, origin))
        return found

    def release(self, c: Conn, *, fresh: bool = False) -> None:
        c.ticket, c.stream = None, False
        mine = [t for t, o in self.queue if o == c.origin]
        unmet = self.demand() if len(self.demand()) > len(self.of("closing")) else []
        if not fresh and (self.kill_at is not None or c.dead or c.usable_until <= self.now):
            self.close(c)
        elif mine and (fresh or not [t for t, _ in unmet if t < mine[0]]):
            self.queue.remove((mine[0], c.origin))
            c.state, c.ticket, c.stream = "granted", mine[0], mine[0] in self.long
            self.out.append(Grant(mine[0], c.slot))
        elif mine:
            self.close(c)
        else:
            c.state = "idle"
            self.shelf.append(c)
            if len(self.shelf) > self.o.idle_max:
                self.close(self.shelf[0])

    def close(self, c: Conn) -> None:
        self.shelf = [other for other in self.shelf if other is not c]
        c.state, c.ticket, c.stream = "closing", None, False
        self.out.append(Close(c.slot))

    def settle(self) -> tuple[Any, ...]:
        while self.demand() and len(self.conns) < self.o.total:
            self.ids += 1
            self.conns.append(Conn(self.ids, self.demand()[0][1]))
            self.out.append(Dial(self.ids, self.conns[-1].origin))
        while len(self.demand()) > len(self.of("closing")) and self.shelf:
            self.close(self.shelf[0])
        out, self.out = tuple(self.out), []
        return out

    # The events, named as the pool's.

    def try_lease(self, now: float, origin: str, *, stream: bool = False) -> int | None:
        self.now = max(self.now, now)
        mine = [c for c in self.shelf if c.origin == origin]
        if not mine or mine[-1].usable_until <= self.now or (stream and not self.room(origin)):
            return None
        self.shelf.remove(mine[-1])
        mine[-1].state, mine[-1].stream = "leased", stream
        return mine[-1].slot

    def want(self, now: float, origin: str, *, stream: bool = False) -> tuple[int, tuple[Any, ...]]:
        self.now = max(self.now, now)
        self.ids += 1
        ticket = self.ids
        if self.kill_at is not None:
            return ticket, (Fail(ticket, "shutdown"),)
        if stream and not self.room(origin):
            return ticket, (Fail(ticket, "streams_full"),)
        for c in [c for c in reversed(self.shelf) if c.origin == origin]:
            if c.usable_until > self.now:
                self.shelf.remove(c)
                c.state, c.ticket, c.stream = "granted", ticket, stream
                self.out.append(Grant(ticket, c.slot))
                return ticket, self.settle()
            self.close(c)
        if len(self.queue) >= self.o.waiters_max:
            out, self.out = (*self.out, Fail(ticket, "full")), []
            return ticket, out
        self.queue.append((ticket, origin))
        self.long |= {ticket} if stream else set()
        return ticket, self.settle()

    def start(self, now: float, ticket: int) -> int:
        self.now = max(self.now, now)
        (c,) = [c for c in self.conns if c.ticket == ticket]
        c.state, c.ticket = "leased", None
        return c.slot

    def cancel(self, now: float, ticket: int) -> tuple[Any, ...]:
        self.now = max(self.now, now)
        self.queue = [entry for entry in self.queue if entry[0] != ticket]
        for c in [c for c in self.conns if c.ticket == ticket]:
            self.release(c)
        return self.settle()

    def find(self, now: float, slot: int) -> Conn:
        self.now = max(self.now, now)
        (c,) = [c for c in self.conns if c.slot == slot]
        return c

    def use(self, c: Conn) -> None:
        c.usable_until = min(self.now + self.o.idle_s, c.born + self.o.age_max_s)

    def dialed(self, now: float, slot: int) -> tuple[Any, ...]:
        c = self.find(now, slot)
        if c.state == "closing":
            return (Close(slot),)
        c.born, c.state = self.now, "open"
        self.use(c)
        self.release(c, fresh=True)
        return self.settle()

    def dial_failed(self, now: float, slot: int, error: BaseException | None) -> tuple[Any, ...]:
        c = self.find(now, slot)
        mine = [entry for entry in self.queue if entry[1] == c.origin]
        if c.state == "connecting" and mine:
            self.queue.remove(mine[0])
            self.out.append(Fail(mine[0][0], "dial_failed", error))
        self.conns.remove(c)
        return self.settle()

    def give_back(self, now: float, slot: int, *, clean: bool) -> tuple[Any, ...]:
        c = self.find(now, slot)
        if c.state == "closing":
            return ()
        c.state, c.dead = "open", c.dead or not clean
        self.use(c)
        self.release(c)
        return self.settle()

    def peer_closed(self, now: float, slot: int) -> tuple[Any, ...]:
        c = self.find(now, slot)
        c.dead = True
        if c.state == "idle":
            self.close(c)
        return self.settle()

    def closed(self, now: float, slot: int) -> tuple[Any, ...]:
        c = self.find(now, slot)
        self.conns.remove(c)
        self.shelf = [other for other in self.shelf if other is not c]
        return self.settle()

    def tick(self, now: float) -> tuple[Any, ...]:
        self.now = max(self.now, now)
        while self.shelf and self.shelf[0].usable_until <= self.now:
            self.close(self.shelf[0])
        if self.kill_at is not None and self.kill_at <= self.now:
            self.kill_at = float("inf")
            for c in self.of("granted", "leased"):
                if c.ticket is not None:
                    self.out.append(Fail(c.ticket, "shutdown"))
                self.close(c)
        return self.settle()

    def shutdown(self, now: float) -> tuple[Any, ...]:
        self.now = max(self.now, now)
        if self.kill_at is not None:
            return ()
        self.kill_at = self.now + self.o.grace_s
        self.out += [Fail(ticket, "shutdown") for ticket, _ in self.queue]
        self.queue = []
        for c in self.of("connecting", "idle"):
            self.close(c)
        return self.settle()


#: What a test can do, by name; each takes one small number to choose whom it happens to.
EVENTS = (
    "want",
    "want_stream",
    "try_lease",
    "try_lease_stream",
    "start",
    "cancel",
    "dialed",
    "dial_failed",
    "give_back",
    "give_back_dirty",
    "peer_closed",
    "closed",
    "later",
    "tick",
)


class PoolShell:
    """Drives a pool, beside a model where one is given, and keeps its own books."""

    def __init__(self, options: PoolOptions, *, with_model: bool = False) -> None:
        self.options = options
        self.pool = Pool(options)
        self.model = PoolModel(options) if with_model else None
        self.now = 0.0
        self.origin_of: dict[int, str] = {}  # slots that exist
        self.owner: dict[int, str] = {}  # dial, pool, ticket, lessee, closer
        self.waiting: dict[int, str] = {}  # ticket: origin, the oldest first
        self.granted: dict[int, int] = {}  # ticket: slot
        self.streams: dict[int, str] = {}  # ticket, then slot, of a stream: origin
        self.unfit: set[int] = set()  # dirty, or closed by the peer
        self.used_at: dict[int, float] = {}
        self.born: dict[int, float] = {}
        self.shut = False
        self.log: list[Any] = []

    def owned(self, *owners: str) -> list[int]:
        return [slot for slot, owner in self.owner.items() if owner in owners]

    def choices(self, event: str) -> int:
        """How many ways there are to let *event* happen now."""
        match event:
            case "want" | "want_stream" | "try_lease" | "try_lease_stream":
                return 2
            case "start":
                return len(self.granted)
            case "cancel":
                return len(self.granted) + len(self.waiting)
            case "dialed" | "dial_failed":
                return len(self.owned("dial"))
            case "give_back" | "give_back_dirty":
                return len(self.owned("lessee"))
            case "peer_closed":
                return len(self.owned("pool", "ticket", "lessee"))
            case "closed":
                return len(self.owned("closer", "lessee"))
        return 1

    def do(self, event: str, choice: int) -> tuple[Any, ...]:
        """Let *event* happen and carry out what it leads to; its effects."""
        if not self.choices(event):
            return ()
        choice %= self.choices(event)
        effects = getattr(self, f"_{event}")(choice)
        self.log.extend(effects)
        for effect in effects:
            self._perform(effect)
        return effects

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        got = getattr(self.pool, method)(self.now, *args, **kwargs)
        if self.model is not None:
            want = getattr(self.model, method)(self.now, *args, **kwargs)
            assert got == want, (method, args)
        return got

    def _perform(self, effect: Any) -> None:
        match effect:
            case Dial(slot, origin):
                assert slot not in self.owner
                self.owner[slot], self.origin_of[slot] = "dial", origin
            case Grant(ticket, slot):
                assert self.owner[slot] == "pool"
                assert self.waiting.pop(ticket) == self.origin_of[slot]
                self.owner[slot] = "ticket"
                self.granted[ticket] = slot
            case Close(slot):
                assert self.owner[slot] in {"pool", "dial"} or self.shut
                assert slot not in self.granted.values()
                self.owner[slot] = "closer"
                self.streams.pop(slot, None)
            case Fail(ticket):
                self.streams.pop(ticket, None)
                assert (ticket in self.waiting) != (ticket in self.granted)
                self.waiting.pop(ticket, None)
                self.granted.pop(ticket, None)
            case Fault():
                raise AssertionError(effect)

    def _want(self, choice: int, *, stream: bool = False) -> tuple[Any, ...]:
        origin = "ab"[choice]
        ticket, effects = self._call("want", origin, stream=stream)
        self.waiting[ticket] = origin
        if stream:
            self.streams[ticket] = origin
        return effects

    def _want_stream(self, choice: int) -> tuple[Any, ...]:
        return self._want(choice, stream=True)

    def _try_lease(self, choice: int, *, stream: bool = False) -> tuple[Any, ...]:
        slot = self._call("try_lease", "ab"[choice], stream=stream)
        if slot is not None:
            assert self.owner[slot] == "pool"
            assert self.origin_of[slot] == "ab"[choice]
            self.owner[slot] = "lessee"
            if stream:
                self.streams[slot] = "ab"[choice]
            self.log.append(("lease", slot))
        return ()

    def _try_lease_stream(self, choice: int) -> tuple[Any, ...]:
        return self._try_lease(choice, stream=True)

    def _start(self, choice: int) -> tuple[Any, ...]:
        ticket = list(self.granted)[choice]
        slot = self.granted.pop(ticket)
        assert self._call("start", ticket) == slot
        self.owner[slot] = "lessee"
        if ticket in self.streams:
            self.streams[slot] = self.streams.pop(ticket)
        return ()

    def _cancel(self, choice: int) -> tuple[Any, ...]:
        ticket = [*self.granted, *self.waiting][choice]
        self.waiting.pop(ticket, None)
        self.streams.pop(ticket, None)
        slot = self.granted.pop(ticket, None)
        if slot is not None:
            self.owner[slot] = "pool"
        return self._call("cancel", ticket)

    def _dialed(self, choice: int) -> tuple[Any, ...]:
        slot = self.owned("dial")[choice]
        self.owner[slot] = "pool"
        self.used_at[slot] = self.born[slot] = self.now
        return self._call("dialed", slot)

    def _dial_failed(self, choice: int) -> tuple[Any, ...]:
        slot = self.owned("dial")[choice]
        self._gone(slot)
        return self._call("dial_failed", slot, ERROR)

    def _give_back(self, choice: int, *, clean: bool = True) -> tuple[Any, ...]:
        slot = self.owned("lessee")[choice]
        self.owner[slot] = "pool"
        self.used_at[slot] = self.now
        self.streams.pop(slot, None)
        if not clean:
            self.unfit.add(slot)
        return self._call("give_back", slot, clean=clean)

    def _give_back_dirty(self, choice: int) -> tuple[Any, ...]:
        return self._give_back(choice, clean=False)

    def _peer_closed(self, choice: int) -> tuple[Any, ...]:
        slot = self.owned("pool", "ticket", "lessee")[choice]
        self.unfit.add(slot)
        return self._call("peer_closed", slot)

    def _closed(self, choice: int) -> tuple[Any, ...]:
        slot = self.owned("closer", "lessee")[choice]
        self._gone(slot)
        return self._call("closed", slot)

    def _later(self, choice: int) -> tuple[Any, ...]:
        self.now += self.options.idle_s
        return ()

    def _tick(self, choice: int) -> tuple[Any, ...]:
        return self._call("tick")

    def _shutdown(self, choice: int) -> tuple[Any, ...]:
        self.shut = True
        return self._call("shutdown")

    def _gone(self, slot: int) -> None:
        for book in (self.owner, self.origin_of, self.used_at, self.born, self.streams):
            book.pop(slot, None)
        self.unfit.discard(slot)

    def quiesce(self) -> None:
        """Everybody finishes: tickets are given up, dials succeed, leases end, closers close."""
        while self.owner or self.waiting:
            for event in ("cancel", "dialed", "give_back", "closed"):
                while self.choices(event):
                    self.do(event, 0)
            if set(self.owner.values()) <= {"pool"} and not self.waiting:
                return


# Equal to its copies, unlike other exceptions: pickled shells compare.
class DialError(Exception):
    """A dial failed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DialError)

    def __hash__(self) -> int:
        return 1


ERROR = DialError("refused")
