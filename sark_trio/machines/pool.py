"""Who gets which connection: a pool's book-keeping, without connections, clock or I/O.

The shell tells what happened (*want*, *dialed*, *give_back*, ...) and gets back effects to
carry out: :class:`Dial`, :class:`Grant`, :class:`Close`, :class:`Fail`. A connection is a
*slot*, a request for one is a *ticket*; both are ints minted here, never used twice.

Theory of operation. Every slot belongs to exactly one of: its dial, the idle shelf, a ticket
that was granted it and has not started, a lessee, or whoever closes it. All five count
against ``total`` and ``per_origin``, so the limits bound sockets and not just hopes.

- A ticket is served from the idle shelf, newest first. Else it queues; per origin the first
  *n* in the queue are *covered* by the *n* dials underway to that origin, the rest are not.
- *Demand* is the uncovered tickets whose origin may still open connections. It is met in
  ticket order: by a dial while ``total`` has room, else by closing the longest idle
  connection, unless as many are closing already. Hence an older ticket is passed only while
  its own origin is full, or by a connection dialed for a younger one while it was.
- A connection that comes back goes to the oldest ticket of its origin, unless unmet demand
  elsewhere is older: then it is closed for that, or busy origins would starve quiet ones.

Each event costs a bounded number of container operations, however many tickets wait.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import final

from attrs import Factory, asdict, define, field

from sark_trio.machines.ledger import Ledger, Origin, Slot, Waiter
from sark_trio.machines.slots import (
    Close,
    Dial,
    Effect,
    Effects,
    Fail,
    Fault,
    Grant,
    PoolOptions,
    PoolStatistics,
)

__all__ = [
    "Close",
    "Dial",
    "Effect",
    "Fail",
    "Fault",
    "Grant",
    "Pool",
    "PoolOptions",
    "PoolStatistics",
]


@final
@define(eq=False, repr=False)
class Pool:
    """The book-keeping of one pool; see the module's docstring.

    Every event takes ``now``, monotonic seconds; a ``now`` before the last one counts as it.
    """

    options: PoolOptions = field(factory=PoolOptions)
    _shut: bool = field(default=False, init=False)
    _kill_at: float | None = field(default=None, init=False)
    _ledger: Ledger = field(
        init=False, default=Factory(lambda self: Ledger(self.options), takes_self=True)
    )

    # What happens to tickets.

    def try_lease(self, now: float, origin: Hashable, *, stream: bool = False) -> int | None:
        """Lease an idle connection of *origin* at once, or ``None``: then ``want`` one.

        The slot is the caller's: no ``start``, but a ``give_back`` (or ``closed``) in the end.
        """
        ledger = self._ledger
        ledger.advance(now)
        where = ledger.origins.get(origin)
        if where is None or not where.idle or (stream and not ledger.stream_room(where)):
            return None
        number, slot = where.idle.popitem()
        if slot.usable_until <= ledger.now:
            where.idle[number] = slot  # its place was the last; ``want`` closes what is expired
            return None
        del ledger.idle[number]
        slot.state = "leased"
        if stream:
            slot.stream = True
            ledger.count_stream(where, 1)
        return number

    def want(self, now: float, origin: Hashable, *, stream: bool = False) -> tuple[int, Effects]:
        """Ask for a connection to *origin*: the ticket, and what to do.

        The ticket ends with ``Fail``, with ``cancel``, or, after its ``Grant``, with ``start``.

        :param stream: it will be held for long (an event stream); see ``streams_max``.
        """
        ledger = self._ledger
        ledger.advance(now)
        ticket = ledger.mint()
        if self._shut:
            return ticket, self._refuse(Fail(ticket, "shutdown"))
        where = ledger.origins.get(origin)
        if stream and not ledger.stream_room(where):
            return ticket, self._refuse(Fail(ticket, "streams_full"))
        out: list[Effect] = []
        slot = None if where is None else self._take_idle(where, out)
        if slot is None and ledger.waiting >= self.options.waiters_max:
            return ticket, (*out, *self._refuse(Fail(ticket, "full")))
        if where is None:
            where = ledger.origins[origin] = Origin(origin)
        waiter = ledger.tickets[ticket] = Waiter(ticket, where, stream)
        if stream:
            ledger.count_stream(where, 1)
        if slot is not None:
            self._grant(slot, waiter, out)
        else:
            ledger.enqueue(waiter)
        return ticket, self._settled(out)

    def start(self, now: float, ticket: int) -> int | Fault:
        """Take up a grant before the first byte: the slot, from now on the caller's to give back.

        A :class:`Fault` if the ticket has no grant (any more): the pool was shut down.
        """
        ledger = self._ledger
        ledger.advance(now)
        waiter = ledger.tickets.get(ticket)
        if waiter is None or waiter.slot is None:
            return Fault("start", f"ticket {ticket} has no grant")
        del ledger.tickets[ticket]
        waiter.slot.holder = None
        waiter.slot.state = "leased"
        return waiter.slot.id

    def cancel(self, now: float, ticket: int) -> Effects:
        """The ticket is wanted no more: it waits, or was granted a slot and has not started.

        A granted slot moves on in this very step. Once started, ``give_back`` ends the lease.
        """
        ledger = self._ledger
        ledger.advance(now)
        waiter = ledger.tickets.get(ticket)
        if waiter is None:
            return (Fault("cancel", f"ticket {ticket} neither waits nor has a grant"),)
        out: list[Effect] = []
        if waiter.slot is not None:
            ledger.vacate(waiter.slot)
            self._release(waiter.slot, out)
        else:
            ledger.forget(waiter)
        return self._settled(out)

    # What happens to connections.

    def dialed(self, now: float, slot: int) -> Effects:
        """The connection of *slot* is open (TLS done)."""
        ledger = self._ledger
        found = ledger.find("dialed", now, slot)
        if isinstance(found, Fault):
            return (found,)
        if found.state == "closing":  # it was ready before our request to abort it arrived
            return (Close(slot),)
        out: list[Effect] = []
        ledger.made(found)
        self._release(found, out, fresh=True)
        return self._settled(out)

    def dial_failed(self, now: float, slot: int, error: BaseException | None = None) -> Effects:
        """The dial of *slot* failed, or was aborted. Its origin's oldest ticket fails with it."""
        ledger = self._ledger
        found = ledger.find("dial_failed", now, slot)
        if isinstance(found, Fault):
            return (found,)
        out: list[Effect] = []
        if found.state == "connecting":
            ledger.begin_closing(found)
            ledger.counts["dial_failures"] += 1
            waiter = found.origin.oldest()
            if waiter is not None:
                ledger.forget(waiter)
                out.append(Fail(waiter.ticket, "dial_failed", error))
        ledger.remove(found)
        return self._settled(out)

    def give_back(self, now: float, slot: int, *, clean: bool) -> Effects:
        """The lessee is done. *clean*: the exchange ended such that another may follow."""
        ledger = self._ledger
        found = ledger.find("give_back", now, slot)
        if isinstance(found, Fault):
            return (found,)
        if found.state == "closing":  # shut down under the lessee's hands
            return ()
        out: list[Effect] = []
        ledger.vacate(found)
        ledger.used(found)
        found.dead = found.dead or not clean
        self._release(found, out)
        return self._settled(out)

    def peer_closed(self, now: float, slot: int) -> Effects:
        """The peer closed the connection, or sent bytes nobody asked for: use it no more."""
        ledger = self._ledger
        found = ledger.find("peer_closed", now, slot)
        if isinstance(found, Fault):
            return (found,)
        out: list[Effect] = []
        found.dead = True
        if found.state == "idle":
            self._close(found, out)
        return self._settled(out)

    def closed(self, now: float, slot: int) -> Effects:
        """The connection of *slot* is closed, on our ``Close`` or by its owner's own hand."""
        ledger = self._ledger
        found = ledger.find("closed", now, slot)
        if isinstance(found, Fault):
            return (found,)
        ledger.remove(found)
        return self._settled([])

    # What time and the owner do.

    def next_deadline(self) -> float | None:
        """When ``tick`` has something to do next; ``None``: not before another event."""
        if self._shut:
            return self._kill_at
        longest = next(iter(self._ledger.idle.values()), None)
        return None if longest is None else longest.usable_until

    def tick(self, now: float) -> Effects:
        """Close what was idle for too long; after a shutdown's grace, whatever is left."""
        ledger = self._ledger
        ledger.advance(now)
        out: list[Effect] = []
        while (slot := next(iter(ledger.idle.values()), None)) is not None:
            if slot.usable_until > ledger.now:
                break
            ledger.counts["expiries"] += 1
            self._close(slot, out)
        if self._kill_at is not None and self._kill_at <= ledger.now:
            self._kill_at = None
            for slot in ledger.slots.values():
                if slot.holder is not None:
                    out.append(Fail(slot.holder.ticket, "shutdown"))
                if slot.state != "closing":
                    self._close(slot, out)
        return self._settled(out)

    def shutdown(self, now: float) -> Effects:
        """Fail who waits and whoever comes, abort dials, close idle; leases have ``grace_s``."""
        ledger = self._ledger
        ledger.advance(now)
        if self._shut:
            return ()
        self._shut = True
        self._kill_at = ledger.now + self.options.grace_s
        out: list[Effect] = []
        for waiter in [w for w in ledger.tickets.values() if w.slot is None]:
            ledger.forget(waiter)
            out.append(Fail(waiter.ticket, "shutdown"))
        for slot in ledger.slots.values():
            if slot.state in {"connecting", "idle"}:
                self._close(slot, out)
        return self._settled(out)

    # Looking on.

    @property
    def drained(self) -> bool:
        """Shut down, and no slot is left."""
        return self._shut and not self._ledger.slots

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        return self._ledger.statistics()

    def check_invariants(self) -> None:
        """Assert that the records agree, and that nobody waits for what is free."""
        self._ledger.check_invariants()
        assert not (self._shut and (self._ledger.idle or self._ledger.waiting))

    def __repr__(self) -> str:
        now = asdict(self.statistics())
        counts = " ".join(f"{word}={now[word]}" for word in list(now)[:6])
        return f"<Pool {'shut ' if self._shut else ''}{counts}>"

    # Moves: each leaves the ledger in balance and notes what the shell has to do.

    def _refuse(self, fail: Fail) -> tuple[Fail]:
        self._ledger.counts["refusals"] += 1
        return (fail,)

    def _take_idle(self, where: Origin, out: list[Effect]) -> Slot | None:
        while where.idle:
            slot = next(reversed(where.idle.values()))
            if slot.usable_until > self._ledger.now:
                self._ledger.unshelve(slot)
                return slot
            self._ledger.counts["expiries"] += 1
            self._close(slot, out)
        return None

    def _grant(self, slot: Slot, waiter: Waiter, out: list[Effect]) -> None:
        slot.state = "granted"
        slot.holder = waiter
        slot.stream = waiter.stream
        waiter.slot = slot
        out.append(Grant(waiter.ticket, slot.id))

    def _release(self, slot: Slot, out: list[Effect], *, fresh: bool = False) -> None:
        # The slot is nobody's: the one place where a connection finds its next owner.
        ledger = self._ledger
        waiter = slot.origin.oldest()
        # A fresh one has no rival: whatever older demand there is was barred when it was dialed.
        if not fresh and (self._shut or slot.dead or slot.usable_until <= ledger.now):
            self._close(slot, out)
        elif waiter is None:
            ledger.shelve(slot)
            if len(ledger.idle) > self.options.idle_max:
                self._evict(out)
        elif not fresh and ledger.is_owed_before(waiter):
            ledger.counts["evictions"] += 1
            self._close(slot, out)
        else:
            ledger.dequeue(waiter)
            self._grant(slot, waiter, out)

    def _evict(self, out: list[Effect]) -> None:
        self._ledger.counts["evictions"] += 1
        self._close(next(iter(self._ledger.idle.values())), out)

    def _close(self, slot: Slot, out: list[Effect]) -> None:
        self._ledger.begin_closing(slot)
        out.append(Close(slot.id))

    def _settled(self, out: list[Effect]) -> Effects:
        # Meet demand as far as limits allow: the last thing that every event does.
        ledger = self._ledger
        while ledger.demand and len(ledger.slots) < self.options.total:
            slot = ledger.open(ledger.first_in_demand()[1])
            ledger.counts["dials"] += 1
            out.append(Dial(slot.id, slot.origin.key))
        while ledger.demand > ledger.closing and ledger.idle:
            self._evict(out)
        return tuple(out)
