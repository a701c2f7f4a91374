"""An MCP server in a process of its own that writes down each effect before it answers.

    python -m tests.support.counting_server FILE

Prints its URL. The file gets the argument ``effect`` of each call, a line each, in order.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from tests.support.http_servers import Peer, Received, modern, result, serve
from tests.support.virtual import TOOLS

__all__ = ["running"]


async def main(file: str) -> None:
    effects = os.open(file, os.O_WRONLY | os.O_APPEND)

    async def handle(peer: Peer, received: Received) -> None:
        if received.rpc == "tools/list":
            await peer.send(result(received, TOOLS))
            return
        os.write(effects, f"{received.json['params']['arguments']['effect']}\n".encode())
        del peer.server.requests[:]
        await peer.send(result(received, {"resultType": "complete", "content": []}))

    async with serve(modern(handle)) as server:
        print(server.url, flush=True)
        # It ends with whoever started it.
        await anyio.to_thread.run_sync(sys.stdin.read)


@contextmanager
def running(file: Path) -> Iterator[str]:
    """Its URL, while the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        assert process.wait() == 0


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
