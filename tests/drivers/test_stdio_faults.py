"""The stdio transport with servers that break their word: rows 26 to 43 of the fault matrix."""

from __future__ import annotations

import os
import signal
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from sark_trio.errors import (
    GatewayError,
    Overloaded,
    ProcessExited,
    ProcessUnresponsive,
    ProtocolError,
    WriteTimeout,
)
from sark_trio.machines.correlate import Correlator
from sark_trio.transports.outbox import MESSAGES_MAX
from sark_trio.transports.stdio import StdioTransport
from tests.support.stdio import b64, baseline, call, ended, make, running

anyio_test = pytest.mark.anyio


async def outcome_of(transport: StdioTransport, name: str, /, **arguments: Any) -> Any:
    try:
        return await call(transport, name, **arguments)
    except GatewayError as exc:
        return exc


async def kill_once_blocked(pid: int) -> None:
    await anyio.wait_all_tasks_blocked()
    os.kill(pid, signal.SIGKILL)


def nested(depth: int) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * depth + b"]" * depth + b"}"


NO_MESSAGES = {
    "invalid UTF-8": b'{"jsonrpc":"2.0","method":"\xff"}',
    "one bad byte": b"\xff",
    "a number": b"1",
    "words": b"Server listening on stdio",
    "a long line": b"x" * 200_000,
    "a batch": b"[]",
    "half a message": b'{"jsonrpc":"2.0","id":1,"resu',
    "NaN": b'{"jsonrpc":"2.0","id":1,"result":{"x":NaN}}',
    "deep nesting": nested(100_000),
    "a key twice": b'{"jsonrpc":"2.0","id":1,"id":1,"result":{}}',
    "no version": b'{"id":1,"result":{}}',
    "result and error": b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}',
    "neither": b'{"jsonrpc":"2.0","id":1}',
    "id 1.0": b'{"jsonrpc":"2.0","id":1.0,"result":{}}',
    "id true": b'{"jsonrpc":"2.0","id":true,"result":{}}',
    "id object": b'{"jsonrpc":"2.0","id":{},"result":{}}',
    "a NUL": b"\0",
}


