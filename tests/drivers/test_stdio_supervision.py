"""Supervision of real processes: how often they are restarted, and when they are given up."""

from __future__ import annotations

import os
import signal
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from sark_trio.errors import (
    ClientClosed,
    GatewayError,
    ProcessExited,
    ProcessStartError,
    ProcessUnresponsive,
    ServerDown,
)
from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.supervise import Phase, SuperviseOptions
from sark_trio.transports.base import Outgoing
from sark_trio.transports.stdio import StdioTransport
from tests.support.stdio import baseline, call, make, running, tool

anyio_test = pytest.mark.anyio
#: A window that no machine is too slow for, and delays that nobody waits for.
AT_ONCE = SuperviseOptions(
    window_s=3600, cool_off_s=7200, backoff=RetryConfig(initial_delay_s=0.001, jitter=0)
)
ONCE = SuperviseOptions(restarts_max=0)


def phase(transport: StdioTransport) -> Phase:
    supervision = transport.statistics().supervision
    assert supervision is not None
    return supervision.phase


@pytest.mark.row(35)
@anyio_test
@pytest.mark.law("D2")
async def test_d02_a_server_that_always_dies_is_restarted_five_times_and_then_down():
    """Restarts in any 30 s window are at most 5; then calls fail fast and say when to come back."""
    with baseline():
        async with running(make(supervision=AT_ONCE)) as transport:
            for _ in range(6):
                with pytest.raises(ProcessExited):
                    await call(transport, "exit", code=3)
            for _ in range(2):
                with pytest.raises(ServerDown, match="restarted 5 times within 3600 s") as caught:
                    await call(transport, "echo")
                assert "exited with status 3" in str(caught.value)
                assert (caught.value.reason, caught.value.delivery) == ("down", "not_sent")
                assert caught.value.retry_after_s == pytest.approx(7200, abs=600)
            statistics = transport.statistics()
            assert statistics.restarts == 5
            assert statistics.supervision is not None
            assert statistics.supervision.phase is Phase.DOWN
            assert statistics.supervision.down_until is not None
            assert statistics.details["pid"] is None
            transport.reset()
            assert await call(transport, "echo", fine=1)
            assert transport.statistics().restarts == 5  # an operator's start is none


@pytest.mark.row(34)
@anyio_test
async def test_a_program_that_cannot_run_is_down_after_six_processes(tmp_path: Any):
    script = "echo . >> started; echo 'no config' >&2; exit 3"
    transport = StdioTransport(
        ["sh", "-c", script], client_info={"name": "t"}, cwd=tmp_path, supervision=AT_ONCE
    )
    async with running(transport):
        for _ in range(3):  # a modern and a legacy process each
            with pytest.raises(ProcessStartError):
                await transport.connect()
        with pytest.raises(ServerDown, match="exited with status 3"):
            await transport.connect()
    assert (tmp_path / "started").read_text().count(".") == 6


@anyio_test
async def test_a_command_that_does_not_exist_is_looked_for_six_times():
    transport = StdioTransport(["./none"], client_info={"name": "t"}, supervision=AT_ONCE)
    async with running(transport):
        for _ in range(6):
            with pytest.raises(ProcessStartError):
                await transport.connect()
        with pytest.raises(ServerDown, match="does not exist"):
            await transport.connect()


@pytest.mark.trio
async def test_after_the_cool_off_it_is_tried_again(mock_clock: Any):
    async with running(make(supervision=ONCE)) as transport:
        with pytest.raises(ProcessExited):
            await call(transport, "exit")
        with pytest.raises(ServerDown) as caught:
            await call(transport, "echo")
        assert caught.value.retry_after_s == 300.0
    # The block's own guard against hanging is on the same clock: a second block.
    transport = make(supervision=SuperviseOptions(restarts_max=0, window_s=1, cool_off_s=5))
    async with running(transport):
        with pytest.raises(ProcessExited):
            await call(transport, "exit")
        with pytest.raises(ServerDown):
            await call(transport, "echo")
        mock_clock.jump(5)
        assert await call(transport, "echo", again=1)


@pytest.mark.trio
@pytest.mark.parametrize("how", ["time", "reset", "close"])
async def test_a_delay_before_a_restart_ends_by_time_an_operator_or_the_end(
    how: str, mock_clock: Any
):
    delays = SuperviseOptions(backoff=RetryConfig(initial_delay_s=3, jitter=0))
    outcome: list[Any] = []

    async def ask() -> None:
        try:
            outcome.append(await call(transport, "echo"))
        except GatewayError as exc:
            outcome.append(exc)

    async with running(make(supervision=delays)) as transport:
        for _ in range(2):
            with pytest.raises(ProcessExited):
                await call(transport, "exit")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with trio.move_on_after(5, shield=True) as watch:
                while phase(transport) is not Phase.IDLE:
                    await trio.testing.wait_all_tasks_blocked()
                await trio.testing.wait_all_tasks_blocked()
            assert not watch.cancelled_caught
            assert outcome == []
            if how == "time":
                mock_clock.jump(3)
            elif how == "reset":
                transport.reset()
            else:
                await transport.aclose()
        assert trio.current_time() == (3 if how == "time" else 0)
    assert isinstance(outcome[0], ClientClosed) is (how == "close")
    assert isinstance(outcome[0], dict) is (how != "close")


