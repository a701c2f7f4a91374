"""Pipes of a simulated kernel: bounded, and taken and given in pieces of any size."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import trio
from attrs import define, field

from tests.simulation.network import Chaos

__all__ = ["ReadEnd", "Tube", "WriteEnd"]

#: What a pipe of Linux holds, and what one of a miser holds.
CAPACITY_BYTES, SMALL_BYTES = 65_536, 300
CHUNK_BYTES = 65_536


@define(eq=False)
class Tube:
    """What both ends share."""

    chaos: Chaos
    capacity: int = CAPACITY_BYTES
    data: bytearray = field(factory=bytearray)
    #: Nobody writes, or reads, any more.
    ended: bool = False
    deaf: bool = False
    waiting: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def touch(self) -> None:
        """Wake whoever waits."""
        self.waiting.unpark_all()

    def take(self) -> bytes | None:
        """What is there: bytes, ``b""`` at the end, ``None`` if nothing is there yet."""
        if not self.data:
            return b"" if self.ended else None
        count = min(CHUNK_BYTES, len(self.data))
        if count < 2_000 and self.chaos.strikes("small reads of pipes"):
            count = self.chaos.size("small reads of pipes", count)
        piece = bytes(self.data[:count])
        del self.data[:count]
        self.touch()
        return piece

    def give(self, data: bytes | memoryview) -> int:
        """Put *data* or a beginning of it into the pipe; the number of bytes taken.

        :raises BrokenPipeError: nobody reads.
        """
        if self.deaf:
            raise BrokenPipeError
        count = min(len(data), self.capacity - len(self.data))
        if 0 < count < 2_000 and self.chaos.strikes("partial writes to pipes"):
            count = self.chaos.size("partial writes to pipes", count)
        if count > 0:
            self.data += data[:count]
            self.touch()
        return count

    def end(self) -> None:
        """Nobody writes any more."""
        self.ended = True
        self.touch()

    def deafen(self) -> None:
        """Nobody reads any more."""
        self.deaf = True
        self.touch()

    async def read(self) -> bytes:
        """As :meth:`take`, but wait for something."""
        while (chunk := self.take()) is None:
            await self.waiting.park()
        return chunk

    async def write(self, data: bytes) -> None:
        """As :meth:`give`, but all of it."""
        left = memoryview(data)
        while left:
            count = self.give(left)
            left = left[count:]
            if left and not count:
                await self.waiting.park()


@define(eq=False)
class _End:
    """Our end of a pipe (see :class:`sark_trio.transports.process.Channel`)."""

    tube: Tube
    is_open: bool = True

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.closed()

    def closed(self) -> None:
        raise NotImplementedError


@define(eq=False)
class ReadEnd(_End):
    """Stdout or stderr of a child."""

    def closed(self) -> None:
        self.tube.deafen()

    def receive_nowait(self) -> bytes | None:
        return self.tube.take() if self.is_open else b""

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while self.is_open:
            chunk = self.tube.take()
            if chunk is not None:
                return chunk
            await self.tube.waiting.park()
        raise anyio.ClosedResourceError


@define(eq=False)
class WriteEnd(_End):
    """Stdin of a child."""

    def closed(self) -> None:
        self.tube.end()

    def send_nowait(self, buffers: Sequence[bytes | memoryview]) -> int:
        if not self.is_open:
            raise BrokenPipeError
        return self.tube.give(b"".join(buffers))

    async def wait_sendable(self) -> None:
        await trio.lowlevel.checkpoint()
        tube = self.tube
        while len(tube.data) >= tube.capacity and not tube.deaf:
            if not self.is_open:
                raise anyio.ClosedResourceError
            await tube.waiting.park()
