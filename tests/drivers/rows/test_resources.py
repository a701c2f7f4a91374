"""Rows 58 to 60: ten thousand calls, waiters that come and go, and a machine that has no more."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import AllowAll, AuditLog, GatewayClient
from sark_trio.client.servers import Http
from sark_trio.errors import CallTimeout, ConnectError, GatewayError
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.url import Origin
from sark_trio.testing import held, no_leaks
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, check_log
from tests.support.event_servers import MemoryNetwork
from tests.support.faulty import NETWORKED, NEVER, cell, do
from tests.support.http_servers import Peer, Received, modern, result
from tests.support.virtual import TOOLS

# -- row 58 ----------------------------------------------------------------------------------


async def quick(peer: Peer, received: Received) -> None:
    value = TOOLS if received.rpc == "tools/list" else {"resultType": "complete", "content": []}
    await peer.send(result(received, value))


@pytest.mark.trio
@pytest.mark.row(58)
@pytest.mark.slow
async def test_ten_thousand_leases_share_fifty_connections_in_order(
    autojump_clock: MockClock,
) -> None:
    """Five servers, one of which never answers: it keeps its ten, and the others go on."""
    asked: dict[str, list[int]] = {}
    order: dict[str, list[int]] = {}
    done = 0
    async with no_leaks(), trio.open_nursery() as world:
        network = MemoryNetwork((modern(quick),), world)  # type: ignore[arg-type]
        pool = ConnectionPool(backend=network)
        await world.start(pool.run)

        async def lease(number: int) -> None:
            nonlocal done
            name = f"s{number % 5}"
            asked.setdefault(name, []).append(number)
            with await pool.lease(Origin("http", name, 80)):
                order.setdefault(name, []).append(number)
                if name == "s0":
                    await trio.sleep_forever()
                await trio.sleep(0.01)
            done += 1

        async with trio.open_nursery() as callers:
            for number in range(10_000):
                callers.start_soon(lease, number)
                await trio.lowlevel.checkpoint()
                assert network.open_max <= 50
            while done < 8_000:
                await trio.sleep(1)
                assert len(order["s0"]) <= 10
            callers.cancel_scope.cancel()
        for name in ("s1", "s2", "s3", "s4"):
            # Ten wake at once, in an order of their own; beyond that nobody is overtaken.
            places = {number: place for place, number in enumerate(asked[name])}
            assert all(abs(places[n] - place) < 10 for place, n in enumerate(order[name]))
        counts = pool.statistics()
        assert (counts.leased, counts.granted, counts.waiting) == (0, 0, 0)
        pool.shutdown()
        world.cancel_scope.cancel()


@pytest.mark.trio
@pytest.mark.row(58)
async def test_a_server_that_hangs_takes_nothing_from_another(autojump_clock: MockClock) -> None:
    async def hung(peer: Peer, received: Received) -> None:
        if received.rpc == "tools/list":
            await quick(peer, received)
        else:
            await peer.wait_closed()

    disk, ends = MemoryDisk(), list[str]()
    async with no_leaks(), trio.open_nursery() as world:
        networks = [MemoryNetwork((modern(one),), world) for one in (hung, quick)]  # type: ignore[arg-type]
        client = GatewayClient(
            servers={
                name: Http(f"http://{name}.test/mcp", network=network)
                for name, network in zip(("sick", "well"), networks, strict=True)
            },
            policy=AllowAll(),
            audit=AuditLog("log", files=disk),
            principal=ALICE,
            breaker=NEVER,
        )
        async with client:
            await client.list_tools()

            async def call(server: str) -> None:
                try:
                    await client.invoke_tool(server, "echo")
                    ends.append(server)
                except GatewayError as exc:
                    assert exc.delivery in {"not_sent", "unknown"}
                    ends.append(type(exc).__name__)

            async with trio.open_nursery() as callers:
                for _ in range(300):
                    callers.start_soon(call, "sick")
                for _ in range(300):
                    callers.start_soon(call, "well")
                await trio.sleep(1)
                # All of them have ended, while every one of the others waits.
                assert ends == ["well"] * 300
                assert networks[0].open_max <= 10
            assert len(ends) == 600
            assert held(client) == {}
        world.cancel_scope.cancel()
    check_log(disk)


# -- row 59 ----------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.row(59)
async def test_waiters_that_give_up_leave_nothing_of_themselves() -> None:
    """Five thousand who wait for a connection and go; those who stay are served in order."""
    async with no_leaks(), anyio.create_task_group() as world:
        network = MemoryNetwork((modern(quick),), world)
        pool = ConnectionPool(backend=network)
        await world.start(pool.run)
        origin = Origin("http", "s", 80)
        leases = [await pool.lease(origin) for _ in range(10)]
        served: list[int] = []

        async def stay(number: int) -> None:
            with await pool.lease(origin):
                served.append(number)

        async with anyio.create_task_group() as staying:
            for batch in range(10):
                staying.start_soon(stay, batch)
                await anyio.wait_all_tasks_blocked()
                async with anyio.create_task_group() as leaving:
                    for _ in range(500):
                        leaving.start_soon(pool.lease, origin)
                    await anyio.wait_all_tasks_blocked()
                    leaving.cancel_scope.cancel()
                assert pool.statistics().waiting == batch + 1
            leases.pop().release()
        assert served == list(range(10))
        for lease in leases:
            lease.release()
        counts = pool.statistics()
        assert (counts.leased, counts.granted, counts.waiting) == (0, 0, 0)
        assert counts.idle == 10
        pool.shutdown()
        world.cancel_scope.cancel()


# -- row 60 ----------------------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Iterator[None]:
    """The process may open no further one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.anyio
@pytest.mark.row(60)
@pytest.mark.parametrize("kind", [*NETWORKED, "stdio"])
async def test_without_descriptors_nothing_is_sent_and_then_it_is(kind: str) -> None:
    async with cell(kind) as (server, client):
        await anyio.to_thread.run_sync(int)  # its thread is there, and the loop's own descriptors
        with no_descriptors():
            with pytest.raises(GatewayError) as caught:
                await client.invoke_tool("desk", "echo", do())
            assert caught.value.delivery == "not_sent"
        assert server.effects == 0
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"


@pytest.mark.anyio
@pytest.mark.row(60)
@pytest.mark.parametrize("kind", NETWORKED)
@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENETUNREACH])
async def test_without_ports_nothing_is_sent_and_then_it_is(
    kind: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Portless(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(code, os.strerror(code))

    async with cell(kind) as (server, client):
        with monkeypatch.context() as patched:
            patched.setattr("sark_trio.net.sockets.socket.socket", Portless)
            with pytest.raises(ConnectError) as caught:
                await client.invoke_tool("desk", "echo", do())
            assert caught.value.delivery == "not_sent"
            assert not isinstance(caught.value, CallTimeout)
        assert server.effects == 0