@anyio_test
async def test_the_end_of_a_process_while_we_close_is_no_restart():
    transport = make()
    async with running(transport):
        await transport.connect()
    assert transport.statistics().restarts == 0
    assert phase(transport) is Phase.CLOSED


# -- a process that hangs ---------------------------------------------------------------------


async def give_up(transport: StdioTransport, *, timed_out: bool | None, name: str = "hold") -> None:
    """Make a call, and cancel it once the process has it: for its time was up, or for no reason."""
    sent = anyio.Event()
    params = {"name": name, "arguments": {}}
    verdict = None if timed_out is None else lambda: timed_out
    outgoing = Outgoing(method="tools/call", params=params, on_sent=sent.set, timed_out=verdict)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.request, outgoing)
        await sent.wait()
        tasks.cancel_scope.cancel()


async def methods(transport: StdioTransport) -> list[str]:
    """What the process was told since its handshake, without this question."""
    seen = (await call(transport, "seen"))["seen"]
    return [message["method"] for message in seen if "method" in message]


@anyio_test
@pytest.mark.parametrize(("era", "probe"), [("modern", "server/discover"), ("legacy", "ping")])
async def test_a_call_in_vain_makes_us_ask_and_an_answer_is_enough(era: str, probe: str):
    async with running(make("--era", era)) as transport:
        before = (await call(transport, "pid"))["pid"]
        for _ in range(5):
            await give_up(transport, timed_out=True)
            # What comes after the probe was answered: the probe was, too.
            assert (await methods(transport))[-2:] == [probe, "tools/call"]
            assert phase(transport) is Phase.RUNNING
        assert (await call(transport, "pid"))["pid"] == before
        assert transport.statistics().unmatched == 0


@anyio_test
@pytest.mark.fault(39)
@pytest.mark.parametrize("timed_out", [None, False])
async def test_a_caller_who_changed_his_mind_casts_no_doubt(timed_out: bool | None):
    async with running(make()) as transport:
        for _ in range(5):
            await give_up(transport, timed_out=timed_out)
        told = await methods(transport)
        assert told.count("server/discover") == 1
        assert phase(transport) is Phase.RUNNING


@pytest.mark.trio
@pytest.mark.fault(39)
async def test_a_call_that_takes_its_time_in_silence_is_let_alone(mock_clock: Any):
    async with running(make()) as transport, trio.open_nursery() as nursery:
        before = (await call(transport, "pid"))["pid"]
        nursery.start_soon(transport.request, tool("hold"))
        while not (await call(transport, "held"))["held"]:
            pass
        mock_clock.jump(19)  # the block's own guard ends after twenty
        assert (await methods(transport)).count("server/discover") == 1
        assert (await call(transport, "pid"))["pid"] == before
        nursery.cancel_scope.cancel()


@pytest.mark.row(36)
@pytest.mark.trio
@pytest.mark.law("D3")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_d03_silence_after_the_question_ends_the_process(era: str, mock_clock: Any):
    """Every pending request resolves exactly once: those that a hung process had, too."""
    outcomes: list[Any] = []

    async def hold() -> None:
        try:
            outcomes.append(await call(transport, "hold"))
        except GatewayError as exc:
            outcomes.append(exc)

    with baseline():
        async with running(make("--era", era)) as transport:
            pid = (await call(transport, "pid"))["pid"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hold)
                while not (await call(transport, "held"))["held"]:
                    pass
                os.kill(pid, signal.SIGSTOP)
                await give_up(transport, timed_out=True)
                await trio.testing.wait_all_tasks_blocked()
                assert phase(transport) is Phase.PROBING
                mock_clock.jump(9.9)
                await trio.testing.wait_all_tasks_blocked()
                assert outcomes == []
                mock_clock.jump(0.1)
                await trio.testing.wait_all_tasks_blocked()
                (error,) = outcomes
                assert isinstance(error, ProcessUnresponsive)
                assert "within 10 s whether it lives; it is restarted" in str(error)
                assert error.delivery == "unknown"
                mock_clock.jump(0.5)  # SIGTERM means nothing to one that is stopped ... so long
            assert (await call(transport, "pid"))["pid"] != pid
            assert transport.statistics().restarts == 1


@pytest.mark.row(36)
@anyio_test
async def test_three_calls_in_a_row_without_any_answer_end_it_at_once():
    async with running(make()) as transport:
        pid = (await call(transport, "pid"))["pid"]
        os.kill(pid, signal.SIGSTOP)
        for _ in range(3):
            assert transport.statistics().details["pid"] == pid
            await give_up(transport, timed_out=True)
        assert transport.statistics().details["pid"] is None
        assert (await call(transport, "pid"))["pid"] != pid
        supervision = transport.statistics().supervision
        assert supervision is not None
        assert (supervision.kills, supervision.restarts) == (1, 1)
