"""Figures that are promised, as counts: of probes, of calls, of operations, of bytes.

None of them is a time, so that they hold on any machine. ``nox -s deep`` asks for more.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio.errors import CircuitOpen, OutcomeUnknown, ServerDisconnected
from sark_trio.machines.pool import Dial, Grant, Pool, PoolOptions
from sark_trio.testing import held
from sark_trio.transports.memory import Incoming
from tests.support.client import answer, desk, open_client
from tests.support.glutton import GROWTH_BYTES_MAX, PROCESS, WEB, fed
from tests.support.throng import SERVERS, throng

# -- 10,000 callers at a breaker that is half open ----------------------------------------------


@pytest.mark.trio
async def test_ten_thousand_callers_at_half_open_are_three_probes(
    autojump_clock: MockClock,
) -> None:
    """Of 10,000 calls at the moment when an open breaker may be tried, three reach the server."""
    let_go = anyio.Event()

    async def held_up(incoming: Incoming) -> Any:
        incoming.receive()
        await let_go.wait()
        return answer()

    server = desk(*[ServerDisconnected("gone") for _ in range(5)], *[held_up] * 10_000)
    ends = Counter[str]()
    async with open_client(server, timeout_s=300.0) as client:

        async def call() -> None:
            try:
                ends[(await client.invoke_tool("desk", "echo")).text] += 1
            except CircuitOpen as exc:
                ends[exc.reason] += 1

        for _ in range(5):
            with pytest.raises(OutcomeUnknown):
                await client.invoke_tool("desk", "echo")
        await trio.sleep(30)
        async with trio.open_nursery() as nursery:
            for _ in range(10_000):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            assert ends == {"probing": 9_997}
            assert len(server.times) == 5 + 3
            let_go.set()
        assert ends == {"probing": 9_997, "done": 3}
        assert client.statistics().servers["desk"].breaker.state == "closed"
        assert held(client) == {}


# -- what a lease costs while others wait ---------------------------------------------------------


def calls_of(function: Callable[[], object]) -> int:
    """Calls of functions, Python's and C's, that *function* makes."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def leases_cost(waiting: int) -> int:
    """Calls for 500 leases: one comes back and is given to the oldest of those who wait."""
    pool = Pool(PoolOptions(total=50, per_origin=10, waiters_max=20_000))
    live: list[int] = []

    def carry_out(effects: tuple[Any, ...]) -> None:
        for effect in effects:
            if isinstance(effect, Dial):
                carry_out(pool.dialed(0.0, effect.slot))
            elif isinstance(effect, Grant):
                started = pool.start(0.0, effect.ticket)
                assert isinstance(started, int)
                live.append(started)

    for number in range(50 + waiting):
        carry_out(pool.want(0.0, number % 5)[1])
    assert (len(live), pool.statistics().waiting) == (50, waiting)

    def lease() -> None:
        for number in range(500):
            carry_out(pool.give_back(0.0, live.pop(0), clean=True))
            carry_out(pool.want(0.0, number % 5)[1])

    cost = calls_of(lease)
    assert (len(live), pool.statistics().waiting) == (50, waiting)
    return cost


def test_a_lease_costs_the_same_while_ten_wait_and_while_ten_thousand_do() -> None:
    """Counted in calls of functions; at most half as much again is promised."""
    few, many = leases_cost(10), leases_cost(10_000)
    assert few > 500
    assert many <= 1.5 * few


# -- thousands of calls over fifty connections ----------------------------------------------------

#: ``nox -s deep`` has 10,000.
CALLS = 1_000


@pytest.mark.anyio
@pytest.mark.row(58)
async def test_calls_by_the_thousand_share_fifty_connections_and_none_is_lost() -> None:
    """Each arrives once and gets its own answer; no server sees more than ten connections."""
    found = await throng(CALLS)
    assert found.arrived == found.answered == Counter(range(CALLS))
    assert len(found.open_max) == SERVERS
    assert max(found.open_max.values()) <= 10


# -- floods -------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.row(13, 42)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_flood_grows_memory_by_more_than_sixteen_mebibytes(
    anyio_backend: tuple[str, Any],
) -> None:
    """64 MiB of a body, an event, a gzip bomb, a line and of stderr; 1 GiB in ``nox -s deep``."""
    found = await fed(anyio_backend[0], 64)
    assert list(found) == [*WEB, *PROCESS]
    assert {flood: said["error"] for flood, said in found.items()} == {
        **dict.fromkeys(WEB, "MessageTooLarge"),
        **dict.fromkeys(PROCESS),
    }
    grown = {flood: said["grown_bytes"] for flood, said in found.items()}
    assert {flood: size for flood, size in grown.items() if size > GROWTH_BYTES_MAX} == {}