@pytest.mark.row(26, 27, 28)
@anyio_test
@pytest.mark.fault(40)
@pytest.mark.parametrize("line", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_26_27_28_a_line_that_is_no_message_costs_only_itself(line: bytes):
    async with running(make()) as transport:
        assert await call(transport, "raw", base64=b64(line + b"\n"))
        assert await call(transport, "echo")
        statistics = transport.statistics()
        assert (statistics.garbage, statistics.restarts) == (1, 0)


@anyio_test
async def test_26_empty_lines_and_carriage_returns_are_nothing():
    async with running(make()) as transport:
        await call(transport, "raw", base64=b64(b"\n\r\n\n"))
        answer = b'{"jsonrpc":"2.0","id":@ID,"result":{"windows":true}}\r\n'
        assert await call(transport, "as_raw", base64=b64(answer)) == {"windows": True}
        assert transport.statistics().garbage == 0


@pytest.mark.row(27, 28)
@anyio_test
@pytest.mark.parametrize(
    "answer",
    [
        b'{"jsonrpc":"2.0","id":@ID,"result":[]}',
        b'{"jsonrpc":"1.0","id":@ID,"result":{}}',
        b'{"jsonrpc":"2.0","id":@ID,"result":{},"error":{"code":1,"message":"m"}}',
        b'{"jsonrpc":"2.0","id":@ID,"error":"no object"}',
        b'{"jsonrpc":"2.0","id":@ID,"result":{"a":1,"a":2}}',
    ],
)
async def test_27_a_broken_answer_fails_the_call_that_it_is_for(answer: bytes):
    async with running(make()) as transport:
        with pytest.raises(ProtocolError) as caught:
            await call(transport, "as_raw", base64=b64(answer + b"\n"))
        assert caught.value.delivery == "unknown"
        assert await call(transport, "echo", x=1)


@pytest.mark.row(29)
@anyio_test
@pytest.mark.parametrize("foreign", [b"0", b"999", b"-1", b'"3"', b"2"])
async def test_29_an_answer_with_another_id_is_counted_and_the_call_waits_on(foreign: bytes):
    async with running(make()) as transport:
        await call(transport, "echo")  # ids 1 and 2 are used up
        stray = b'{"jsonrpc":"2.0","id":' + foreign + b',"result":{"wrong":1}}\n'
        good = b'{"jsonrpc":"2.0","id":@ID,"result":{"right":1}}\n'
        assert await call(transport, "as_raw", base64=b64(stray + good)) == {"right": 1}
        assert transport.statistics().unmatched == 1


@pytest.mark.row(30)
@anyio_test
async def test_30_the_first_of_two_answers_wins():
    async with running(make()) as transport:
        answers = b"".join(
            b'{"jsonrpc":"2.0","id":@ID,"result":{"n":%d}}\n' % number for number in (1, 2)
        ).replace(b"@ID", b"2")
        assert await call(transport, "as_raw", base64=b64(answers)) == {"n": 1}
        await call(transport, "echo")
        assert transport.statistics().unmatched == 1


@pytest.mark.row(41)
@anyio_test
@pytest.mark.law("D4")
@pytest.mark.fault(40)
async def test_d04_a_line_of_64_mib_costs_only_itself():
    """Memory stays within the line limit and 1 MiB under any output."""
    async with running(make()) as transport:
        # The newline ends it, so the answer that follows is a line of its own.
        await call(transport, "raw", base64=b64(b"x" * 65_536), times=1024, then=b64(b"\n"))
        assert await call(transport, "echo", still="here")
        assert transport.statistics().garbage == 1
        session = transport._attempt.talk
        assert session._lines.held_bytes == 0
        assert session._lines.dropped == 1


@pytest.mark.row(41)
@anyio_test
async def test_41_a_hundred_bad_lines_in_ten_seconds_end_the_process():
    async with running(make()) as transport:
        before = (await call(transport, "pid"))["pid"]
        held = []
        async with anyio.create_task_group() as tasks:

            async def hold() -> None:
                held.append(await outcome_of(transport, "hold"))

            tasks.start_soon(hold)
            await anyio.wait_all_tasks_blocked()
            noise = await outcome_of(transport, "raw", base64=b64(b"noise\n"), times=100_000)
        for error in (noise, *held):
            assert isinstance(error, ProtocolError)
            assert error.delivery == "unknown"
        assert (await call(transport, "pid"))["pid"] != before
        assert transport.statistics().restarts == 1


@pytest.mark.row(41)
@anyio_test
async def test_41_a_program_that_is_no_server_at_all_is_not_waited_for():
    with baseline():
        async with running(StdioTransport(["yes"], client_info={"name": "tests"})) as transport:
            with pytest.raises(ProtocolError, match="what is no MCP") as caught:
                await transport.connect()
            assert caught.value.delivery == "not_sent"


@pytest.mark.row(41)
@pytest.mark.trio
async def test_41_ninety_nine_bad_lines_in_ten_seconds_do_not(mock_clock: Any):
    async with running(make()) as transport:
        await call(transport, "raw", base64=b64(b"noise\n"), times=99)
        mock_clock.jump(10.1)
        await call(transport, "raw", base64=b64(b"noise\n"), times=99)
        assert await call(transport, "echo", still="here")
        assert transport.statistics().garbage == 198
        assert transport.statistics().restarts == 0


@pytest.mark.row(34)
@anyio_test
@pytest.mark.parametrize("code", [0, 3])
async def test_34_an_exit_in_the_middle_of_a_call_is_told_with_the_last_words(code: int):
    with baseline():
        async with running(make()) as transport:
            before = (await call(transport, "pid"))["pid"]
            with pytest.raises(ProcessExited, match=f"status {code}") as caught:
                await call(transport, "exit", code=code, stderr="out of \N{SNOWMAN}\n")
            assert caught.value.exit_code == code
            assert caught.value.stderr_tail == "out of \N{SNOWMAN}\n"
            assert caught.value.delivery == "unknown"
            assert (await call(transport, "pid"))["pid"] != before
            assert transport.statistics().restarts == 1


@pytest.mark.row(34)
@anyio_test
async def test_34_an_answer_before_the_exit_is_delivered():
    for _ in range(5):
        async with running(make()) as transport:
            assert (await call(transport, "exit", answer_first=True))["last"] is True


@pytest.mark.row(35)
@pytest.mark.trio
@pytest.mark.law("D3")
async def test_35_a_thousand_calls_fail_at_once_when_the_process_is_killed(mock_clock: Any):
    """Every pending request resolves exactly once; the clock stands still meanwhile."""
    outcomes: list[Any] = []

    async def hold() -> None:
        outcomes.append(await outcome_of(transport, "hold"))

    async with running(make()) as transport:
        pid = (await call(transport, "pid"))["pid"]
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(hold)
            while len((await call(transport, "held"))["held"]) < 1000:
                pass
            assert outcomes == []
            os.kill(pid, signal.SIGKILL)
        assert len(outcomes) == 1000
        assert len({id(error) for error in outcomes}) == 1000
        for error in outcomes:
            assert isinstance(error, ProcessExited)
            assert (error.exit_code, error.delivery) == (-signal.SIGKILL, "unknown")
            assert "ended by signal 9" in str(error)
        assert trio.current_time() == 0
        assert await call(transport, "echo", alive=True)


@pytest.mark.row(38)
@pytest.mark.trio
async def test_38_a_grandchild_that_holds_the_pipes_does_not_delay_the_news(mock_clock: Any):
    with baseline():
        async with running(make()) as transport:
            grandchild = (await call(transport, "spawn"))["pid"]
            with pytest.raises(ProcessExited, match="status 4"):
                await call(transport, "exit", code=4)
            assert trio.current_time() == 0
            await ended(grandchild)
            assert transport.statistics().details["survivors"] == 0


@pytest.mark.row(38)
@anyio_test
async def test_38_one_that_left_the_group_is_counted():
    transport = make()
    async with running(transport):
        escaped = (await call(transport, "spawn", escape=True))["pid"]
    try:
        assert transport.statistics().details["survivors"] == 1
    finally:
        os.kill(escaped, signal.SIGKILL)
        await ended(escaped)


@pytest.mark.row(36)
@anyio_test
@pytest.mark.fault(45)
async def test_36_a_stopped_process_costs_its_callers_their_own_deadline():
    with baseline():
        async with running(make()) as transport:
            pid = (await call(transport, "pid"))["pid"]
            os.kill(pid, signal.SIGSTOP)
            with anyio.move_on_after(0.05) as deadline:
                await call(transport, "echo")
            assert deadline.cancelled_caught
            os.kill(pid, signal.SIGCONT)
            assert await call(transport, "echo", again=1)
            os.kill(pid, signal.SIGSTOP)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill_once_blocked, pid)
                assert isinstance(await outcome_of(transport, "echo"), ProcessExited)
            assert await call(transport, "echo", again=2)


