"""What one task does and many wait for, cancelled at every step: tokens, cached answers, changes.

Whoever is cancelled costs the others nothing, and what was paid for once is not paid for again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio import BreakerOptions, CacheOptions, ClientCredentials, RetryConfig
from sark_trio.client.answers import Answer
from sark_trio.client.authorizing.authorizer import Authorizer
from sark_trio.client.cached import Cache
from sark_trio.client.servers import Memory
from sark_trio.client.upstream import Upstream
from sark_trio.testing import Victim, held
from sark_trio.transports.base import Outgoing
from sark_trio.transports.http import HttpTransport
from sark_trio.transports.memory import Incoming
from tests.support.authority import Authority, authority, user
from tests.support.client import ALICE, answer, desk, open_client, tool
from tests.support.sweeping import sweep
from tests.sweep.test_transports import Backend, running

pytestmark = pytest.mark.row(54)


@pytest.fixture(params=["trio", "asyncio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def yes(_reason: str) -> bool:
    return True


def call() -> Outgoing:
    params = {"name": "echo", "arguments": {}}
    return Outgoing(method="tools/call", params=params, may_resend=yes)


def opened(site: Authority, auth: Any) -> Any:
    return running(HttpTransport(site.url, auth=Authorizer(site.url, auth)))


def test_a_user_who_signs_in(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with authority() as site, opened(site, user()) as transport:
            with victim:
                await transport.request(call())
            await transport.request(call())
            # Nobody's giving up ended it: the code was used once, and the token is the first.
            assert site.grants() == ["authorization_code"]

    assert sweep(scenario, backend=backend, every=3).cancelled > 15


def test_a_token_that_is_fetched_when_the_transport_is_closed(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        options = ClientCredentials(client_id="us", client_secret="secret")
        async with authority() as site:
            with victim:
                async with opened(site, options) as transport:
                    await transport.request(call())

    assert sweep(scenario, backend=backend, every=2).cancelled > 20


@pytest.mark.parametrize("refused", [False, True])
def test_a_token_that_is_rotated(backend: Backend, refused: bool) -> None:
    async def scenario(victim: Victim) -> None:
        lifetime_s = 3600 if refused else 1
        async with (
            authority(expires_in=lifetime_s) as site,
            opened(site, user()) as transport,
        ):
            await transport.request(call())
            site.revoke()
            site.expires_in, begun = 3600, len(site.forms)
            with victim:
                await transport.request(call())
            await transport.request(call())
            # Its answer was read and kept, whoever had asked for it.
            assert site.grants()[begun:] == ["refresh_token"]

    assert sweep(scenario, backend=backend).cancelled > 5


@asynccontextmanager
async def cached(fetches: list[None]) -> AsyncIterator[Callable[[], Awaitable[Answer]]]:
    """Reads one thing through a cache, whose source notes each fetch that came to its end."""
    upstream = Upstream.of("desk", Memory(desk()), breaker=BreakerOptions(), retry=RetryConfig())

    async def ask() -> dict[str, Any]:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        fetches.append(None)
        return {"ttlMs": 60_000}

    async def read() -> Answer:
        return await cache.fetch(upstream, "resources/read", {}, ask, principal=ALICE)

    async with anyio.create_task_group() as tasks:
        await tasks.start(upstream.run)
        cache = Cache(
            options=CacheOptions(),
            spawn=tasks.start_soon,
            revision=lambda: None,
            jitter=lambda: 0.999,
            on_stale=lambda server, method: None,
        )
        yield read
        await upstream.aclose()
        assert (cache.statistics().flights, cache.statistics().waiting) == (0, 0)


def test_a_fetch_that_others_wait_for_too(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        fetches: list[None] = []
        async with cached(fetches) as read:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                tasks.start_soon(read)
                with victim:
                    await read()
            await read()
            assert len(fetches) == 1

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 3


def test_a_fetch_that_nobody_else_waits_for(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        fetches: list[None] = []
        async with cached(fetches) as read:
            with victim:
                await read()
            await read()
            await read()
            assert len(fetches) == 1

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 3


async def changing(incoming: Incoming) -> Mapping[str, Any]:
    """A server whose list changes once somebody listens."""
    incoming.receive()
    await anyio.lowlevel.checkpoint()
    if incoming.method == "tools/list":
        return {"tools": [tool()]}
    if incoming.method == "subscriptions/listen":
        acknowledged = {"notifications": {"toolsListChanged": True}}
        incoming.notify("notifications/subscriptions/acknowledged", acknowledged)
        await anyio.lowlevel.checkpoint()
        incoming.notify("notifications/tools/list_changed", {})
        await anyio.sleep_forever()
    return answer()


def test_a_subscription(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with open_client(changing) as client:
            with victim:
                async with client.subscribe("desk", tools_list=True) as changes:
                    assert (await anext(changes)).kind == "tools"
            await client.invoke_tool("desk", "echo")
            assert held(client) == {}

    assert sweep(scenario, backend=backend, seeds=2).cancelled > 3


def test_a_subscription_ends_with_its_client(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        with victim:
            async with (
                open_client(changing) as client,
                client.subscribe("desk", tools_list=True) as changes,
            ):
                await anext(changes)
                await client.close()

    assert sweep(scenario, backend=backend).cancelled > 10
