"""Real server processes for the tests of the stdio transport."""

from __future__ import annotations

import base64
import gc
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio

from sark_trio.transports.base import Outgoing
from sark_trio.transports.stdio import StdioTransport

__all__ = [
    "SCRIPTED",
    "b64",
    "baseline",
    "call",
    "changeable",
    "descriptors",
    "ended",
    "make",
    "running",
    "tool",
]

#: The argv of the scripted server; -S and -I because it needs nothing and starts faster.
SCRIPTED = [
    sys.executable,
    "-S",
    "-I",
    str(Path(__file__).parent / "stdio_servers" / "scripted.py"),
]
_CHANGEABLE = Path(__file__).parent / "stdio_servers" / "changeable.py"
#: Longer than anything here takes on a loaded machine: a test that gets there has hung.
HUNG_S = 20.0


def changeable(tools: Path, seen: Path) -> list[str]:
    """The argv of a server whose tools *tools* lists, and which writes what it gets to *seen*."""
    return [sys.executable, "-S", "-I", str(_CHANGEABLE), str(tools), str(seen)]


def make(*flags: str, **options: Any) -> StdioTransport:
    """A transport to a scripted server."""
    options.setdefault("client_info", {"name": "tests", "version": "1"})
    return StdioTransport([*SCRIPTED, *flags], **options)


@asynccontextmanager
async def running(transport: StdioTransport) -> AsyncIterator[StdioTransport]:
    """Run *transport* for the length of a block, then close it."""
    with anyio.fail_after(HUNG_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(transport.run)
            yield transport
            await transport.aclose()


def tool(name: str, /, on_notification: Any = None, on_sent: Any = None, **arguments: Any) -> Any:
    """A call of one of the scripted server's tools."""
    params = {"name": name, "arguments": arguments}
    return Outgoing(
        method="tools/call", params=params, on_notification=on_notification, on_sent=on_sent
    )


async def call(transport: StdioTransport, name: str, /, **arguments: Any) -> dict[str, Any]:
    """Make such a call."""
    return await transport.request(tool(name, **arguments))


def b64(data: bytes) -> str:
    """Bytes as an argument for the scripted server."""
    return base64.b64encode(data).decode()


def descriptors() -> set[str]:
    """The open file descriptors of this process, and what they are."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{fd.name} {fd.readlink()}")
        except OSError:
            continue  # the one that did the listing
    return found


@contextmanager
def baseline() -> Iterator[None]:
    """Descriptors are as before at the end of the block, without the collector's help."""
    gc.collect()
    gc.disable()
    try:
        before = descriptors()
        yield
        for thread in threading.enumerate():
            if thread.name == "sark-audit":
                # Told to end, it closes what it has in a moment that no scheduler knows of.
                thread.join(HUNG_S)
        assert descriptors() == before
    finally:
        gc.enable()


async def ended(pid: int) -> None:
    """Wait until process *pid*, which need not be a child of ours, has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with anyio.fail_after(HUNG_S):
            await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)
