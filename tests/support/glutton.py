"""A client that is sent far too much, in a process of its own, and how much memory that took.

    python -m tests.support.glutton BACKEND MEBIBYTES URL

Prints, for each kind of flood, by how many bytes the largest resident set grew, and the error.
:func:`fed` runs it against a server that sends the floods.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio

from sark_trio import AllowAll, AuditLog, GatewayClient, Http
from sark_trio.errors import GatewayError
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE
from tests.support.http_servers import SSE_HEAD, Peer, Received, chunk, modern, result, serve
from tests.support.stdio import make, tool
from tests.support.virtual import TOOLS

__all__ = ["GROWTH_BYTES_MAX", "PROCESS", "WEB", "fed"]

#: Of the largest resident set, for each flood.
GROWTH_BYTES_MAX = 16 << 20
#: What a server behind a URL sends, and what a process writes.
WEB = ("body", "event", "bomb")
PROCESS = ("line", "stderr")
_MIB = 1 << 20


# -- what is sent ------------------------------------------------------------------------------


def body(mebibytes: int) -> Iterator[bytes]:
    """One JSON string, whose length nobody says beforehand."""
    yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    yield b'transfer-encoding: chunked\r\n\r\n1\r\n"\r\n'
    yield from [chunk(b"x" * _MIB)] * mebibytes


def event(mebibytes: int) -> Iterator[bytes]:
    """One event in lines of a kilobyte."""
    yield SSE_HEAD
    yield from [chunk((b"data: " + b"x" * 1017 + b"\n") * 1024)] * mebibytes


def bomb(mebibytes: int) -> Iterator[bytes]:
    """Zeros, a thousandth of their size."""
    yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n"
    yield b"transfer-encoding: chunked\r\n\r\n"
    packer = zlib.compressobj(wbits=31)
    for _ in range(mebibytes):
        if packed := packer.compress(bytes(_MIB)):
            yield chunk(packed)
    yield chunk(packer.flush()) + b"0\r\n\r\n"


async def fed(backend: str, mebibytes: int) -> dict[str, Any]:
    """What a glutton says of each flood of so many MiB."""

    async def handle(peer: Peer, received: Received) -> None:
        if received.rpc == "tools/list":
            await peer.send(result(received, TOOLS))
            return
        what = received.json["params"]["arguments"].get("flood")
        if what is None:
            await peer.send(result(received, {"resultType": "complete", "content": []}))
            return
        for data in {"body": body, "event": event, "bomb": bomb}[what](mebibytes):
            await peer.send(data)

    async with serve(modern(handle)) as server:
        argv = [sys.executable, "-m", __name__, backend, str(mebibytes), server.url]
        where = Path(__file__).parents[2]
        done = await anyio.run_process(argv, cwd=where, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# -- what is done with it ----------------------------------------------------------------------


def _largest_bytes() -> int:
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1]) * 1024


def _forget_largest() -> int:
    """From now on the largest so far is what is there now: so much."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _largest_bytes()


async def _flooded(ask: Callable[[str], Awaitable[object]], flood: str) -> dict[str, Any]:
    before, error = _forget_largest(), None
    try:
        await ask(flood)
    except GatewayError as exc:
        error = type(exc.__cause__ or exc).__name__
    return {"grown_bytes": _largest_bytes() - before, "error": error}


async def main(mebibytes: int, url: str) -> None:
    process = make()
    client = GatewayClient(
        servers={"web": Http(url)},
        policy=AllowAll(),
        audit=AuditLog("log", files=MemoryDisk()),
        principal=ALICE,
        timeout_s=300.0,
    )

    async def from_web(flood: str | None) -> None:
        await client.invoke_tool("web", "echo", {"flood": flood})

    async def from_process(flood: str) -> None:
        await process.request(tool(flood, mebibytes=mebibytes))

    told = {}
    async with client, anyio.create_task_group() as tasks:
        await tasks.start(process.run)
        await from_web(None)  # imports and caches
        await from_process("echo")
        for flood in WEB:
            told[flood] = await _flooded(from_web, flood)
        for flood in PROCESS:
            told[flood] = await _flooded(from_process, flood)
        await process.aclose()
    print(json.dumps(told))


if __name__ == "__main__":
    _, loop, size, address = sys.argv
    anyio.run(main, int(size), address, backend=loop)
