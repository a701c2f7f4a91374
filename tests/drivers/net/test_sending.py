"""A connection that was kept alive, and is closed just as it is used again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpcore
import pytest
from attrs import define

from sark_trio.errors import ConnectError, ServerDisconnected
from sark_trio.net.connection import Request
from sark_trio.net.exchange import Exchange
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.sending import send
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.url import parse_url
from tests.support.http_servers import Peer, RawServer, response, serve

pytestmark = pytest.mark.anyio


async def once(peer: Peer) -> None:
    """Answer one request, and hang up at the next."""
    await peer.receive()
    await peer.send(response(b"1"))
    await peer.receive()


async def always(peer: Peer) -> None:
    while True:
        await peer.receive()
        await peer.send(response(b"2"))


@define(eq=False)
class Dials(httpcore.AsyncNetworkBackend):
    """Sockets, as often as *allowed*; after that the network is down."""

    allowed: int

    async def connect_tcp(self, host: str, port: int, **options: Any) -> Any:
        if self.allowed == 0:
            raise httpcore.ConnectError("down")
        self.allowed -= 1
        return await AnyIOBackend().connect_tcp(host, port, **options)


@asynccontextmanager
async def kept_alive(
    *scripts: Any, dials: int = 2
) -> AsyncIterator[tuple[ConnectionPool, RawServer]]:
    """A pool with one idle connection."""
    pool = ConnectionPool(backend=Dials(dials))
    async with serve(*scripts) as server, anyio.create_task_group() as group:
        await group.start(pool.run)
        status, _, _ = await Exchange(pool)("GET", server.url, (), b"", 20)
        assert status == 200
        yield pool, server
        group.cancel_scope.cancel()


@pytest.mark.parametrize("dials", [1, 2])
async def test_what_may_have_arrived_stays_unknown_however_the_second_sending_fails(
    dials: int,
) -> None:
    reasons: list[str] = []

    async def again(reason: str) -> bool:
        reasons.append(reason)
        return True

    async with kept_alive(once, once, dials=dials) as (pool, server):
        url = parse_url(server.url)
        request = Request(b"POST", b"/mcp", ((b"Host", b"h"),), b"x")
        if dials == 2:
            lease, head = await send(pool, url.origin, lambda: request, again=again)
            assert head.status == 200
            lease.release()
        else:
            with pytest.raises(ConnectError) as caught:
                await send(pool, url.origin, lambda: request, again=again)
            assert caught.value.delivery == "unknown"
    assert reasons == ["stale_connection"]
    assert pool.statistics().leased == 0


async def test_an_errand_that_changes_nothing_is_sent_again_and_another_is_not() -> None:
    async with kept_alive(once, always) as (pool, server):
        assert (await Exchange(pool)("GET", server.url, (), b"", 20))[2] == b"2"
    async with kept_alive(once, always) as (pool, server):
        with pytest.raises(ServerDisconnected) as caught:
            await Exchange(pool)("POST", server.url, (), b"x", 20)
        assert caught.value.delivery == "unknown"
