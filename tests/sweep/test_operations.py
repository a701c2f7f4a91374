"""More operations, cancelled at every step: reading, subscribing, reloading, rotating, pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import anyio
import pytest

from sark_trio import (
    AdaptiveConcurrency,
    AllowAll,
    ApprovalRequest,
    AuditLog,
    Change,
    GatewayClient,
    Rego,
)
from sark_trio.client.servers import Memory
from sark_trio.machines.pool import PoolOptions
from sark_trio.net.connection import Request
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.url import Origin
from sark_trio.testing import Victim, held
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, answer, check_log, desk, open_client
from tests.support.event_servers import MemoryNetwork
from tests.support.http_servers import Peer, response
from tests.support.sweeping import sweep

Backend = Literal["trio", "asyncio"]

pytestmark = pytest.mark.row(54)


@pytest.fixture(params=["trio", "asyncio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def library(incoming: Incoming) -> Mapping[str, Any]:
    """A server with one resource, which changes when it is listened for."""
    incoming.receive()
    await anyio.lowlevel.checkpoint()
    if incoming.method == "resources/read":
        return {"contents": [{"uri": "file:///a", "text": "a"}], "ttlMs": 0}
    if incoming.method == "subscriptions/listen":
        incoming.notify("notifications/subscriptions/acknowledged", {"notifications": {}})
        incoming.notify("notifications/resources/updated", {"uri": "file:///a"})
        await anyio.sleep_forever()
    return answer() if incoming.method == "tools/call" else {"tools": [], "resources": []}


def test_reading_a_resource(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        disk = MemoryDisk()
        async with open_client(library, disk) as client:
            with victim:
                await client.read_resource("desk", "file:///a")
            assert (await client.read_resource("desk", "file:///a")).contents
            assert held(client) == {}
        check_log(disk)

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 5


def test_subscribing_until_the_first_change(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        disk = MemoryDisk()
        async with open_client(library, disk) as client:
            with victim:
                async with client.subscribe("desk", resources=["file:///a"]) as changes:
                    await anext(changes)
            async with client.subscribe("desk", resources=["file:///a"]) as changes:
                assert await anext(changes) == Change("resource", "file:///a")
        check_log(disk)

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 5


def test_waiting_for_somebodys_word(backend: Backend) -> None:
    policy = Rego(
        texts={
            "a.rego": "package mcp.gateway\ndefault allow := true\n"
            'obligations := [{"type": "require_approval"}]'
        }
    )

    async def scenario(victim: Victim) -> None:
        disk, server, asked = MemoryDisk(), desk(), list[ApprovalRequest]()

        async def boss(request: ApprovalRequest) -> str:
            asked.append(request)
            await anyio.lowlevel.checkpoint()
            return "boss"

        async with open_client(server, disk, policy=policy, approve=boss) as client:
            with victim:
                await client.invoke_tool("desk", "echo")
            before = len(server.arrived)
            await client.invoke_tool("desk", "echo")
            assert len(server.arrived) == before + 1 <= len(asked)
            assert held(client) == {}
        named = [record["labels"] for record in check_log(disk) if record["kind"] == "intent"]
        assert len(server.arrived) <= len(named)
        assert all(label == {"approved_by": "boss"} for label in named)

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 5


def test_calling_while_the_policy_is_replaced(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        disk = MemoryDisk()
        async with open_client(desk(), disk) as client, anyio.create_task_group() as tasks:

            async def reload() -> None:
                for _ in range(5):
                    client.reload_policy(AllowAll())
                    await anyio.lowlevel.checkpoint()

            tasks.start_soon(reload)
            with victim:
                await client.invoke_tool("desk", "echo")
            assert (await client.invoke_tool("desk", "echo")).text == "done"
            assert held(client) == {}
        check_log(disk)

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 5


def test_calling_while_the_log_goes_on_in_a_new_file(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        disk = MemoryDisk()
        log = AuditLog("log", files=disk, segment_bytes_max=1)
        servers = {"desk": Memory(desk())}
        client = GatewayClient(servers=servers, policy=AllowAll(), audit=log, principal=ALICE)
        async with client:
            with victim:
                await client.invoke_tool("desk", "echo")
                await client.invoke_tool("desk", "echo")
            await client.invoke_tool("desk", "echo")
            assert held(client) == {}
        assert len(disk.contents) > 1
        check_log(disk)

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 10


@pytest.mark.law("P5")
@pytest.mark.parametrize("connections", [1, 2])
def test_p05_one_of_four_that_share_a_pool(backend: Backend, connections: int) -> None:
    """Cancel at every global step, of every seed: limits, owners and order hold, nothing is left.

    A fresh request succeeds afterwards, and what is open is idle.
    """
    request = Request(b"GET", b"/", ((b"Host", b"x"),))

    async def serve(peer: Peer) -> None:
        while True:
            await peer.receive()
            await peer.send(response(b"ok"))

    async def scenario(victim: Victim) -> None:
        done: list[bytes] = []
        async with anyio.create_task_group() as world:
            network = MemoryNetwork((serve,), world)
            pool = ConnectionPool(backend=network, options=PoolOptions(per_origin=connections))
            await world.start(pool.run)

            async def fetch() -> None:
                with await pool.lease(Origin("http", "x", 80)) as lease:
                    await lease.connection.send(request)
                    done.append(await lease.connection.read_body(10))

            async with anyio.create_task_group() as others:
                for _ in range(3):
                    others.start_soon(fetch)
                with victim:
                    await fetch()
            assert done.count(b"ok") >= 3
            with anyio.fail_after(30):
                await fetch()
                while pool.statistics().closing or pool.statistics().connecting:
                    await anyio.lowlevel.checkpoint()
            now = pool.statistics()
            assert (now.leased, now.granted, now.waiting) == (0, 0, 0)
            assert now.idle == len(network.open) <= connections
            assert network.open_max <= connections
            pool.shutdown()
            world.cancel_scope.cancel()

    assert sweep(scenario, backend=backend, seeds=4).cancelled > 10


def test_a_call_that_waits_for_a_place(backend: Backend) -> None:
    """One place and four who want it: whoever is cancelled, wherever, hands it on."""
    one = AdaptiveConcurrency(limit_min=1, limit_max=1, wait_s=60)

    async def scenario(victim: Victim) -> None:
        disk = MemoryDisk()
        async with open_client(desk(), disk, server_concurrency=one) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(client.invoke_tool, "desk", "echo")
                with victim:
                    await client.invoke_tool("desk", "echo")
                tasks.start_soon(client.invoke_tool, "desk", "echo")
            assert held(client) == {}
        check_log(disk)

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 10
