"""Every operation of the client, cancelled at every step that the scheduler takes.

After each run: the caller got its answer or its cancellation, the next call succeeds, the log
has one outcome for each intent, and no task, descriptor, thread, permit or intent is left.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest
from trio.testing import MockClock

from sark_trio import AllowAll, AuditLog, GatewayClient
from sark_trio.client.servers import Memory
from sark_trio.errors import ConnectError, GatewayError, ServerDisconnected
from sark_trio.testing import Victim, held
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, answer, check_log, desk, open_client
from tests.support.sweeping import sweep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sark_trio.transports.memory import Incoming

Backend = Literal["trio", "asyncio"]
BACKENDS: list[Backend] = ["trio", "asyncio"]

pytestmark = pytest.mark.row(54)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def working(incoming: Incoming) -> Any:
    await anyio.lowlevel.checkpoint()
    incoming.receive()
    await anyio.lowlevel.checkpoint()
    incoming.notify("notifications/progress", {"progressToken": 1, "progress": 1})
    await anyio.lowlevel.checkpoint()
    return answer()


@asynccontextmanager
async def healthy(*script: Any) -> AsyncIterator[GatewayClient]:
    """A client that must be as good as new when the block ends."""
    disk, server = MemoryDisk(), desk(*script)
    async with open_client(server, disk) as client:
        yield client
        assert held(client) == {}
        server.script.clear()
        assert (await client.invoke_tool("desk", "echo")).text == "done"
        assert held(client) == {}
    check_log(disk)


def test_opening_and_closing(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        disk = MemoryDisk()
        client = GatewayClient(
            servers={"desk": Memory(desk())},
            policy=AllowAll(),
            audit=AuditLog("log", files=disk),
            principal=ALICE,
        )
        with victim:
            async with client:
                await client.invoke_tool("desk", "echo")
        await client.close()
        check_log(disk)

    found = sweep(scenario, backend=backend, seeds=2)
    assert found.cancelled > 20


def test_a_call(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with healthy(working) as client:
            with victim:
                await client.invoke_tool("desk", "echo", {"x": 1}, on_progress=lambda _: None)

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 10


def test_a_call_beside_others(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with healthy(*[working] * 4) as client, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(client.invoke_tool, "desk", "echo", {"x": 2})
            with victim:
                await client.invoke_tool("desk", "echo", {"x": 1})

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 10


def test_listing(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with healthy() as client:
            with victim:
                await client.list_tools()

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 3


def test_listing_that_another_caller_waits_for_too(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with healthy() as client, anyio.create_task_group() as tasks:
            found: list[Any] = []

            async def other() -> None:
                found.append(await client.list_tools("desk"))

            tasks.start_soon(other)
            with victim:
                await client.list_tools("desk")
            while not found:
                await anyio.lowlevel.checkpoint()
            assert len(found[0].tools) == 1

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 3


def test_connecting_and_disconnecting(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with healthy() as client:
            with victim:
                await client.connect("desk")
                await client.disconnect("desk")
            await client.connect("desk")

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 3


def test_adding_and_removing_a_server(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with healthy() as client:
            with victim:
                await client.add_server("other", Memory(desk()))
                await client.invoke_tool("other", "echo")
                await client.remove_server("other")

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 10


def test_explaining(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with healthy() as client:
            with victim:
                await client.explain("desk", "echo", {"x": 1})
                await anyio.lowlevel.checkpoint()

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 0


def test_closing_while_calls_run(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        disk = MemoryDisk()
        async with open_client(desk(*[working] * 3), disk) as client:
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    try:
                        await client.invoke_tool("desk", "echo")
                    except GatewayError:
                        assert client.statistics().state != "open"

                for _ in range(3):
                    tasks.start_soon(call)
                with victim:
                    await client.close()
            await client.close()
        check_log(disk)

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 5


def test_a_call_that_is_retried() -> None:
    """On trio alone, whose time can be virtual."""

    async def scenario(victim: Victim) -> None:
        refused = ConnectError("refused")
        async with healthy(refused, ServerDisconnected("gone", delivery="unknown")) as client:
            with victim:
                await client.invoke_tool("desk", "echo", {"x": 1}, replay_safe=True)

    assert sweep(scenario, seeds=2, clock=lambda: MockClock(autojump_threshold=0)).cancelled > 9
