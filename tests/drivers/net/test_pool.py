"""The pool's body: limits, waiting, cancellation at every step, stale connections, the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import httpcore
import pytest
from anyio.lowlevel import checkpoint

from sark_trio.errors import (
    ClientClosed,
    ConnectError,
    ConnectTimeout,
    GatewayError,
    Overloaded,
    PoolTimeout,
    ServerDisconnected,
)
from sark_trio.machines.pool import PoolOptions
from sark_trio.net.connection import Request
from sark_trio.net.options import Timeouts
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.url import Origin
from tests.support.http_servers import (
    Peer,
    RawServer,
    Script,
    no_leaked_descriptors,
    response,
    serve,
)

pytestmark = pytest.mark.anyio

GET = Request(b"GET", b"/", ((b"Host", b"x"),))


HALF = Request(b"GET", b"/half", GET.headers)


async def answering(peer: Peer) -> None:
    while True:
        received = await peer.receive()
        await peer.send(response(b"ok")[: -1 if received.target == "/half" else None])


@asynccontextmanager
async def running(backend: Any = None, **options: Any) -> AsyncIterator[ConnectionPool]:
    limits = options.pop("timeouts", Timeouts())
    pool = ConnectionPool(
        backend=backend or AnyIOBackend(), options=PoolOptions(**options), timeouts=limits
    )
    async with anyio.create_task_group() as group:
        await group.start(pool.run)
        try:
            yield pool
        finally:
            group.cancel_scope.cancel()


@asynccontextmanager
async def served(
    script: Script = answering, **options: Any
) -> AsyncIterator[tuple[ConnectionPool, Origin, RawServer]]:
    async with serve(script) as server, running(**options) as pool:
        yield pool, Origin("http", "127.0.0.1", server.port), server


async def fetch(pool: ConnectionPool, origin: Origin) -> bytes:
    lease = pool.lease_nowait(origin) or await pool.lease(origin)
    with lease:
        await lease.connection.send(GET)
        return await lease.connection.read_body(100)


async def test_connections_are_reused_and_their_number_is_bounded() -> None:
    async with served(per_origin=3) as (pool, origin, server):
        assert pool.lease_nowait(origin) is None
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(fetch, pool, origin)
        assert len(server.requests) == 30
        assert server.connections <= 3
        now = pool.statistics()
        assert (now.leased, now.connecting, now.closing, now.waiting) == (0, 0, 0, 0)
        assert now.idle == server.connections
        assert "idle=" in repr(pool)


async def test_a_lease_is_one_connection_and_ends_once() -> None:
    async with served() as (pool, origin, server):
        lease = await pool.lease(origin)
        assert "open" in repr(lease)
        lease.release()  # nothing was sent: fit for use
        lease.release()
        lease.discard()
        assert pool.statistics().idle == 1
        again = pool.lease_nowait(origin)
        assert again is not None
        again.discard()
        assert pool.statistics().idle == 0
        with pytest.raises(RuntimeError, match="boom"), await pool.lease(origin) as third:
            await third.connection.send(HALF)
            raise RuntimeError("boom")  # within a response: closed, not drained
        assert pool.statistics().idle == 0
        with anyio.fail_after(5):
            while server.open:
                await checkpoint()


async def test_an_unread_short_response_is_drained_without_the_callers_waiting() -> None:
    async with served() as (pool, origin, _):
        lease = await pool.lease(origin)
        await lease.connection.send(Request(b"GET", b"/", GET.headers))
        lease.release()
        with anyio.fail_after(5):
            while pool.statistics().idle == 0:
                await checkpoint()


async def test_waiting_for_a_connection_is_bounded_in_time_and_number() -> None:
    limits = Timeouts(pool_s=0.5)
    async with served(per_origin=1, waiters_max=1, timeouts=limits) as (pool, origin, _):
        with await pool.lease(origin):
            async with anyio.create_task_group() as group:
                group.start_soon(expect, PoolTimeout, pool, origin)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(Overloaded):
                    await pool.lease(origin)
        assert await fetch(pool, origin) == b"ok"


async def test_streams_leave_room_for_calls() -> None:
    async with served(per_origin=2) as (pool, origin, _):
        with await pool.lease(origin, stream=True):
            with pytest.raises(Overloaded, match="stream"):
                await pool.lease(origin, stream=True)
            assert await fetch(pool, origin) == b"ok"


async def expect(kind: type[GatewayError], pool: ConnectionPool, origin: Origin) -> None:
    with pytest.raises(kind):
        await pool.lease(origin)


async def test_a_dial_that_fails_fails_its_caller_with_its_error() -> None:
    async with running() as pool:
        with pytest.raises(ConnectError):
            await pool.lease(Origin("http", "127.0.0.1", 1))
        slow = Timeouts(connect_s=0.05, pool_s=0.05)
        async with running(Never(), timeouts=slow) as other:
            with pytest.raises(ConnectTimeout):
                await other.lease(Origin("http", "x", 1))


@pytest.mark.row(7)
async def test_a_connection_that_died_while_idle_is_not_given_out() -> None:
    async def once(peer: Peer) -> None:
        await peer.receive()
        await peer.send(response(b"ok"))

    async with served(once) as (pool, origin, server):
        assert await fetch(pool, origin) == b"ok"
        with anyio.fail_after(5):
            while server.open:
                await checkpoint()
        assert await fetch(pool, origin) == b"ok"
        assert server.connections == 2


@pytest.mark.security(23)
@pytest.mark.row(12)
async def test_a_server_that_speaks_unasked_is_not_asked() -> None:
    leased = anyio.Event()

    async def rude(peer: Peer) -> None:
        await leased.wait()
        await peer.send(response(b"stolen"))
        await peer.wait_closed()

    async with served(rude) as (pool, origin, server):
        lease = await pool.lease(origin)
        leased.set()
        with anyio.fail_after(5):
            while not lease.connection.is_stale():
                await checkpoint()
        lease.release()
        assert pool.statistics().idle == 1
        assert pool.lease_nowait(origin) is None
        assert pool.statistics().idle == 0
        assert server.requests == []


@pytest.mark.row(12)
async def test_a_new_connection_on_which_the_server_spoke_first_is_refused() -> None:
    async with running(Talkative()) as pool:
        with pytest.raises(ServerDisconnected) as caught:
            await pool.lease(Origin("http", "x", 80))
        assert caught.value.delivery == "not_sent"
        assert pool.statistics().idle == 0


async def test_a_fresh_lease_passes_over_used_connections() -> None:
    async with served() as (pool, origin, server):
        assert await fetch(pool, origin) == b"ok"
        with await pool.lease(origin, fresh=True) as lease:
            assert lease.connection.exchanges == 0
            await lease.connection.send(GET)
            assert await lease.connection.read_body(10) == b"ok"
        assert server.connections == 2


async def test_shutdown_fails_who_waits_and_lets_leases_end() -> None:
    async with serve(answering) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        pool = ConnectionPool(backend=AnyIOBackend(), options=PoolOptions(per_origin=1))
        async with anyio.create_task_group() as group:
            await group.start(pool.run)
            lease = await pool.lease(origin)
            group.start_soon(expect, ClientClosed, pool, origin)
            await anyio.wait_all_tasks_blocked()
            pool.shutdown()
            await checkpoint()
            await lease.connection.send(GET)  # the lessee may finish
            assert await lease.connection.read_body(10) == b"ok"
            lease.release()  # and with that, run() ends
        with pytest.raises(ClientClosed):
            await pool.lease(origin)


async def test_a_lease_that_outstays_the_grace_is_closed_under_its_lessee() -> None:
    async with serve(answering) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        pool = ConnectionPool(backend=AnyIOBackend(), options=PoolOptions(grace_s=0.05))
        async with anyio.create_task_group() as group:
            await group.start(pool.run)
            lease = await pool.lease(origin)
            pool.shutdown()
        with pytest.raises(ServerDisconnected):
            await lease.connection.send(GET)
        lease.release()


async def test_expired_idle_connections_are_closed_by_the_pool_itself() -> None:
    async with served(idle_s=0.05) as (pool, origin, server):
        await fetch(pool, origin)
        with anyio.fail_after(5):
            await server.closed.wait()
        assert pool.statistics().idle == 0


@pytest.mark.law("P5")
async def test_p05_cancelling_anywhere_leaves_the_pool_whole() -> None:
    """Laws, P5: one of four requests is cancelled after every number of steps."""
    async with serve(answering) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        for connections in (1, 2):
            for steps in range(80):
                async with running(per_origin=connections) as pool:
                    done: list[bytes] = []

                    async def ask(pool: ConnectionPool = pool, done: Any = done) -> None:
                        done.append(await fetch(pool, origin))

                    async with anyio.create_task_group() as group:
                        victim = anyio.CancelScope()

                        async def cancelled(victim: Any = victim, ask: Any = ask) -> None:
                            with victim:
                                await ask()

                        group.start_soon(ask)
                        group.start_soon(cancelled)
                        group.start_soon(ask)
                        group.start_soon(ask)
                        for _ in range(steps):
                            await checkpoint()
                        victim.cancel()
                    assert done.count(b"ok") >= 3, f"at step {steps}"
                    with anyio.fail_after(5):
                        assert await fetch(pool, origin) == b"ok"
                        while pool.statistics().closing or pool.statistics().connecting:
                            await checkpoint()
                    now = pool.statistics()
                    assert (now.leased, now.granted, now.waiting) == (0, 0, 0)
                    assert 1 <= now.idle <= connections


async def test_p05_nothing_is_left_of_a_pool_that_is_cancelled_anywhere() -> None:
    async def quiet(peer: Peer) -> None:
        await peer.wait_closed()

    async with serve(quiet) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        with no_leaked_descriptors():
            for steps in range(60):
                async with anyio.create_task_group() as callers:
                    async with running(per_origin=2) as pool:
                        for _ in range(4):
                            callers.start_soon(swallow, pool, origin)
                        for _ in range(steps):
                            await checkpoint()
                    callers.cancel_scope.cancel()
                with anyio.fail_after(5):
                    while server.open:
                        await checkpoint()


async def swallow(pool: ConnectionPool, origin: Origin) -> None:
    with suppress(GatewayError):
        await fetch(pool, origin)


class Never(httpcore.AsyncNetworkBackend):
    """A network that keeps its timeouts, and nothing else."""

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> httpcore.AsyncNetworkStream:
        assert timeout is not None
        with anyio.move_on_after(timeout):
            await anyio.sleep_forever()
        raise httpcore.ConnectTimeout("never")


class Talkative(httpcore.AsyncNetworkBackend):
    """A network on which every server speaks first."""

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        await checkpoint()
        return TalkativeStream([])


class TalkativeStream(httpcore.AsyncMockStream):
    def get_extra_info(self, info: str) -> Any:
        return info == "is_readable"


async def test_any_backend_of_httpcores_can_be_plugged_in() -> None:
    replies = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok"] * 2
    async with running(httpcore.AsyncMockBackend(replies)) as pool:
        origin = Origin("http", "mock", 80)
        assert await fetch(pool, origin) == b"ok"
        assert await fetch(pool, origin) == b"ok"
        lease = await pool.lease(origin)
        lease.discard()
        assert pool.statistics().closing == 1
        with anyio.fail_after(5):
            while pool.statistics().closing:
                await checkpoint()


@pytest.mark.parametrize("steps", range(8))
async def test_a_lease_may_come_back_at_every_step_of_the_pools_end(steps: int) -> None:
    """Its connection is closed by then: there is nothing to drain, and no task to do it in."""
    ending = anyio.CancelScope()

    async def run(*, task_status: Any) -> None:
        with ending:
            await pool.run(task_status=task_status)

    async with serve(answering) as server:
        pool = ConnectionPool(backend=AnyIOBackend())
        async with anyio.create_task_group() as group:
            await group.start(run)
            lease = await pool.lease(Origin("http", "127.0.0.1", server.port))
            await lease.connection.send(HALF)
            ending.cancel()
            for _ in range(steps):
                await checkpoint()
            lease.release()
        assert pool.draining == 0
