"""Lines on file descriptors that were handed to this process, and that it must not change."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream

from sark_trio.machines.lines import LineSplitter, TooLong

__all__ = ["read_lines", "write_lines"]

_READ_BYTES: Final = 64 * 1024
#: A pipe that is writable takes so many bytes without blocking (POSIX, PIPE_BUF on Linux), so
#: that its descriptor can stay as it is: other programs may hold it, too.
_WRITE_BYTES: Final = 4_096


async def read_lines(fd: int, take: Callable[[bytes | TooLong], Awaitable[None]]) -> None:
    """Hand every line to *take*, until the end."""
    lines = LineSplitter()
    while True:
        await _ready(anyio.wait_readable, fd)
        chunk = os.read(fd, _READ_BYTES)
        if not chunk:
            return
        for line in lines.feed(chunk):
            await take(line)


async def write_lines(
    fd: int,
    messages: MemoryObjectReceiveStream[bytes],
    written: anyio.Event,
    scope: anyio.CancelScope,
) -> None:
    """Write every message as a line. Where nobody reads any more, all of it ends."""
    try:
        with messages:
            async for message in messages:
                rest = memoryview(message + b"\n")
                while rest:
                    await _ready(anyio.wait_writable, fd)
                    rest = rest[os.write(fd, rest[:_WRITE_BYTES]) :]
    except BrokenPipeError:
        scope.cancel()
    finally:
        written.set()


async def _ready(wait: Callable[[int], Awaitable[None]], fd: int) -> None:
    try:
        await wait(fd)
    except PermissionError:
        # A file is always ready, and no event loop can wait for it.
        await anyio.lowlevel.checkpoint()
