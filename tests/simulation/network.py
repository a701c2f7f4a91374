"""A network in memory, in virtual time: TCP as a client sees it when things go wrong.

Bytes take time, arrive in pieces of any size, and may stop; a connection may be refused, never
made, overtaken by a later one, ended (FIN), reset (RST), or left half open by a peer that is
gone; and all that goes to or from a host may be clogged for a while. Who decides is a
:class:`Chaos`, drawn from a seed: nothing here knows chance of its own.

What lands is found out by whoever looks, so that bytes in flight cost no task and no timer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

import httpcore
import trio
from attrs import define, field

from tests.simulation.clock import VirtualClock

__all__ = ["Chaos", "Host", "Network", "Wire"]

#: What the two kernels between us and the peer buffer.
BUFFER_BYTES = 64 * 1024
#: A connection that is doomed lives for so many bytes of one direction.
DOOMED_BYTES = 2_000
LATENCY_S = 0.001
#: Until our kernel finds out that nobody is there (``net.sockets``: 15 s, and 3 probes of 5 s).
KEEPALIVE_S = 30.0
#: For which a pool keeps a connection that nobody uses.
IDLE_S = 30.0


class Chaos(Protocol):
    """Decides what happens."""

    def strikes(self, point: str) -> bool:
        """Whether the fault *point* happens now."""

    def seconds(self, what: str, low: float, high: float) -> float:
        """A delay."""

    def size(self, what: str, most: int) -> int:
        """A number from 1 to *most*."""


def _set() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@define(eq=False)
class Host:
    """Somebody who can be connected to."""

    name: str
    accept: Callable[[Wire], Coroutine[Any, Any, None]]
    clock: VirtualClock
    #: Whether connections to it are kept for later, and for how long at most.
    is_pooled: bool = True
    #: Nothing lands, in neither direction, as long as it is set.
    clogged: bool = False
    free: trio.Event = field(factory=_set)
    pipes: list[_Pipe] = field(factory=list)
    #: Ends of the client's that are open, and the most that ever were.
    open_ends: set[int] = field(factory=set)
    most_open: int = 0
    #: Connections that were used again after they had been idle for too long.
    stale: list[float] = field(factory=list)

    def look(self, wire: Wire) -> None:
        """Something is about to be sent on *wire*."""
        idle_s = self.clock.lasting - wire.active_at
        # Who took it in the very moment of a leap of the clock could not know.
        if self.is_pooled and idle_s > IDLE_S and self.clock.leapt_at < self.clock.now:
            self.stale.append(idle_s)

    def clog(self, *, clogged: bool) -> None:
        """Hold back everything, or let it go."""
        self.clogged = clogged
        if clogged:
            self.free = trio.Event()
        else:
            self.free.set()
        for pipe in self.pipes:
            pipe.touch()


@define(eq=False)
class _Pipe:
    """One direction of a connection."""

    chaos: Chaos
    host: Host
    data: bytearray = field(factory=bytearray)
    #: What was written and has not landed, with the time at which it will.
    flying: deque[tuple[float, bytes]] = field(factory=deque)
    flying_bytes: int = 0
    ended: bool = False
    broken: bool = False
    #: Nothing arrives any more, and nobody is told.
    stalled: bool = False
    #: After so many bytes it stalls, or the connection is reset.
    stalls_after: float = math.inf
    resets_after: float = math.inf
    #: When the last byte that flies will have landed: bytes do not overtake each other.
    lands_at: float = 0.0
    #: Since when nothing gets through, which keep-alive probes find out.
    dead_since: float = math.inf
    #: Who waits for a change.
    waiting: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def touch(self) -> None:
        self.waiting.unpark_all()

    def die(self) -> None:
        """Let nothing through any more, and tell nobody."""
        self.dead_since = min(self.dead_since, trio.current_time())
        self.touch()

    def land(self, now: float) -> float:
        """Take what has landed; the time at which more will have, if nothing else happens."""
        if self.stalled or self.host.clogged:
            return math.inf
        flying = self.flying
        while flying and flying[0][0] <= now:
            piece = flying.popleft()[1]
            self.data += piece
            self.flying_bytes -= len(piece)
        return flying[0][0] if flying else math.inf

    @property
    def is_over(self) -> bool:
        return self.ended and not (self.flying or self.stalled or self.host.clogged)

    async def change(self, until: float) -> None:
        """Wait until something changed, or for *until*."""
        if until == math.inf:
            await self.waiting.park()
            return
        with trio.CancelScope(deadline=until):
            await self.waiting.park()


@define(eq=False)
class Wire(httpcore.AsyncNetworkStream):
    """One end of a connection."""

    incoming: _Pipe
    outgoing: _Pipe
    host: Host
    ours: bool
    closed: bool = False
    bytes_written: int = 0
    #: When a byte last went out or came in, by the clock that goes on in suspend.
    active_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.active_at = self.host.clock.lasting

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived, in pieces of any size; ``b""`` at the end."""
        await trio.lowlevel.checkpoint()
        pipe = self.incoming
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        while True:
            if self.closed or pipe.broken:
                raise httpcore.ReadError("reset")
            now = trio.current_time()
            next_at = pipe.land(now)
            if pipe.data:
                return self._taken(max_bytes)
            if pipe.is_over:
                return b""
            if now >= deadline:
                raise httpcore.ReadTimeout(f"{timeout} s")
            lost_at = min(pipe.dead_since, self.outgoing.dead_since) + KEEPALIVE_S
            if self.ours and now >= lost_at:
                raise httpcore.ReadError("nobody answers keep-alive probes")
            await pipe.change(min(next_at, deadline, lost_at if self.ours else math.inf))

    def _taken(self, max_bytes: int) -> bytes:
        pipe = self.incoming
        count = min(max_bytes, len(pipe.data))
        if pipe.chaos.strikes("small reads"):
            count = pipe.chaos.size("small reads", count)
        piece = bytes(pipe.data[:count])
        del pipe.data[:count]
        pipe.touch()
        self.active_at = self.host.clock.lasting
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hand *buffer* to the network, which takes what its buffers hold."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.ours:
            self.host.look(self)
        pipe, left = self.outgoing, bytes(buffer)
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        while left:
            if self.closed or pipe.broken:
                raise httpcore.WriteError("reset")
            room = BUFFER_BYTES - len(pipe.data) - pipe.flying_bytes
            if room <= 0:
                if trio.current_time() >= deadline:
                    raise httpcore.WriteTimeout(f"{timeout} s")
                await pipe.change(deadline)
                continue
            count = min(room, len(left))
            if pipe.chaos.strikes("partial writes"):
                count = pipe.chaos.size("partial writes", count)
            piece, left = left[:count], left[count:]
            self._send(piece)
            if left:
                await trio.lowlevel.checkpoint()

    def _send(self, piece: bytes) -> None:
        """Put *piece* on its way."""
        pipe, chaos = self.outgoing, self.outgoing.chaos
        before, self.bytes_written = self.bytes_written, self.bytes_written + len(piece)
        if self.bytes_written > pipe.resets_after:
            self.reset()
            return
        self.active_at = self.host.clock.lasting
        if self.bytes_written > pipe.stalls_after:
            piece = piece[: max(0, int(pipe.stalls_after) - before)]
            pipe.die()
        delay = chaos.seconds("slow links", 0, 2) if chaos.strikes("slow links") else LATENCY_S
        pipe.lands_at = max(pipe.lands_at, trio.current_time() + delay)
        if piece:
            pipe.flying.append((pipe.lands_at, piece))
            pipe.flying_bytes += len(piece)
            pipe.touch()

    def end(self) -> None:
        """FIN: nothing more from this end."""
        if self.bytes_written <= self.outgoing.stalls_after:
            self.outgoing.ended = True
            self.outgoing.touch()

    def reset(self) -> None:
        """RST: both directions are gone at once, and what flies with them."""
        for pipe in (self.incoming, self.outgoing):
            pipe.broken = True
            pipe.touch()

    def forget(self) -> None:
        """The peer is gone, and nobody is told: half open."""
        for pipe in (self.incoming, self.outgoing):
            pipe.stalled = True
            pipe.die()

    def close(self) -> None:
        """Close this end."""
        if self.closed:
            return
        self.closed = True
        if self.ours:
            self.host.open_ends.discard(id(self))
        self.incoming.touch()
        self.end()

    async def aclose(self) -> None:
        """As :meth:`close`; then a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def get_extra_info(self, info: str) -> Any:
        """What a pool asks of a stream."""
        if info == "is_readable":
            self.incoming.land(trio.current_time())
            pipe = self.incoming
            return self.closed or pipe.broken or bool(pipe.data) or pipe.is_over
        return self.bytes_written if info == "bytes_written" else None


@define(eq=False)
class Network(httpcore.AsyncNetworkBackend):
    """Where hosts are. Their servers run in *tasks*."""

    chaos: Chaos
    tasks: trio.Nursery
    clock: VirtualClock
    hosts: dict[str, Host] = field(factory=dict)

    def add(
        self,
        name: str,
        accept: Callable[[Wire], Coroutine[Any, Any, None]],
        *,
        is_pooled: bool = True,
    ) -> Host:
        """A host of that name, which serves each connection with *accept*."""
        host = self.hosts[name] = Host(name, accept, self.clock, is_pooled)
        return host

    def heal(self) -> None:
        """No connection is doomed any more that is not lost already."""
        for host in self.hosts.values():
            for pipe in host.pipes:
                pipe.resets_after = math.inf
                if pipe.dead_since == math.inf:
                    pipe.stalls_after = math.inf

    @property
    def open_ends(self) -> int:
        """Connections of the client that are open."""
        return sum(len(host.open_ends) for host in self.hosts.values())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Wire:
        """Connect, or fail as TCP does."""
        del port, local_address, socket_options
        chaos = self.chaos
        with trio.move_on_after(math.inf if timeout is None else timeout):
            if chaos.strikes("blackholed connects"):
                await trio.sleep_forever()
            slow = chaos.strikes("overtaken connects")
            await trio.sleep(chaos.seconds("connects", 0, 4 if slow else 0.05))
            there = self.hosts[host]
            await there.free.wait()
            if chaos.strikes("refused connects"):
                raise httpcore.ConnectError("connection refused")
            return self._connected(there)
        raise httpcore.ConnectTimeout(f"{timeout} s")

    def _connected(self, host: Host) -> Wire:
        there, back = _Pipe(self.chaos, host), _Pipe(self.chaos, host)
        for pipe in (there, back):
            if self.chaos.strikes("stalled links"):
                pipe.stalls_after = self.chaos.size("stalled links", DOOMED_BYTES)
            if self.chaos.strikes("resets"):
                pipe.resets_after = self.chaos.size("resets", DOOMED_BYTES)
        ours = Wire(incoming=back, outgoing=there, host=host, ours=True)
        theirs = Wire(incoming=there, outgoing=back, host=host, ours=False)
        host.pipes += (there, back)
        host.open_ends.add(id(ours))
        host.most_open = max(host.most_open, len(host.open_ends))
        self.tasks.start_soon(host.accept, theirs)
        return ours

    async def sleep(self, seconds: float) -> None:
        """Virtual."""
        await trio.sleep(seconds)
