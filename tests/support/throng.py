"""Thousands of calls at once over fifty real connections."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

import anyio
from attrs import define, field

from sark_trio import AdaptiveConcurrency, AllowAll, AuditLog, GatewayClient, Http
from sark_trio.testing import held
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, check_log
from tests.support.http_servers import Peer, Received, modern, result, serve
from tests.support.virtual import TOOLS

__all__ = ["SERVERS", "Throng", "throng"]

SERVERS = 5
#: As many as each may have connections: nobody's wait for one runs out on a slow machine.
TEN = AdaptiveConcurrency(limit_min=10, limit_max=10, waiters_max=10_000, wait_s=300)


@define
class Throng:
    """How often each call arrived and was answered, and over how many connections."""

    arrived: Counter[int] = field(factory=Counter)
    answered: Counter[int] = field(factory=Counter)
    #: Most connections that were open to each server at the same time, by its port.
    open_max: dict[int, int] = field(factory=dict)


async def throng(calls: int) -> Throng:
    """So many governed calls begin in one moment. Each is checked to have got its own answer."""
    found, disk = Throng(), MemoryDisk()

    async def handle(peer: Peer, received: Received) -> None:
        if received.rpc == "tools/list":
            await peer.send(result(received, TOOLS))
            return
        number = received.json["params"]["arguments"]["n"]
        found.arrived[number] += 1
        here = peer.server
        found.open_max[here.port] = max(here.open, found.open_max.get(here.port, 0))
        del peer.server.requests[:]
        content = [{"type": "text", "text": str(number)}]
        await peer.send(result(received, {"resultType": "complete", "content": content}))

    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serve(modern(handle))) for _ in range(SERVERS)]
        client = GatewayClient(
            servers={
                f"s{n}": Http(server.url, concurrency=TEN) for n, server in enumerate(servers)
            },
            policy=AllowAll(),
            audit=AuditLog("log", files=disk, queue_records_max=32_768),
            principal=ALICE,
            timeout_s=300.0,
        )
        await stack.enter_async_context(client)
        await client.list_tools()

        async def call(number: int) -> None:
            answer = await client.invoke_tool(f"s{number % SERVERS}", "echo", {"n": number})
            assert answer.text == str(number)
            found.answered[number] += 1

        async with anyio.create_task_group() as tasks:
            for number in range(calls):
                tasks.start_soon(call, number)
        assert held(client) == {}
    check_log(disk)
    return found