@anyio_test
async def test_35_what_comes_too_late_for_a_process_was_not_sent():
    async with running(make()) as transport:
        await transport.connect()
        session = transport._attempt.talk
        with pytest.raises(ProcessExited):
            await call(transport, "exit", code=2)
        with pytest.raises(ProcessExited, match="status 2") as caught:
            await session.notify("notifications/roots/list_changed", {})
        assert caught.value.delivery == "not_sent"
        assert "condemned" in repr(session)


@pytest.mark.row(40)
@anyio_test
@pytest.mark.parametrize("closing", ["close_stdout", "close_stdin"])
async def test_40_a_process_that_closes_one_pipe_is_replaced(closing: str):
    with baseline():
        async with running(make()) as transport:
            before = (await call(transport, "pid"))["pid"]
            first = await outcome_of(transport, closing)
            second = await outcome_of(transport, "pid")
            if closing == "close_stdout":
                assert isinstance(first, ProcessExited)
                assert (first.exit_code, first.delivery) == (None, "unknown")
                assert "closed its stdout" in str(first)
            else:
                assert first == {"resultType": "complete"}
                assert isinstance(second, ProcessExited)
                assert second.delivery == "not_sent"
            after = await call(transport, "pid")
            assert after["pid"] != before
            assert transport.statistics().restarts == 1


@pytest.mark.row(40)
@anyio_test
async def test_40_the_old_process_is_gone_before_the_new_one_starts():
    async with running(make("--ignore-eof", "--ignore-term")) as transport:
        before = (await call(transport, "pid"))["pid"]
        with pytest.raises(ProcessExited):
            await call(transport, "close_stdout")
        os.kill(before, 0)  # it is still there, and heeds nothing
        await transport.connect()
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)
        os.kill((await call(transport, "pid"))["pid"], signal.SIGKILL)


@pytest.mark.row(42)
@anyio_test
async def test_42_a_flood_on_stderr_blocks_nobody_and_its_end_is_kept():
    async with running(make()) as transport:
        assert await call(transport, "stderr", mebibytes=64)
        with pytest.raises(ProcessExited) as caught:
            await call(transport, "exit", code=1, stderr="the end")
    assert caught.value.stderr_tail.endswith("eeeethe end")
    assert len(caught.value.stderr_tail) == 4096


