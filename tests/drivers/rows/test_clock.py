"""Rows 52 and 53: clocks that jump, stand still or were suspended; chance that is no chance."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sark_trio import BreakerOptions, RetryConfig
from sark_trio.errors import CallTimeout, CircuitOpen, ConnectError, HTTPStatusError
from sark_trio.governance.decision import Decision
from sark_trio.net import clock
from tests.support.audit_disk import MemoryDisk
from tests.support.client import check_log, desk, hang, open_client
from tests.support.faulty import NETWORKED, cell, do
from tests.support.governance import Answers
from tests.support.http_servers import Peer, Received, response
from tests.support.virtual import virtual

pytestmark = pytest.mark.trio

YEAR_S = 366 * 86_400


def wall(monkeypatch: pytest.MonkeyPatch, shift_s: float) -> None:
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + shift_s)


@pytest.mark.row(52)
@pytest.mark.parametrize("shift_s", [YEAR_S, -YEAR_S, 3600, -3600, 1, -1])
async def test_the_wall_clock_moves_neither_breaker_nor_retry_nor_list(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    server, disk = desk(ConnectError("refused")), MemoryDisk()
    breaker = BreakerOptions(failures=3)
    async with open_client(server, disk, breaker=breaker) as client:
        await client.list_tools("desk")
        wall(monkeypatch, shift_s)
        await client.invoke_tool("desk", "echo")
        first, second = server.times
        assert second - first == pytest.approx(1)
        server.script[:] = [ConnectError("refused") for _ in range(3)]
        with pytest.raises(ConnectError):
            await client.invoke_tool("desk", "echo")
        wall(monkeypatch, 2 * shift_s)
        with pytest.raises(CircuitOpen) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.retry_after_s == pytest.approx(30)
        await trio.sleep(30)
        await client.invoke_tool("desk", "echo")
        assert server.lists == 1
    check_log(disk)


@pytest.mark.row(52)
@pytest.mark.parametrize("kind", NETWORKED)
async def test_after_a_jump_nothing_old_is_used(mock_clock: MockClock, kind: str) -> None:
    """As a machine that was stopped from outside sees it: idle connections, lists, sessions."""
    async with cell(kind) as (server, client):
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        before = server.listening.connections
        mock_clock.jump(50)  # the cell's own guard against hanging ends after sixty
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        if kind != "websocket":  # which keeps its one alive with pings
            assert server.listening.connections > before


@pytest.mark.row(52)
async def test_a_list_that_got_old_in_a_jump_is_fetched_again(mock_clock: MockClock) -> None:
    server = desk()
    async with open_client(server) as client:
        await client.invoke_tool("desk", "echo")
        mock_clock.jump(8 * 3600)
        await client.list_tools("desk")
        assert server.lists == 2


@pytest.fixture
def suspend(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Suspends the machine: the clock of the event loop stands still, and one goes on."""
    slept = [0.0]
    monkeypatch.setattr(clock, "machine", clock.Suspensions(lambda: slept[0]))

    def sleep(seconds: float) -> None:
        slept[0] += seconds

    return sleep


@pytest.mark.row(52)
async def test_after_a_suspend_decisions_and_lists_are_made_anew(
    mock_clock: MockClock, suspend: Callable[[float], None]
) -> None:
    """What was true when the lid was shut is asked again; a nap within its time changes nothing."""
    server, policy = desk(), Answers(Decision(allow=True, revision="1"), revision="1")
    async with open_client(server, policy=policy) as client:

        async def use() -> tuple[int, int]:
            await client.invoke_tool("desk", "echo", {"n": 1})
            await client.list_tools("desk")
            return len(policy.asked), server.lists

        first = await use()
        assert await use() == first
        suspend(3)
        assert await use() == first
        suspend(8 * 3600)
        asked, lists = await use()
        assert asked == 2 * first[0]
        assert lists > first[1]
        assert await use() == (asked, lists)
    assert trio.current_time() == 0


@pytest.mark.row(52)
@pytest.mark.parametrize("kind", ["json", "events"])
async def test_after_a_suspend_idle_connections_are_not_used(
    mock_clock: MockClock, suspend: Callable[[float], None], kind: str
) -> None:
    """The peer closed them long ago, and nobody was awake to hear it."""
    async with cell(kind) as (server, client):
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        before = server.listening.connections
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        assert server.listening.connections == before
        suspend(8 * 3600)
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        assert server.listening.connections == before + 1
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        assert server.listening.connections == before + 1


@pytest.mark.row(52)
async def test_a_suspend_takes_no_time_from_a_call_and_none_from_a_breaker(
    autojump_clock: MockClock, suspend: Callable[[float], None]
) -> None:
    server = desk(hang, *[ConnectError("refused") for _ in range(3)])
    async with open_client(server, breaker=BreakerOptions(failures=3)) as client:

        async def closes_the_lid() -> None:
            await trio.sleep(5)
            suspend(8 * 3600)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(closes_the_lid)
            with pytest.raises(CallTimeout):
                await client.invoke_tool("desk", "echo", timeout_s=20)
        assert trio.current_time() == 20
        with pytest.raises(ConnectError):
            await client.invoke_tool("desk", "echo")
        suspend(8 * 3600)
        with pytest.raises(CircuitOpen) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.retry_after_s == pytest.approx(30)


@pytest.mark.row(52)
@pytest.mark.parametrize("kind", [*NETWORKED, "stdio", "memory"])
async def test_a_clock_that_stands_still_stops_no_call(mock_clock: MockClock, kind: str) -> None:
    async with cell(kind) as (server, client):
        for n in range(5):
            assert (await client.invoke_tool("desk", "echo", do(n=n))).text == str(n)
        assert server.effects == 5
    assert trio.current_time() == 0


@pytest.mark.row(53)
@pytest.mark.parametrize("drawn", [0.0, 1 - 2**-53])
async def test_chance_that_is_none_keeps_every_wait_within_its_bounds(
    autojump_clock: MockClock, drawn: float
) -> None:
    times: list[float] = []

    async def handle(peer: Peer, received: Received) -> None:
        times.append(trio.current_time())
        if len(times) % 2:
            await peer.send(response(b"", "503 Busy", Retry_After="3"))
        else:
            await peer.send(response(b"", "500 Oops"))

    retry = RetryConfig(attempts=6)
    options: dict[str, Any] = {"retry": retry, "jitter": lambda: drawn, "timeout_s": 300}
    async with virtual(handle, **options) as world:
        with pytest.raises(HTTPStatusError):
            await world.client.invoke_tool("desk", "echo", replay_safe=True)
        times = times[:6]
        waits = [after - before for before, after in itertools.pairwise(times)]
    for number, wait in enumerate(waits):
        base = min(2**number, 30)
        if number % 2 == 0:  # after the one that said three seconds
            assert wait >= 3 - 1e-6
            assert wait <= max(base * 1.25, 3.3) + 0.01
        else:
            assert 0.75 * base - 0.01 <= wait <= min(1.25 * base, 30) + 0.01
