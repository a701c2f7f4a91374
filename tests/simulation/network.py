"""A network in memory, in virtual time: TCP as a client sees it when things go wrong.

Bytes take time, arrive in pieces of any size, and may stop; a connection may be refused, never
made, ended, reset, or left half open by a peer that is gone. Who decides is a :class:`Chaos`,
drawn from a seed: nothing here knows chance of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import httpcore
from attrs import define, field

__all__ = ["Chaos", "Network", "Wire"]

#: What the two kernels between us and the peer buffer.
BUFFER_BYTES = 64 * 1024


class Chaos(Protocol):
    """Decides what happens."""

    def strikes(self, point: str) -> bool:
        """Whether the fault *point* happens now."""

    def seconds(self, low: float, high: float) -> float:
        """A delay."""

    def size(self, most: int) -> int:
        """A number of bytes from 1 to *most*."""


@define(eq=False)
class _Pipe:
    """One direction of a connection."""

    chaos: Chaos
    data: bytearray = field(factory=bytearray)
    pieces: deque[bytes] = field(factory=deque)
    #: Bytes that were written and have not arrived.
    flying: int = 0
    ended: bool = False
    broken: bool = False
    #: Nothing arrives any more, and nobody is told.
    stalled: bool = False
    #: When the last byte that flies will have landed: bytes do not overtake each other.
    lands_at: float = 0.0
    changed: anyio.Event = field(factory=anyio.Event)

    def touch(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@define(eq=False)
class Wire(httpcore.AsyncNetworkStream):
    """One end of a connection."""

    network: Network
    incoming: _Pipe
    outgoing: _Pipe
    peer: Wire | None = None
    closed: bool = False
    bytes_written: int = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived, in pieces of any size; ``b""`` at the end."""
        pipe = self.incoming
        with anyio.move_on_after(timeout):
            while True:
                await anyio.lowlevel.checkpoint()
                if self.closed or pipe.broken:
                    raise httpcore.ReadError("reset")
                if pipe.data:
                    count = min(max_bytes, len(pipe.data))
                    count = pipe.chaos.size(count) if pipe.chaos.strikes("small reads") else count
                    piece = bytes(pipe.data[:count])
                    del pipe.data[:count]
                    pipe.touch()
                    return piece
                if pipe.ended and not pipe.flying and not pipe.stalled:
                    return b""
                await pipe.changed.wait()
        raise httpcore.ReadTimeout(f"{timeout} s")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hand *buffer* to the network, which takes what its buffers hold."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        pipe, left = self.outgoing, bytes(buffer)
        with anyio.move_on_after(timeout):
            while left:
                if self.closed or pipe.broken:
                    raise httpcore.WriteError("reset")
                room = BUFFER_BYTES - len(pipe.data) - pipe.flying
                if room <= 0:
                    await pipe.changed.wait()
                    continue
                count = min(room, len(left))
                if pipe.chaos.strikes("partial writes"):
                    count = pipe.chaos.size(count)
                piece, left = left[:count], left[count:]
                self.bytes_written += count
                self.network.send(pipe, piece)
                if left:
                    await anyio.lowlevel.checkpoint()
            return
        raise httpcore.WriteTimeout(f"{timeout} s")

    def end(self) -> None:
        """FIN: nothing more from this end."""
        self.outgoing.ended = True
        self.outgoing.touch()

    def reset(self) -> None:
        """RST: both directions are gone at once, and what flies with them."""
        for pipe in (self.incoming, self.outgoing):
            pipe.broken = True
            pipe.touch()

    def close(self) -> None:
        """Close this end."""
        if not self.closed:
            self.closed = True
            self.network.open_ends.discard(id(self))
            self.incoming.touch()
            self.end()

    async def aclose(self) -> None:
        """As :meth:`close`; then a checkpoint."""
        self.close()
        await anyio.lowlevel.checkpoint()

    def get_extra_info(self, info: str) -> Any:
        """What a pool asks of a stream."""
        pipe = self.incoming
        if info == "is_readable":
            return self.closed or pipe.broken or bool(pipe.data) or (pipe.ended and not pipe.flying)
        return self.bytes_written if info == "bytes_written" else None


Accept = Callable[[Wire], Coroutine[Any, Any, None]]


@define(eq=False)
class Network(httpcore.AsyncNetworkBackend):
    """Where hosts are. Their servers run in *tasks*."""

    chaos: Chaos
    tasks: anyio.abc.TaskGroup
    hosts: dict[str, Accept] = field(factory=dict)
    #: Ends of the client that are open.
    open_ends: set[int] = field(factory=set)
    most_open: int = 0

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
        with anyio.move_on_after(timeout):
            if self.chaos.strikes("blackholed connects"):
                await anyio.sleep_forever()
            await anyio.sleep(self.chaos.seconds(0, 0.05))
            accept = self.hosts.get(host)
            if accept is None or self.chaos.strikes("refused connects"):
                raise httpcore.ConnectError("connection refused")
            there, back = _Pipe(self.chaos), _Pipe(self.chaos)
            ours = Wire(self, incoming=back, outgoing=there)
            theirs = Wire(self, incoming=there, outgoing=back, peer=ours)
            ours.peer = theirs
            self.open_ends.add(id(ours))
            self.most_open = max(self.most_open, len(self.open_ends))
            self.tasks.start_soon(accept, theirs)
            return ours
        raise httpcore.ConnectTimeout(f"{timeout} s")

    async def sleep(self, seconds: float) -> None:
        """Virtual."""
        await anyio.sleep(seconds)

    def send(self, pipe: _Pipe, piece: bytes) -> None:
        """Put *piece* on its way."""
        pipe.flying += len(piece)
        if pipe.chaos.strikes("stalled links"):
            pipe.stalled = True
        delay = pipe.chaos.seconds(0, 2) if pipe.chaos.strikes("slow links") else 0.001
        pipe.lands_at = max(pipe.lands_at, anyio.current_time() + delay)
        pipe.pieces.append(piece)
        self.tasks.start_soon(_land, pipe, pipe.lands_at)


async def _land(pipe: _Pipe, at: float) -> None:
    await anyio.sleep_until(at)
    if pipe.stalled or pipe.broken:
        return  # it stays in flight for ever
    # Whichever of several tasks wakes first: the oldest bytes are the first to arrive.
    piece = pipe.pieces.popleft()
    pipe.data += piece
    pipe.flying -= len(piece)
    pipe.touch()