@pytest.mark.row(43)
@pytest.mark.trio
async def test_43_a_process_that_stops_reading_costs_the_calls_behind_it_a_write_timeout(
    mock_clock: Any,
):
    outcomes: dict[str, Any] = {}

    async def ask(name: str, tool_name: str, text: str = "") -> None:
        outcomes[name] = await outcome_of(transport, tool_name, text=text)

    with baseline():
        async with running(make(write_timeout_s=1)) as transport:
            await transport.connect()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, "held", "hold")
                await call(transport, "held")
                await call(transport, "stop_reading")
                tasks.start_soon(ask, "begun", "echo", "x" * 1_000_000)
                await trio.testing.wait_all_tasks_blocked()
                tasks.start_soon(ask, "behind", "echo", "x")
                await trio.testing.wait_all_tasks_blocked()
                assert outcomes == {}
                mock_clock.jump(1)
                await trio.testing.wait_all_tasks_blocked()
                # The process may only be busy with the first call: that one waits on.
                for name, delivery in (("begun", "unknown"), ("behind", "not_sent")):
                    assert isinstance(outcomes[name], WriteTimeout)
                    assert outcomes[name].delivery == delivery
                assert "held" not in outcomes
                for _ in range(2):
                    mock_clock.jump(1)
                    await trio.testing.wait_all_tasks_blocked()
            # Three timeouts, and not a byte either way: it hangs.
            assert isinstance(outcomes["held"], ProcessUnresponsive)
            assert outcomes["held"].delivery == "unknown"
            assert await call(transport, "echo", fresh="process")
            assert transport.statistics().restarts == 1
            assert transport.statistics().details["write_stalls"] == 3


@pytest.mark.row(43)
@anyio_test
async def test_43_the_queue_is_bounded_and_those_in_line_are_served_in_order():
    arrived: list[int] = []
    pid = 0

    async def ask(number: int) -> None:
        await call(transport, "echo", number=number, text="x" * 10_000)
        arrived.append(number)

    async with running(make()) as transport:
        pid = (await call(transport, "pid"))["pid"]
        os.kill(pid, signal.SIGSTOP)
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(ask, number)
            await anyio.wait_all_tasks_blocked()
            outbox = transport._attempt.talk._outbox
            assert len(outbox) == MESSAGES_MAX
            assert "in line" in repr(outbox)
            os.kill(pid, signal.SIGCONT)
        assert sorted(arrived) == list(range(300))
        assert transport.statistics().details["write_stalls"] == 0


@pytest.mark.row(43)
@anyio_test
async def test_43_those_in_line_get_a_write_timeout_that_says_nothing_was_sent():
    errors: list[Any] = []

    async def ask() -> None:
        errors.append(await outcome_of(transport, "echo", text="x" * 10_000))

    async with running(make(write_timeout_s=0.1)) as transport:
        assert await call(transport, "stop_reading")
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(ask)
        unsent = [error for error in errors if error.delivery == "not_sent"]
        assert all(isinstance(error, WriteTimeout) for error in unsent)
        # Six messages fit into the pipe, and the beginning of a seventh.
        assert len(unsent) == 193
        assert len(errors) == 200


@pytest.mark.row(31)
@anyio_test
async def test_31_a_flood_of_requests_is_answered_only_as_far_as_it_is_read():
    async with running(make("--era", "legacy")) as transport:
        pings = b'{"jsonrpc":"2.0","id":"p","method":"ping"}\n'
        await call(transport, "raw", base64=b64(pings), times=20_000)
        await call(transport, "echo")
        details = transport.statistics().details
        assert details["server_requests"] == 20_000
        assert details["dropped"] > 0


@anyio_test
async def test_more_calls_than_may_wait_are_refused(monkeypatch: Any):
    transport = make()
    transport._calls = Correlator(pending_max=2)
    async with running(transport):
        await transport.connect()
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(call, transport, "hold")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded) as caught:
                await call(transport, "echo")
            assert caught.value.delivery == "not_sent"
            tasks.cancel_scope.cancel()


@pytest.mark.row(29)
@anyio_test
@pytest.mark.law("D6")
async def test_d06_an_answer_to_a_dead_process_never_answers_a_call_to_its_successor():
    """The response of process n never answers a request to process n+1."""
    async with running(make()) as transport:
        with pytest.raises(ProcessExited):
            await call(transport, "exit")
        old = b"".join(b'{"jsonrpc":"2.0","id":%d,"result":{"old":1}}\n' % n for n in range(3))
        new = b'{"jsonrpc":"2.0","id":@ID,"result":{"new":1}}\n'
        assert await call(transport, "as_raw", base64=b64(old + new)) == {"new": 1}
        assert transport.statistics().unmatched == 3
