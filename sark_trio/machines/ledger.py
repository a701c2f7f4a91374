"""Where every slot and ticket of a pool is: the records, and moves that keep them in balance.

The ledger decides nothing and produces no effects; :mod:`sark_trio.machines.pool` does, and
its docstring explains the words used here.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Hashable
from math import inf
from typing import final

from attrs import define, field

from sark_trio.machines.slots import TRANSITIONS, Fault, PoolOptions, PoolStatistics, State

__all__ = ["Ledger", "Origin", "Slot", "Waiter"]

#: Outdated entries of the ranking that are put up with before it is built anew.
_RANKING_SLACK = 64


@define(eq=False)
class Origin:
    """One origin that has slots or tickets, and how many of which."""

    key: Hashable
    count: int = 0
    connecting: int = 0
    streams: int = 0
    demand: int = 0
    #: It has an entry in the ranking of demand.
    ranked: bool = False
    idle: dict[int, Slot] = field(factory=dict)
    # OrderedDict, not dict: taking the first of a dict is linear in those taken before.
    covered: OrderedDict[int, Waiter] = field(factory=OrderedDict)
    uncovered: OrderedDict[int, Waiter] = field(factory=OrderedDict)

    def oldest(self) -> Waiter | None:
        """Who is next in the queue."""
        queue = self.covered or self.uncovered
        return next(iter(queue.values())) if queue else None


@define(eq=False)
class Slot:
    """One connection, made or in the making."""

    id: int
    origin: Origin
    state: State = "connecting"
    born: float = 0.0
    usable_until: float = 0.0
    #: The peer closed it while it was in use: never to be used again.
    dead: bool = False
    stream: bool = False
    holder: Waiter | None = None


@define(eq=False)
class Waiter:
    """One ticket: in its origin's queue while ``slot`` is ``None``, then granted that slot."""

    ticket: int
    origin: Origin
    stream: bool
    slot: Slot | None = None


