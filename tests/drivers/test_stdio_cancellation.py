"""The stdio transport when somebody gives up: callers, the host, both, at any step."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sark_trio.errors import ClientClosed, ProcessExited, ProcessStartError
from sark_trio.transports.stdio import StdioTransport
from tests.support.stdio import HUNG_S, baseline, call, make, running, tool

pytestmark = pytest.mark.anyio

#: More steps of the scheduler than a start, a handshake and a call take of their own.
STEPS = 40


async def cancelled_after(steps: int, body: Callable[[], Awaitable[object]]) -> bool:
    """Run *body* and cancel it after so many rounds of the scheduler; whether it was cut."""
    async with anyio.create_task_group() as tasks:

        async def cut() -> None:
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

        tasks.start_soon(cut)
        await body()
        tasks.cancel_scope.cancel()
        return False
    return True


@pytest.mark.row(54)
@pytest.mark.law("D1", "D3")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_54_a_caller_cancelled_at_any_step_leaves_nothing_and_harms_nobody(era: str):
    """After stop: no child, no zombie, fds as before, for every cancel step."""
    for steps in range(STEPS):
        with baseline():
            async with running(make("--era", era)) as transport:
                await cancelled_after(steps, lambda: call(transport, "echo"))
                assert await call(transport, "echo", fine=steps)
                assert transport.statistics().details["pending"] == 0
                assert transport.statistics().restarts == 0


@pytest.mark.row(39, 54)
@pytest.mark.law("D1", "D3")
@pytest.mark.fault(42)
async def test_39_54_a_transport_cancelled_at_any_step_leaves_nothing():
    """After stop: no child, no zombie, fds as before, for every cancel step."""
    for steps in range(STEPS):
        transport = make()
        outcomes: list[Any] = []

        async def ask() -> None:
            try:
                outcomes.append(await call(transport, "hold"))  # noqa: B023
            except ClientClosed as exc:
                outcomes.append(exc)  # noqa: B023

        with baseline(), anyio.fail_after(HUNG_S):
            async with anyio.create_task_group() as callers:

                async def host() -> None:
                    async with anyio.create_task_group() as tasks:
                        await tasks.start(transport.run)  # noqa: B023
                        callers.start_soon(ask)
                        await anyio.sleep_forever()

                await cancelled_after(steps, host)
        # Whoever was waiting for the server knows why it is gone.
        assert all(isinstance(outcome, ClientClosed) for outcome in outcomes)


@pytest.mark.row(29)
async def test_a_cancelled_call_is_told_to_the_server_and_its_late_answer_dropped():
    async with running(make()) as transport:
        sent = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.request, tool("hold", on_sent=sent.set))
            await sent.wait()
            tasks.cancel_scope.cancel()
        (held,) = (await call(transport, "held"))["held"]
        seen = (await call(transport, "seen"))["seen"]
        assert [m["params"] for m in seen if m["method"] == "notifications/cancelled"] == [
            {"requestId": held, "reason": "the caller gave up"}
        ]
        await call(transport, "release")
        assert transport.statistics().unmatched == 1


@pytest.mark.row(55)
async def test_55_a_deadline_that_passed_already_sends_nothing():
    async with running(make()) as transport:
        await transport.connect()
        with anyio.move_on_after(0):
            await call(transport, "hold")
        seen = (await call(transport, "seen"))["seen"]
        assert [message["method"] for message in seen] == ["server/discover", "tools/call"]
        assert transport.statistics().requests == 1


async def test_55_a_call_that_is_still_in_our_buffer_is_taken_back_without_a_word():
    async with running(make()) as transport:
        pid = (await call(transport, "pid"))["pid"]
        os.kill(pid, signal.SIGSTOP)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.request, tool("echo", text="x" * 300_000))
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as given_up:
                given_up.start_soon(call, transport, "hold")
                await anyio.wait_all_tasks_blocked()
                given_up.cancel_scope.cancel()
            os.kill(pid, signal.SIGCONT)
        seen = (await call(transport, "seen"))["seen"]
        assert [m["params"].get("name") for m in seen] == [None, "pid", "echo", "seen"]


async def test_a_start_goes_on_when_the_caller_who_began_it_gave_up():
    async with running(make()) as transport:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.connect)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        methods = [m["method"] for m in (await call(transport, "seen"))["seen"]]
        assert methods == ["server/discover", "tools/call"]


async def test_closing_fails_what_waits_before_the_process_is_gone():
    with baseline():
        transport = make("--ignore-eof")
        async with running(transport):
            sent = anyio.Event()
            failed = anyio.Event()

            async def hold() -> None:
                with pytest.raises(ClientClosed) as caught:
                    await transport.request(tool("hold", on_sent=sent.set))
                assert caught.value.delivery == "unknown"
                failed.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold)
                await sent.wait()
                tasks.start_soon(transport.aclose)
                tasks.start_soon(transport.aclose)
                await failed.wait()
                session = transport._attempt.talk
                assert not session.child.has_exited()
            assert session.child.exit_code == -signal.SIGTERM


async def test_closing_in_the_middle_of_a_start_ends_it():
    async def connect() -> None:
        with pytest.raises(ClientClosed):
            await transport.connect()

    transport = make("--era", "silent", probe_timeout_s=600)
    with baseline():
        async with running(transport), anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(transport.aclose)


async def test_a_close_that_is_cancelled_goes_on_without_its_caller():
    with baseline():
        async with running(make()) as transport:
            await transport.connect()
            with anyio.move_on_after(0):
                await transport.aclose()
            with pytest.raises(ClientClosed):
                await transport.connect()


@pytest.mark.row(57)
async def test_57_a_crash_of_the_host_passes_through_unchanged():
    crash = LookupError("not of our making")
    with baseline():
        transport = make()
        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as tasks:
                await tasks.start(transport.run)
                await call(transport, "echo")
                raise crash
        assert caught.value.exceptions == (crash,)


async def test_a_failed_start_is_tried_anew_by_the_next_call(tmp_path: Any):
    async with running(StdioTransport(["./later"], client_info={"name": "t"}, cwd=tmp_path)) as t:
        for _ in range(2):
            with pytest.raises(ProcessStartError, match="does not exist"):
                await t.connect()
        (tmp_path / "later").write_text("#!/bin/sh\nexit 8\n")
        (tmp_path / "later").chmod(0o700)
        with pytest.raises(ProcessStartError, match="status 8"):
            await t.connect()


async def test_calls_during_a_restart_wait_for_the_new_process():
    async with running(make()) as transport:
        for _ in range(5):
            with pytest.raises(ProcessExited):
                await call(transport, "exit")
            pids: list[int] = []

            async def ask(found: list[int]) -> None:
                found.append((await call(transport, "pid"))["pid"])

            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(ask, pids)
            assert len(pids) == 10
            assert len(set(pids)) == 1
        assert transport.statistics().restarts == 5


@pytest.mark.row(39, 55)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("steps", range(0, 30, 3))
async def test_39_native_cancellation_of_asyncio_leaves_nothing(steps: int, anyio_backend: str):
    with baseline():
        transport = make()

        async def host() -> None:
            async with anyio.create_task_group() as tasks:
                await tasks.start(transport.run)
                await call(transport, "hold")

        task = asyncio.ensure_future(host())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # and once more, into the shielded stop
        with pytest.raises(asyncio.CancelledError):
            await task
