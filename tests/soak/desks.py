"""The servers of a soak, in a process of their own: ``python -m tests.soak.desks FOLDER``.

They are the faulty server of the fault matrix (``tests/support/faulty.py``), once on each wire.
Each call that arrives is a line of ``FOLDER/WIRE``, its number, written before it is answered: so
what was executed is known even of calls whose answer was lost. The first line on stdout says
where they are; they end with stdin.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sark_trio import Memory, Stdio
from sark_trio.client.servers import Server
from sark_trio.transports.memory import Incoming
from tests.support import stdio_servers
from tests.support.faulty import WIRES, Faulty, described, faulty

__all__ = ["NETWORKED", "SHELF", "WIRES", "servers"]

#: In this process; the one on stdio is a child of the client's.
NETWORKED = tuple(wire for wire in WIRES if wire != "stdio")
#: The name of a server in the client's own process, whose lists the cache keeps, but not for long.
SHELF = "shelf"
SHELF_TTL_MS = 100
#: Between two times at which they forget what they were asked.
FORGET_S = 5.0
_SCRIPT = Path(stdio_servers.__file__).parent / "faulty.py"


def servers(urls: Mapping[str, str], folder: Path) -> dict[str, Server]:
    """All of them, as a client is told of them; the one on stdio writes to *folder*, too."""
    command = [sys.executable, "-S", "-I", str(_SCRIPT), os.devnull, str(folder / "stdio")]
    found: dict[str, Server] = {wire: described(wire, url) for wire, url in urls.items()}
    return {**found, "stdio": Stdio(command), SHELF: Memory(_shelf)}


async def _shelf(incoming: Incoming) -> Mapping[str, Any]:
    incoming.receive()
    return {"resources": [{"uri": "file:///a", "name": "a"}], "ttlMs": SHELF_TTL_MS}


def _counted(path: Path) -> Callable[[Mapping[str, Any]], None]:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(arguments: Mapping[str, Any]) -> None:
        os.write(file, b"%d\n" % arguments["number"])

    return write


async def _forget(desks: list[Faulty]) -> None:
    """A server of a test keeps all requests for it; one of a soak cannot."""
    while True:
        await anyio.sleep(FORGET_S)
        for desk in desks:
            desk.listening.requests.clear()


async def main(folder: Path) -> None:
    async with AsyncExitStack() as stack:
        desks = [
            await stack.enter_async_context(faulty(wire, on_call=_counted(folder / wire)))
            for wire in NETWORKED
        ]
        print(json.dumps({desk.kind: desk.listening.url for desk in desks}), flush=True)
        async with anyio.create_task_group() as group:
            group.start_soon(_forget, desks)
            await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
            group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), backend="trio")
