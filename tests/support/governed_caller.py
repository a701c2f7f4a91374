"""A process that forks clients, each of which makes governed calls until it is killed.

    python -m tests.support.governed_caller DIRECTORY BACKEND FSYNC CALLERS URL

A client prints ``ready``, then the effect that it asked for, once that was answered.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from itertools import count
from typing import Any

import anyio

from sark_trio import AllowAll, AuditLog, GatewayClient, Http
from tests.support.client import ALICE


async def call(client: GatewayClient, name: str) -> None:
    for number in count():
        effect = f"{name}-{number}"
        await client.invoke_tool("desk", "echo", {"effect": effect})
        os.write(1, f"{effect}\n".encode())


async def main(directory: str, fsync: Any, callers: int, url: str) -> None:
    client = GatewayClient(
        servers={"desk": Http(url)},
        policy=AllowAll(),
        audit=AuditLog(directory, fsync=fsync),
        principal=ALICE,
    )
    async with client, anyio.create_task_group() as tasks:
        await client.list_tools("desk")
        os.write(1, b"ready\n")
        for number in range(callers):
            tasks.start_soon(call, client, f"{os.getpid()}-{number}")


if __name__ == "__main__":
    from tests.support.kills import serve

    directory, backend, fsync, callers, url = sys.argv[1:]
    serve(partial(anyio.run, main, directory, fsync, int(callers), url, backend=backend))
