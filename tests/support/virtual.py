"""A client of HTTP servers in memory: with a mock clock, whatever takes time takes none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import anyio
from attrs import define

from sark_trio import GatewayClient
from sark_trio.client.servers import Http
from sark_trio.testing import no_leaks
from tests.support.audit_disk import MemoryDisk
from tests.support.client import check_log
from tests.support.event_servers import MemoryNetwork
from tests.support.faulty import client_of
from tests.support.http_servers import Handler, Peer, Received, modern, result, streaming

__all__ = ["Virtual", "virtual"]

TOOLS = {
    "resultType": "complete",
    "tools": [{"name": "echo", "inputSchema": {"type": "object"}}],
    "ttlMs": 86_400_000,
}


@define(eq=False)
class Virtual:
    """A client, the network between, and what was written."""

    client: GatewayClient
    network: MemoryNetwork
    disk: MemoryDisk

    @property
    def calls(self) -> list[Received]:
        """The calls of tools that arrived, but for those that ask how the server is."""
        return [
            each
            for each in self.network.requests
            if each.rpc == "tools/call" and not _is_check(each)
        ]


def _is_check(received: Received) -> bool:
    return bool(received.json["params"]["arguments"] == {"n": 41})


def _handled(handler: Handler) -> Handler:
    """What is no call is answered as one should; so is the call that comes at the end."""

    async def handle(peer: Peer, received: Received) -> None:
        if received.method == "GET":
            await handler(peer, received)
        elif received.rpc == "tools/list":
            await peer.send(result(received, TOOLS))
        elif received.rpc == "tools/call" and not _is_check(received):
            await handler(peer, received)
        else:
            content = [{"type": "text", "text": "41"}]
            await peer.send(result(received, {"resultType": "complete", "content": content}))

    return handle


@asynccontextmanager
async def virtual(
    handler: Handler,
    *,
    era: str = "modern",
    server: Any = None,
    oracle: bool = True,
    **options: Any,
) -> AsyncIterator[Virtual]:
    """A client of a server that leaves every call to *handler*; at the end all must be well.

    In the era ``legacy`` it is told of each GET as well.

    :param oracle: look for leaks; not where there are hundreds of runs, since the collector takes
        more time than all the rest.
    """
    disk = MemoryDisk()
    script = (streaming if era == "legacy" else modern)(_handled(handler))
    leaks = no_leaks() if oracle else nullcontext()
    async with leaks, anyio.create_task_group() as group:
        network = MemoryNetwork((script,), group)
        described = Http("http://desk.test/mcp", network=network, **(server or {}))
        async with client_of(described, disk, **options) as client:
            yield Virtual(client, network, disk)
        assert network.open == set()
        group.cancel_scope.cancel()
    check_log(disk)
