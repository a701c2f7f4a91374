"""Calls that wait for each other at a server's turnstile: on real sockets, and in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from sark_trio import (
    AdaptiveConcurrency,
    AllowAll,
    AuditLog,
    BreakerOptions,
    GatewayClient,
    Http,
    RetryConfig,
)
from sark_trio.errors import CallTimeout, Overloaded, RateLimited
from sark_trio.testing import held, no_leaks
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, check_log, desk, hang, open_client, outcomes
from tests.support.http_servers import Peer, Received, modern, response, result, serve
from tests.support.virtual import TOOLS

ONCE = RetryConfig(attempts=1)


@define
class Counter:
    """A server that counts how many are with it at once, and lets them go together."""

    #: So many have to be there before any of them is answered.
    together: int
    here: int = 0
    most: int = 0
    served: int = 0
    refuse: int = 0
    let_go: anyio.Event = field(factory=anyio.Event)

    async def __call__(self, peer: Peer, received: Received) -> None:
        if received.rpc == "tools/list":
            await peer.send(result(received, TOOLS))
            return
        if self.refuse:
            self.refuse -= 1
            await peer.send(response(b"", "429 Too Many Requests"))
            return
        self.here += 1
        self.most = max(self.most, self.here)
        if self.here >= self.together:
            self.let_go.set()
        await self.let_go.wait()
        self.here -= 1
        self.served += 1
        await peer.send(result(received, {"resultType": "complete", "content": []}))


@asynccontextmanager
async def client_of(counter: Counter, **options: Any) -> AsyncIterator[GatewayClient]:
    disk = MemoryDisk()
    async with no_leaks(), serve(modern(counter)) as server:
        client = GatewayClient(
            servers={"desk": Http(server.url, concurrency=AdaptiveConcurrency(**options))},
            policy=AllowAll(),
            audit=AuditLog("log", files=disk),
            principal=ALICE,
            retry=ONCE,
            breaker=BreakerOptions(failures=1_000),
        )
        async with client:
            await client.list_tools("desk")
            yield client
            assert held(client) == {}
    check_log(disk)


def places(client: GatewayClient) -> Any:
    return client.statistics().servers["desk"].concurrency


@pytest.mark.anyio
async def test_no_more_calls_are_with_a_server_than_the_limit_and_all_are_served() -> None:
    counter = Counter(together=3)
    async with client_of(counter, limit_min=3, limit_max=3, wait_s=60) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(client.invoke_tool, "desk", "echo")
        assert (counter.most, counter.served) == (3, 30)
        assert (places(client).limit, places(client).cuts) == (3, 0)


@pytest.mark.anyio
async def test_the_line_is_bounded_and_a_refusal_is_not_sent() -> None:
    counter = Counter(together=2)
    async with client_of(counter, limit_min=2, limit_max=2, waiters_max=1, wait_s=60) as client:
        refused: list[Overloaded] = []

        async def call() -> None:
            try:
                await client.invoke_tool("desk", "echo")
            except Overloaded as exc:
                refused.append(exc)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call)
        (error, _) = refused
        assert (error.reason, error.delivery, error.attempts) == ("concurrency", "not_sent", 0)
        assert "desk: 1 calls wait for it already (2 at once)" in str(error)
        assert counter.served == 3
        assert places(client).refused == 2
        breaker = client.statistics().servers["desk"].breaker
        assert (breaker.failures, breaker.rejected) == (0, 0)


@pytest.mark.anyio
async def test_too_many_requests_cut_the_limit_and_answers_bring_it_back() -> None:
    counter = Counter(together=0, refuse=3)
    async with client_of(counter, limit_start=8, limit_max=8, slow_ratio=None) as client:
        for _ in range(3):
            with pytest.raises(RateLimited):
                await client.invoke_tool("desk", "echo")
        assert (places(client).limit, places(client).cuts) == (2, 3)  # 8, 5, 3, 2
        for _ in range(40):
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(client.invoke_tool, "desk", "echo")
        assert (places(client).limit, places(client).raises) == (8, 6)


@pytest.mark.anyio
async def test_whoever_stops_waiting_leaves_the_line() -> None:
    counter = Counter(together=10**6)
    async with client_of(counter, limit_min=1, limit_max=1, wait_s=60) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.invoke_tool, "desk", "echo")
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as waiting:
                for _ in range(5):
                    waiting.start_soon(client.invoke_tool, "desk", "echo")
                while places(client).waiting < 5:
                    await anyio.lowlevel.checkpoint()
                waiting.cancel_scope.cancel()
            assert (places(client).out, places(client).waiting) == (1, 0)
            counter.let_go.set()
        assert counter.served == 1


LIMIT_ONE = AdaptiveConcurrency(limit_min=1, limit_max=1)


@pytest.mark.trio
async def test_a_place_is_waited_for_as_long_as_is_said(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_client(desk(hang), disk, server_concurrency=LIMIT_ONE, retry=ONCE) as client:
        await client.list_tools("desk")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.invoke_tool, "desk", "echo")
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            with pytest.raises(Overloaded, match=r"no room for one more within 5 s \(1 at once\)"):
                await client.invoke_tool("desk", "echo")
            assert trio.current_time() - began == 5
            with pytest.raises(CallTimeout) as caught:
                await client.invoke_tool("desk", "echo", timeout_s=2)
            assert (caught.value.phase, caught.value.delivery) == ("permit", "not_sent")
            nursery.cancel_scope.cancel()
        assert held(client) == {}
    check_log(disk)
    assert sorted(outcomes(disk)) == [
        ("cancelled", "unknown"),
        ("not_sent", "not_sent"),
        ("not_sent", "not_sent"),
    ]


@pytest.mark.trio
@pytest.mark.parametrize(("asked_s", "cuts"), [(None, 1), (2, 0)])
async def test_only_a_deadline_of_our_own_says_that_a_server_is_slow(
    autojump_clock: MockClock, asked_s: float | None, cuts: int
) -> None:
    concurrency = AdaptiveConcurrency(limit_start=10)
    async with open_client(desk(hang), server_concurrency=concurrency, retry=ONCE) as client:
        with pytest.raises(CallTimeout):
            await client.invoke_tool("desk", "echo", timeout_s=asked_s)
        assert (places(client).cuts, places(client).limit) == (cuts, 7 if cuts else 10)


@pytest.mark.trio
async def test_a_call_that_stops_waiting_hands_its_place_on(autojump_clock: MockClock) -> None:
    """It is let in and cancelled in one and the same moment: the next one gets the place."""
    async with open_client(desk(hang), server_concurrency=LIMIT_ONE, retry=ONCE) as client:
        await client.list_tools("desk")
        scopes = [trio.CancelScope() for _ in range(2)]
        done: list[str] = []

        async def call(scope: trio.CancelScope | None) -> None:
            with scope or trio.CancelScope():
                done.append((await client.invoke_tool("desk", "echo")).text)

        async with trio.open_nursery() as nursery:
            for scope in (*scopes, None):
                nursery.start_soon(call, scope)
                await trio.testing.wait_all_tasks_blocked()
            for scope in scopes:
                scope.cancel()
        assert done == ["done"]
        assert held(client) == {}
