"""A caller may give up at any moment: nothing is kept, and the log says how far it got."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import AuditLog, Decision, GatewayClient
from sark_trio.client.servers import Memory
from sark_trio.errors import ConnectError, GatewayError, ServerDisconnected
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, check_log, desk, open_client

#: Rounds of the scheduler that one call takes at most, with room to spare.
ROUNDS_MAX = 60


class Checkpointing:
    """A policy with a checkpoint in it, whose decisions do not last."""

    revision = "1"

    async def decide(self, question: Any) -> Decision:
        await anyio.lowlevel.checkpoint()
        return Decision(allow=True, ttl_s=0)


async def working(incoming: Incoming) -> Any:
    await anyio.lowlevel.checkpoint()
    incoming.receive()
    await anyio.lowlevel.checkpoint()
    incoming.notify("notifications/progress", {"progressToken": 1, "progress": 1})
    await anyio.lowlevel.checkpoint()
    return answer()


def nothing_is_kept(client: GatewayClient) -> None:
    snapshot = client.statistics()
    assert snapshot.running_calls == 0
    assert snapshot.audit.open_intents == 0
    for server in snapshot.servers.values():
        assert server.breaker.outstanding == 0
        assert server.breaker.faults == 0
        assert server.wire.details["pending"] == 0


async def cancelled_after(client: GatewayClient, rounds: int, wait_s: float = 0.0) -> bool:
    """Make a call, and cancel it after so many rounds of the scheduler; whether it had ended."""
    ended = False

    async def call() -> None:
        nonlocal ended
        with suppress(GatewayError):
            await client.invoke_tool(
                "desk", "echo", {"x": 1}, replay_safe=True, on_progress=lambda _: None
            )
        ended = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        if wait_s:
            await anyio.sleep(wait_s)
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    return ended


@pytest.mark.row(54)
@pytest.mark.anyio
async def test_a_call_can_be_cancelled_at_every_checkpoint() -> None:
    ended = 0
    for rounds in range(ROUNDS_MAX):
        disk, server = MemoryDisk(), desk(*[working] * 3)
        async with open_client(server, disk, policy=Checkpointing()) as client:
            ended += await cancelled_after(client, rounds)
            nothing_is_kept(client)
            # Whatever was left undone is in nobody's way.
            assert (await client.invoke_tool("desk", "echo")).text == "done"
            nothing_is_kept(client)
        check_log(disk)
    assert 0 < ended < ROUNDS_MAX


@pytest.mark.trio
@pytest.mark.parametrize("wait_s", [0.5, 1.0, 2.0, 3.0])
async def test_a_call_can_be_cancelled_between_and_in_its_attempts(
    autojump_clock: MockClock, wait_s: float
) -> None:
    for rounds in range(20):
        disk = MemoryDisk()
        failing = [ConnectError("refused"), ServerDisconnected("gone", delivery="unknown")]
        server = desk(*failing)
        async with open_client(server, disk, policy=Checkpointing()) as client:
            await cancelled_after(client, rounds, wait_s)
            nothing_is_kept(client)
            server.script.clear()
            assert (await client.invoke_tool("desk", "echo")).text == "done"
        check_log(disk)


@pytest.mark.trio
async def test_a_hundred_calls_cancelled_at_all_sorts_of_moments(
    autojump_clock: MockClock,
) -> None:
    disk, server = MemoryDisk(), desk(*[working] * 1000)
    async with open_client(server, disk, policy=Checkpointing()) as client:

        async def one(number: int) -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def stop() -> None:
                        for _ in range(number % 37):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(stop)
                    await client.invoke_tool("desk", "echo", {"n": number})
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        nothing_is_kept(client)
    found = check_log(disk)
    assert {each["outcome"] for each in found if each["kind"] == "outcome"} >= {"cancelled", "ok"}


@pytest.mark.row(54)
@pytest.mark.anyio
async def test_entering_can_be_cancelled_at_every_checkpoint() -> None:
    entered = 0
    for rounds in range(40):
        disk = MemoryDisk()
        client = GatewayClient(
            servers={"desk": Memory(desk())}, audit=AuditLog("log", files=disk), grace_s=0
        )
        in_block = False

        async def live(client: GatewayClient = client) -> None:
            nonlocal in_block
            async with client:
                in_block = True
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live)
            for _ in range(rounds):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        entered += in_block
        assert client.statistics().state in {"new", "closed"}
        assert not disk.locked
    assert 0 < entered < 40


@pytest.mark.row(54)
@pytest.mark.anyio
async def test_closing_can_be_cancelled_at_every_checkpoint_and_goes_on() -> None:
    for rounds in range(25):
        disk = MemoryDisk()
        async with open_client(desk(), disk, grace_s=0) as client:
            await client.invoke_tool("desk", "echo")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.close)
                for _ in range(rounds):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        assert client.statistics().state == "closed"
        assert not disk.locked
        check_log(disk)
