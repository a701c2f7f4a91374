"""Error handling's ten subjects of the original's integration report, one test each.

Against a registry on a real socket that fails as told. Nothing here waits for more than a few
hundredths of a second, and no test depends on a wait being short.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest

from sark_trio import (
    BreakerOptions,
    CallTimeout,
    CircuitBreaker,
    CircuitOpen,
    CircuitState,
    GatewayClient,
    GatewayErrorHandler,
    RetryConfig,
    with_retry,
    with_timeout,
)
from sark_trio.errors import HTTPStatusError
from tests.support.http_servers import Peer, Received, response
from tests.support.registry import RegistryDesk, client_of, registry

pytestmark = pytest.mark.anyio

#: Long enough to be seen, short enough to be waited for.
SHORT = BreakerOptions(open_s=0.02)
LONG = BreakerOptions(open_s=300)


async def broken(_: Peer, __: Received) -> bytes:
    return response(b"{}", "500 Internal Server Error")


def plain(url: str) -> Any:
    """A client that leaves all error handling to the test."""
    return client_of(url, enable_error_handling=False, cache=None)


async def trip(breaker: CircuitBreaker, client: GatewayClient, shown: RegistryDesk) -> None:
    """Five failures in a row."""
    shown.script = [broken] * 5
    for _ in range(5):
        with pytest.raises(HTTPStatusError):
            await breaker.call(client.list_servers)
    assert not shown.script


async def once_let_in(breaker: CircuitBreaker, client: GatewayClient) -> None:
    """Call until the breaker lets a call through."""
    while True:
        try:
            await breaker.call(client.list_servers)
        except CircuitOpen:
            await anyio.lowlevel.checkpoint()
        else:
            return


async def test_circuit_breaker_state_transitions() -> None:
    async with registry() as (shown, url), plain(url) as client:
        breaker = CircuitBreaker(SHORT)
        states = [breaker.state]
        await breaker.call(client.list_servers)
        await trip(breaker, client, shown)
        states.append(breaker.state)
        await once_let_in(breaker, client)
        states.append(breaker.state)
        await breaker.call(client.list_servers)
        states.append(breaker.state)
    assert [state.value for state in states] == ["closed", "open", "half_open", "closed"]


async def test_circuit_breaker_opens_after_failures() -> None:
    async with registry() as (shown, url), plain(url) as client:
        breaker = CircuitBreaker(LONG, name="gateway")
        shown.script = [broken] * 4
        for _ in range(4):
            with pytest.raises(HTTPStatusError):
                await breaker.call(client.list_servers)
        await breaker.call(client.list_servers)  # not five in a row
        assert breaker.state is CircuitState.CLOSED
        await trip(breaker, client, shown)
        asked = sum(shown.asked.values())
        with pytest.raises(CircuitOpen, match="gateway") as caught:
            await breaker.call(client.list_servers)
        assert 0 < (caught.value.retry_after_s or 0) <= 300
        assert sum(shown.asked.values()) == asked


@pytest.mark.fault(7)
async def test_half_open_state_behavior() -> None:
    goes_on = anyio.Event()

    async def slow(_: Peer, __: Received) -> None:
        await goes_on.wait()

    async with registry() as (shown, url), plain(url) as client:
        breaker = CircuitBreaker(BreakerOptions(open_s=0.02, successes=9))
        await trip(breaker, client, shown)
        await once_let_in(breaker, client)
        shown.script = [slow] * 3
        before = sum(shown.asked.values())
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(breaker.call, client.list_servers)
            while sum(shown.asked.values()) < before + 3:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(CircuitOpen) as caught:  # three probes at a time, and no more
                await breaker.call(client.list_servers)
            assert caught.value.reason == "probing"
            goes_on.set()
        shown.script = [broken]
        with pytest.raises(HTTPStatusError):
            await breaker.call(client.list_servers)
        assert breaker.state is CircuitState.OPEN  # one failure is enough


async def test_circuit_closes_after_successes() -> None:
    async with registry() as (shown, url), plain(url) as client:
        breaker = CircuitBreaker(SHORT)
        await trip(breaker, client, shown)
        await once_let_in(breaker, client)
        assert breaker.state is CircuitState.HALF_OPEN
        await breaker.call(client.list_servers)
        assert breaker.state is CircuitState.CLOSED
        assert breaker.metrics()["failure_count"] == 0


async def test_retry_with_exponential_backoff() -> None:
    times: list[float] = []

    async def notes(peer: Peer, received: Received) -> bytes | None:
        times.append(anyio.current_time())
        return await broken(peer, received) if len(times) < 4 else None

    shown = RegistryDesk(script=[notes] * 4)
    async with registry(shown) as (_, url), plain(url) as client:
        schedule = RetryConfig(attempts=4, initial_delay_s=0.02, jitter=0)
        servers = await with_retry(client.list_servers, config=schedule)
        assert len(servers) == 3
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(waits) == 3
    # The clock of uvloop ticks in milliseconds.
    assert all(wait > least - 0.003 for wait, least in zip(waits, (0.02, 0.04, 0.08), strict=True))


@pytest.mark.fault(31)
async def test_retry_exhausted() -> None:
    async with registry() as (shown, url), plain(url) as client:
        shown.script = [broken] * 9
        with pytest.raises(HTTPStatusError) as caught:  # the last real error, and no other
            await with_retry(client.list_servers, config=RetryConfig(initial_delay_s=0.001))
        assert (caught.value.status, caught.value.attempts) == (500, 3)
        assert sum(shown.asked.values()) == 3


@pytest.mark.fault(6)
async def test_timeout_enforcement() -> None:
    async def never(peer: Peer, _: Received) -> None:
        await peer.wait_closed()

    async with registry(RegistryDesk(script=[never])) as (_, url), plain(url) as client:
        with pytest.raises(TimeoutError) as caught:
            await with_timeout(client.list_servers, timeout_s=0.05)
        assert isinstance(caught.value, CallTimeout)


@pytest.mark.fault(13)
async def test_timeout_success() -> None:
    async with registry() as (_, url), plain(url) as client:
        servers = await with_timeout(partial(client.list_servers, page_size=2), timeout_s=20)
        assert len(servers) == 2
        assert len(await with_timeout(client.list_servers)) == 3  # thirty seconds by default


async def test_full_error_handler_stack() -> None:
    async with registry() as (shown, url), plain(url) as client:
        quick = RetryConfig(initial_delay_s=0.001)
        handler = GatewayErrorHandler(LONG, quick, timeout_s=20)
        shown.script = [broken, broken]
        assert len(await handler.call(client.list_servers)) == 3
        # Two further calls fail three times each: the fifth failure in a row opens the breaker.
        shown.script = [broken] * 6
        for _ in range(2):
            with pytest.raises((HTTPStatusError, CircuitOpen)):
                await handler.call(client.list_servers)
        assert handler.circuit.state is CircuitState.OPEN
        asked = sum(shown.asked.values())
        with pytest.raises(CircuitOpen):
            await handler.call(client.list_servers)
        assert sum(shown.asked.values()) == asked == 8


async def test_error_handler_metrics() -> None:
    async def never(peer: Peer, _: Received) -> None:
        await peer.wait_closed()

    async with registry() as (shown, url), plain(url) as client:
        handler = GatewayErrorHandler(retry=RetryConfig(initial_delay_s=0.001))
        assert handler.metrics()["retry_config"]["max_attempts"] == 3
        await handler.call(client.list_servers)
        shown.script = [broken]
        with pytest.raises(HTTPStatusError):  # for this call alone
            await handler.call(client.list_servers, retry=RetryConfig(attempts=1))
        shown.script = [never]
        with pytest.raises(CallTimeout):
            await handler.call(client.list_servers, timeout_s=0.05)
        said = handler.metrics()
    assert said["default_timeout"] == 30.0
    assert said["retry_config"] == {
        "max_attempts": 3,
        "initial_delay": 0.001,
        "max_delay": 30.0,
    }
    counted = said["circuit_breaker"]
    assert counted.pop("last_failure_time") > 1_700_000_000
    assert counted == {
        "state": "closed",
        "failure_count": 2,
        "success_count": 0,
        "total_calls": 3,
        "total_failures": 2,
        "total_successes": 1,
        "failure_rate": 2 / 3,
        "state_changes": 0,
    }
