"""Rows 34 to 43 as a client meets them: programs that do not run, end, hang, or say too much."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import GatewayClient, RetryConfig
from sark_trio.client.servers import Stdio
from sark_trio.errors import (
    CallTimeout,
    GatewayError,
    OutcomeUnknown,
    ProcessExited,
    ProcessStartError,
    ProtocolError,
)
from sark_trio.testing import no_leaks
from tests.support.audit_disk import MemoryDisk
from tests.support.client import outcomes
from tests.support.faulty import cell, client_of, do


def pid_of(client: GatewayClient) -> int:
    pid = client.statistics().servers["desk"].wire.details["pid"]
    assert isinstance(pid, int)
    return pid


PROGRAMS = {
    "not found": ("no-such-program",),
    "not executable": ("{folder}/text",),
    "a folder": ("{folder}",),
    "exits at once": ("sh", "-c", "exit 3"),
    "exits well at once": ("true",),
    "is killed at once": ("sh", "-c", "kill -9 $$"),
}


@pytest.mark.anyio
@pytest.mark.row(34)
@pytest.mark.parametrize("how", PROGRAMS)
async def test_a_program_that_does_not_run_is_not_sent_anything(how: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    command = [part.replace("{folder}", str(tmp_path)) for part in PROGRAMS[how]]
    once = RetryConfig(attempts=1)  # a second start waits for a second, of real time
    server = Stdio(command, retry=once)
    async with no_leaks(), client_of(server, MemoryDisk(), heals=False) as client:
        with pytest.raises(GatewayError) as caught:
            await client.invoke_tool("desk", "echo", {}, replay_safe=False)
        assert isinstance(caught.value, ProcessStartError)
        assert caught.value.delivery == "not_sent"


@pytest.mark.trio
@pytest.mark.row(35)
async def test_all_calls_of_a_process_that_is_killed_end_at_once_and_unsafe_ones_are_not_repeated(
    mock_clock: MockClock,
) -> None:
    disk, errors = MemoryDisk(), list[BaseException]()
    async with cell("stdio", disk=disk) as (server, client):

        async def call() -> None:
            with pytest.raises(OutcomeUnknown) as caught:
                await client.invoke_tool("desk", "echo", do(end="hang"))
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(call)
            while server.effects < 200:
                await trio.lowlevel.checkpoint()
            os.kill(pid_of(client), signal.SIGKILL)
        assert trio.current_time() == 0
        assert all(isinstance(error.__cause__, ProcessExited) for error in errors)
        assert (len(errors), server.effects) == (200, 200)
    assert outcomes(disk) == [("unknown", "unknown")] * 200 + [("ok", "answered")]


@pytest.mark.anyio
@pytest.mark.row(36)
async def test_a_process_that_is_stopped_costs_a_call_its_deadline() -> None:
    async with cell("stdio") as (_server, client):
        await client.list_tools("desk")
        pid = pid_of(client)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CallTimeout):
            await client.invoke_tool("desk", "echo", do(), timeout_s=0.05)
        os.kill(pid, signal.SIGCONT)
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"


@pytest.mark.anyio
@pytest.mark.row(41)
async def test_a_process_that_only_makes_noise_is_replaced() -> None:
    async with cell("stdio") as (server, client):
        with pytest.raises((ProtocolError, OutcomeUnknown)):
            await client.invoke_tool("desk", "echo", do((b"noise", 100_000), end="hang"))
        assert client.statistics().servers["desk"].wire.restarts == 0
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        assert client.statistics().servers["desk"].wire.restarts == 1
        assert server.effects == 2


@pytest.mark.anyio
@pytest.mark.row(40)
async def test_the_end_of_a_process_between_two_calls_is_no_callers_concern() -> None:
    async with cell("stdio") as (server, client):
        await client.list_tools("desk")
        os.kill(pid_of(client), signal.SIGKILL)
        with anyio.fail_after(30):
            while client.statistics().servers["desk"].wire.details["pid"] is not None:
                await anyio.wait_all_tasks_blocked()
        assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        assert server.effects == 1