@final
@define(eq=False)
class Ledger:
    """The records of one pool."""

    options: PoolOptions
    origins: dict[Hashable, Origin] = field(factory=dict)
    slots: dict[int, Slot] = field(factory=dict)
    #: Who waits, and who was granted a slot and has not started.
    tickets: dict[int, Waiter] = field(factory=dict)
    #: Idle slots of every origin, the longest idle first.
    idle: OrderedDict[int, Slot] = field(factory=OrderedDict)
    #: Uncovered tickets whose origins may still open connections, over all origins.
    demand: int = 0
    waiting: int = 0
    closing: int = 0
    streams: int = 0
    #: Heap of (a lower bound of an origin's first uncovered ticket, that origin), one each.
    ranking: list[tuple[int, Origin]] = field(factory=list)
    last_id: int = 0
    #: The latest time heard of, monotonic seconds.
    now: float = -inf
    counts: Counter[str] = field(factory=Counter)

    def mint(self) -> int:
        """A new id, for a slot or a ticket."""
        self.last_id += 1
        return self.last_id

    def advance(self, now: float) -> None:
        """Time goes on, and never back (nor to NaN)."""
        self.now = max(self.now, now)

    def find(self, event: str, now: float, number: int) -> Slot | Fault:
        """The slot that an event happens to, or why it cannot happen to it."""
        self.advance(now)
        slot = self.slots.get(number)
        if slot is None:
            return Fault(event, f"slot {number} is unknown or gone")
        if slot.state not in TRANSITIONS[event]:
            return Fault(event, f"slot {number} is {slot.state}")
        return slot

    # Tickets.

    def enqueue(self, waiter: Waiter) -> None:
        """Put a ticket at the end of its origin's queue, under a dial that is to spare if any."""
        where = waiter.origin
        self.waiting += 1
        if len(where.covered) < where.connecting:
            where.covered[waiter.ticket] = waiter
        else:
            where.uncovered[waiter.ticket] = waiter
            self.reckon(where)

    def dequeue(self, waiter: Waiter) -> None:
        """Take a ticket out of its queue; the dial that covered it covers the next one."""
        where = waiter.origin
        self.waiting -= 1
        if where.covered.pop(waiter.ticket, None) is None:
            del where.uncovered[waiter.ticket]
        elif where.uncovered and len(where.covered) < where.connecting:
            self._cover(where)
        self.reckon(where)

    def forget(self, waiter: Waiter) -> None:
        """End a ticket that waits."""
        self.dequeue(waiter)
        del self.tickets[waiter.ticket]
        if waiter.stream:
            self.count_stream(waiter.origin, -1)
        self._drop_if_empty(waiter.origin)

    def _cover(self, where: Origin) -> None:
        ticket, waiter = where.uncovered.popitem(last=False)
        where.covered[ticket] = waiter

    # Demand.

    def reckon(self, where: Origin) -> None:
        """Bring demand up to date after the queue or the slots of an origin changed."""
        demand = min(len(where.uncovered), self.options.per_origin - where.count)
        self.demand += demand - where.demand
        where.demand = demand
        if demand and not where.ranked:
            where.ranked = True
            heapq.heappush(self.ranking, (next(iter(where.uncovered)), where))
            if len(self.ranking) > 2 * self.waiting + _RANKING_SLACK:
                self._rebuild_ranking()

    def first_in_demand(self) -> tuple[int, Origin]:
        """The oldest ticket in demand and its origin; only while there is demand."""
        while True:
            bound, where = self.ranking[0]
            if not where.demand:
                where.ranked = False
                heapq.heappop(self.ranking)
                continue
            first = next(iter(where.uncovered))
            if first == bound:
                return bound, where
            # The first ticket of an origin only ever becomes younger, so bounds hold.
            heapq.heapreplace(self.ranking, (first, where))

    def is_owed_before(self, waiter: Waiter) -> bool:
        """Whether demand that no closing slot will meet is older than this ticket."""
        return self.demand > self.closing and self.first_in_demand()[0] < waiter.ticket

    def _rebuild_ranking(self) -> None:
        # Origins that come, cancel and never return would otherwise pile up behind the top.
        for _, where in self.ranking:
            where.ranked = bool(where.demand)
        self.ranking = [entry for entry in self.ranking if entry[1].ranked]
        heapq.heapify(self.ranking)

    # Slots.

    def open(self, where: Origin) -> Slot:
        """A new slot whose dial covers the first uncovered ticket of its origin."""
        slot = Slot(self.mint(), where)
        self.slots[slot.id] = slot
        where.count += 1
        where.connecting += 1
        self._cover(where)
        self.reckon(where)
        return slot

    def made(self, slot: Slot) -> None:
        """The dial of the slot has succeeded."""
        slot.origin.connecting -= 1
        slot.born = self.now
        self.used(slot)

    def used(self, slot: Slot) -> None:
        """The slot was used, or made, right now: its idle time counts from here."""
        options = self.options
        slot.usable_until = min(self.now + options.idle_s, slot.born + options.age_max_s)

    def shelve(self, slot: Slot) -> None:
        """The slot is idle, the newest of all."""
        slot.state = "idle"
        slot.origin.idle[slot.id] = slot
        self.idle[slot.id] = slot

    def unshelve(self, slot: Slot) -> None:
        """The slot is idle no more."""
        del slot.origin.idle[slot.id]
        del self.idle[slot.id]

    def vacate(self, slot: Slot) -> None:
        """End the grant or lease of a slot, and with a grant its ticket."""
        if slot.holder is not None:
            del self.tickets[slot.holder.ticket]
            slot.holder = None
        if slot.stream:
            slot.stream = False
            self.count_stream(slot.origin, -1)

    def begin_closing(self, slot: Slot) -> None:
        """Take a slot from whoever has it; it counts until it is removed."""
        if slot.state == "idle":
            self.unshelve(slot)
        elif slot.state == "connecting":
            slot.origin.connecting -= 1
        else:
            self.vacate(slot)
        slot.state = "closing"
        self.closing += 1

    def remove(self, slot: Slot) -> None:
        """The slot is gone, and its place free."""
        if slot.state != "closing":
            self.begin_closing(slot)
        self.closing -= 1
        slot.state = "gone"
        del self.slots[slot.id]
        slot.origin.count -= 1
        self.reckon(slot.origin)
        self._drop_if_empty(slot.origin)

    def _drop_if_empty(self, where: Origin) -> None:
        # Keep no record of origins that nobody uses: their number is not ours to bound.
        if not (where.count or where.covered or where.uncovered):
            del self.origins[where.key]

    # Streams.

    def stream_room(self, where: Origin | None) -> bool:
        """Whether one more lease may be a stream (see ``PoolOptions.streams_max``)."""
        options = self.options
        if self.streams >= min(options.streams_max, max(1, options.total - 1)):
            return False
        return where is None or where.streams < max(1, options.per_origin - 1)

    def count_stream(self, where: Origin, change: int) -> None:
        """One stream more, or less."""
        self.streams += change
        where.streams += change

    # Looking on.

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        states = Counter[State](slot.state for slot in self.slots.values())
        return PoolStatistics(
            connecting=states["connecting"],
            idle=states["idle"],
            granted=states["granted"],
            leased=states["leased"],
            closing=states["closing"],
            waiting=self.waiting,
            streams=self.streams,
            dials=self.counts["dials"],
            dial_failures=self.counts["dial_failures"],
            evictions=self.counts["evictions"],
            expiries=self.counts["expiries"],
            refusals=self.counts["refusals"],
        )

    def check_invariants(self) -> None:
        """Assert that counts agree with records, and that nobody waits for what is free."""
        slots = list(self.slots.values())
        assert len(slots) <= self.options.total
        assert len(self.idle) <= self.options.idle_max
        assert not (self.demand and len(slots) < self.options.total)
        assert self.demand <= self.closing or not self.idle
        assert self.closing == sum(slot.state == "closing" for slot in slots)
        assert set(self.idle) == {slot.id for slot in slots if slot.state == "idle"}
        granted = {s.holder.ticket for s in slots if s.holder is not None}
        queued: set[int] = set()
        for key, where in self.origins.items():
            mine = [slot for slot in slots if slot.origin is where]
            queue = [*where.covered, *where.uncovered]
            assert where.key == key
            assert mine or queue
            assert where.count == len(mine) <= self.options.per_origin
            assert where.connecting == sum(slot.state == "connecting" for slot in mine)
            assert set(where.idle) == {slot.id for slot in mine if slot.state == "idle"}
            assert queue == sorted(queue)
            assert not (queue and where.idle)
            assert len(where.covered) == min(where.connecting, len(queue))
            room = self.options.per_origin - where.count
            assert where.demand == min(len(where.uncovered), room)
            assert where.ranked or not where.demand
            queued.update(queue)
        assert self.waiting == len(queued)
        assert self.tickets.keys() == queued | granted
        assert self.demand == sum(where.demand for where in self.origins.values())
        assert self.streams == sum(where.streams for where in self.origins.values())
        assert self.streams == sum(s.stream for s in slots) + sum(
            w.stream for w in self.tickets.values() if w.slot is None
        )
        assert len(self.ranking) <= 2 * self.options.waiters_max + _RANKING_SLACK
