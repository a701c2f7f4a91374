"""What a breaker refuses is counted, wherever on its way a call is refused."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from sark_trio import BreakerOptions, CircuitOpen, CircuitState, GatewayClient, RetryConfig
from sark_trio.errors import OutcomeUnknown, ServerDisconnected
from sark_trio.machines.circuit import BreakerStatistics
from sark_trio.telemetry.events import BreakerChanged, Event
from tests.support.audit_disk import MemoryDisk
from tests.support.client import desk, hang, open_client

pytestmark = pytest.mark.trio
ONCE = RetryConfig(attempts=1)


async def fail(client: GatewayClient, times: int) -> None:
    for _ in range(times):
        with pytest.raises(OutcomeUnknown):
            await client.invoke_tool("desk", "echo")


def breaker_of(client: GatewayClient) -> BreakerStatistics:
    return client.statistics().servers["desk"].breaker


@pytest.mark.fault(10)
async def test_every_refused_call_is_counted_and_none_of_them_is_a_call(
    autojump_clock: MockClock,
) -> None:
    server = desk(*[ServerDisconnected("gone")] * 5)
    async with open_client(server, MemoryDisk(), retry=ONCE) as client:
        await fail(client, 5)
        for _ in range(7):
            with pytest.raises(CircuitOpen):
                await client.invoke_tool("desk", "echo")
        counted = breaker_of(client)
        assert counted.state is CircuitState.OPEN
        assert (counted.rejected, counted.failures, counted.faults) == (7, 5, 0)
        # Whoever only looks is no call.
        await client.explain("desk", "echo")
        client.get_metrics()
        assert breaker_of(client).rejected == 7
    assert len(server.arrived) == 5


async def test_a_refusal_that_finds_lost_probes_tells_that_the_breaker_opens(
    autojump_clock: MockClock,
) -> None:
    told: list[Event] = []
    options = BreakerOptions(failures=1, open_s=1, probes=1, probe_max_age_s=5)
    server = desk(ServerDisconnected("gone"), hang)
    async with open_client(server, retry=ONCE, breaker=options, hooks=[told.append]) as client:
        await fail(client, 1)
        await trio.sleep(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.invoke_tool, "desk", "echo")  # a probe that never ends
            await trio.sleep(6)
            with pytest.raises(CircuitOpen) as caught:
                await client.invoke_tool("desk", "echo")
            assert caught.value.reason == "open"
            nursery.cancel_scope.cancel()
    moves = [(e.source, e.target, e.why) for e in told if isinstance(e, BreakerChanged)]
    assert moves == [
        ("closed", "open", "failures"),
        ("open", "half_open", "elapsed"),
        ("half_open", "open", "stalled"),
    ]
