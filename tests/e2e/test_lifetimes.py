"""The three ways in: contexts left in any order and by any task, crashes, cancellation, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from sark_trio import AllowAll, AuditLog, GatewayClient, Stdio
from sark_trio.errors import (
    AuditError,
    ClientClosed,
    GatewayError,
    OutcomeUnknown,
    ProcessStartError,
    UsageError,
    WrongTask,
)
from tests.support.audit_disk import MemoryDisk
from tests.support.client import check_log, outcomes
from tests.support.http_servers import no_leaked_descriptors
from tests.support.peers import http_server, peer, stdio_server

pytestmark = pytest.mark.anyio

PLAIN = [
    sys.executable,
    "-S",
    "-I",
    str(Path(__file__).parents[1] / "support" / "stdio_servers" / "plain.py"),
]
on_asyncio = pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
on_trio = pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"])


def make(folder: Path, name: str = "audit", **options: Any) -> GatewayClient:
    defaults: dict[str, Any] = {"servers": {"plain": PLAIN}, "policy": AllowAll(), "grace_s": 1.0}
    return GatewayClient(audit=folder / name, **{**defaults, **options})


async def echo(client: GatewayClient, text: str = "hello") -> str:
    result = await client.invoke_tool("plain", "echo", {"text": text})
    return str(result.structured_content["text"])


def alive(client: GatewayClient) -> int:
    return sum(
        server.wire.details.get("pid") is not None
        for server in client.statistics().servers.values()
    )


# -- asyncio: what breaks others (python-sdk #79, #577, #915) --------------------------------------


@on_asyncio
async def test_exit_stacks_may_be_closed_out_of_order(tmp_path: Path) -> None:
    first, second = AsyncExitStack(), AsyncExitStack()
    one = await first.enter_async_context(make(tmp_path, "one"))
    two = await second.enter_async_context(make(tmp_path, "two"))
    assert (await echo(one), await echo(two)) == ("hello", "hello")
    await first.aclose()
    assert await echo(two) == "hello"
    with pytest.raises(ClientClosed):
        await echo(one)
    await second.aclose()
    await asyncio.sleep(0)  # this task was not cancelled by any of it


@on_asyncio
async def test_an_exit_stack_may_be_closed_by_another_task(tmp_path: Path) -> None:
    stack = AsyncExitStack()
    client = await stack.enter_async_context(make(tmp_path))
    await echo(client)
    await asyncio.create_task(stack.aclose())
    assert client.statistics().state == "closed"
    check_log(tmp_path / "audit")


@on_asyncio
async def test_a_context_may_be_entered_and_left_by_two_tasks_that_are_both_gone(
    tmp_path: Path,
) -> None:
    client = make(tmp_path)
    await asyncio.create_task(client.__aenter__())
    assert await echo(client) == "hello"
    assert await asyncio.create_task(echo(client, "from a task")) == "from a task"
    await asyncio.create_task(client.__aexit__(None, None, None))
    check_log(tmp_path / "audit")


@on_asyncio
async def test_a_fixture_that_is_a_generator_may_be_finished_by_another_task(
    tmp_path: Path,
) -> None:
    async def fixture() -> AsyncIterator[GatewayClient]:
        async with make(tmp_path) as client:
            yield client

    generator = fixture()
    client = await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
    assert await echo(client) == "hello"

    async def finish() -> None:
        with suppress(StopAsyncIteration):
            await anext(generator)

    await asyncio.create_task(finish())
    assert client.statistics().state == "closed"


@on_asyncio
async def test_a_group_with_a_dead_server_serves_the_others(tmp_path: Path) -> None:
    servers = {
        "plain": PLAIN,
        "dead": [sys.executable, "-c", "raise SystemExit(1)"],
        "missing": ["no-such-program-anywhere"],
    }
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(make(tmp_path, servers=servers))
        for name in ("dead", "missing"):
            with pytest.raises(ProcessStartError):
                await client.connect(name)
        assert await echo(client) == "hello"
        await client.disconnect("dead")
        assert await echo(client) == "hello"


@on_asyncio
async def test_a_timeout_of_asyncio_around_a_call_is_its_own(tmp_path: Path) -> None:
    async with make(tmp_path) as client:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.invoke_tool("plain", "hold"), 0.3)
        async with asyncio.timeout(30):
            assert await echo(client) == "hello"
    check_log(tmp_path / "audit")
    assert outcomes(tmp_path / "audit") == [("cancelled", "unknown"), ("ok", "answered")]


@on_asyncio
async def test_a_task_of_asyncio_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async with make(tmp_path) as client:
        started = asyncio.Event()
        call = asyncio.create_task(
            client.invoke_tool("plain", "hold", on_progress=lambda _: started.set())
        )
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client.statistics().running_calls == 0
        assert await echo(client) == "hello"
    check_log(tmp_path / "audit")


_SDK = """
import asyncio, sys
from contextlib import AsyncExitStack
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

async def connect(stack):
    parameters = StdioServerParameters(command=sys.argv[1], args=sys.argv[2:])
    streams = await stack.enter_async_context(stdio_client(parameters))
    session = await stack.enter_async_context(ClientSession(*streams[:2]))
    await session.initialize()

async def main():
    stacks = AsyncExitStack(), AsyncExitStack()
    for stack in stacks:
        await connect(stack)
    for stack in stacks:
        await stack.aclose()

asyncio.run(main())
"""


@pytest.mark.peer("mcp2")
def test_the_official_client_breaks_where_ours_does_not() -> None:
    python = str(peer("mcp2").python)
    done = subprocess.run(
        [python, "-c", _SDK, *stdio_server("everything-mcp2")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "cancel scope" in done.stderr


# -- trio -----------------------------------------------------------------------------------------


@on_trio
async def test_a_block_left_by_another_task_says_what_to_do_and_nothing_is_torn(
    tmp_path: Path,
) -> None:
    client = make(tmp_path)
    async with client:
        await echo(client)

        async def leave() -> None:
            with pytest.raises(WrongTask, match=r"nursery\.start\(client\.run\)"):
                await client.__aexit__(None, None, None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
        assert await echo(client) == "hello"
    check_log(tmp_path / "audit")


@on_trio
async def test_blocks_left_in_the_wrong_order_say_so_and_go_on(tmp_path: Path) -> None:
    first, second = make(tmp_path, "one"), make(tmp_path, "two")
    await first.__aenter__()
    await second.__aenter__()
    with pytest.raises(WrongTask, match="still open"):
        await first.__aexit__(None, None, None)
    assert await echo(first) == "hello"
    assert await echo(second) == "hello"
    await second.__aexit__(None, None, None)
    await first.__aexit__(None, None, None)
    await trio.lowlevel.checkpoint()


# -- every backend --------------------------------------------------------------------------------


async def test_a_nursery_of_the_hosts_own_owns_clients_whose_lives_cross(tmp_path: Path) -> None:
    one, two = make(tmp_path, "one"), make(tmp_path, "two")
    async with anyio.create_task_group() as host:
        await host.start(one.run)
        await host.start(two.run)
        assert (await echo(one), await echo(two)) == ("hello", "hello")

        async def close(client: GatewayClient) -> None:
            await client.close()

        async with anyio.create_task_group() as others:
            others.start_soon(close, one)
        assert await echo(two) == "hello"
        with pytest.raises(ClientClosed):
            await echo(one)
        await two.close()
    check_log(tmp_path / "one")
    check_log(tmp_path / "two")


async def test_an_exception_of_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    mine = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError) as caught:
        async with make(tmp_path) as client:
            await echo(client)
            raise mine
    assert caught.value is mine
    assert client.statistics().state == "closed"
    assert alive(client) == 0

    group = ExceptionGroup("mine", [ValueError(1), KeyError(2)])
    with pytest.raises(ExceptionGroup) as several:
        async with make(tmp_path) as client:
            raise group
    assert several.value is group


@pytest.mark.row(57)
async def test_a_host_that_crashes_closes_the_client_and_hears_of_its_own_crash(
    tmp_path: Path,
) -> None:
    mine = ZeroDivisionError("mine")
    client = make(tmp_path)
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as host:
            await host.start(client.run)
            await echo(client)
            raise mine
    assert caught.value.exceptions == (mine,)
    assert client.statistics().state == "closed"
    assert alive(client) == 0
    check_log(tmp_path / "audit")


@pytest.mark.row(57)
async def test_a_call_under_way_when_the_host_crashes_has_its_outcome_written(
    tmp_path: Path,
) -> None:
    client = make(tmp_path)
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as host:
            await host.start(client.run)
            started = anyio.Event()

            async def call() -> None:
                await client.invoke_tool("plain", "hold", on_progress=lambda _: started.set())

            host.start_soon(call)
            await started.wait()
            raise ZeroDivisionError
    (only,) = caught.value.exceptions
    assert isinstance(only, ZeroDivisionError)
    check_log(tmp_path / "audit")
    ((outcome, delivery),) = outcomes(tmp_path / "audit")
    assert outcome in {"cancelled", "unknown"}
    assert delivery == "unknown"


async def test_a_block_that_is_cancelled_ends_with_all_it_had(tmp_path: Path) -> None:
    client = make(tmp_path)
    with anyio.CancelScope() as scope:
        async with client:
            await client.invoke_tool("plain", "hold", on_progress=lambda _: scope.cancel())
    assert scope.cancelled_caught
    assert client.statistics().state == "closed"
    assert alive(client) == 0
    check_log(tmp_path / "audit")
    assert outcomes(tmp_path / "audit") == [("cancelled", "unknown")]


async def test_a_log_in_use_is_one_clear_error_and_nothing_half_open(tmp_path: Path) -> None:
    async with make(tmp_path) as first:
        await echo(first)
        second = make(tmp_path)
        with pytest.raises(AuditError) as caught:
            async with second:
                raise AssertionError
        assert str(tmp_path / "audit") in str(caught.value)
        assert second.statistics().state == "closed"
        with pytest.raises(AuditError):
            async with make(tmp_path):
                raise AssertionError
        third = make(tmp_path)
        with pytest.raises(ExceptionGroup) as grouped:
            async with anyio.create_task_group() as host:
                await host.start(third.run)
        assert [type(each) for each in grouped.value.exceptions] == [AuditError]
        assert await echo(first) == "hello"
    async with make(tmp_path) as after:
        assert await echo(after) == "hello"


async def test_a_client_runs_once(tmp_path: Path) -> None:
    client = make(tmp_path)
    async with client:
        with pytest.raises(UsageError, match="runs once"):
            async with client:
                raise AssertionError
        assert await echo(client) == "hello"
    with pytest.raises(UsageError, match="runs once"):
        async with client:
            raise AssertionError


@pytest.mark.fault(47)
async def test_closing_is_idempotent_and_final(tmp_path: Path) -> None:
    async with make(tmp_path) as client:
        await echo(client)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(client.close)
        await client.close()
        with pytest.raises(ClientClosed):
            await echo(client)
        assert alive(client) == 0
    await client.close()
    check_log(tmp_path / "audit")


async def test_one_failure_is_one_error_and_never_a_group(tmp_path: Path) -> None:
    async with make(tmp_path, servers={"plain": PLAIN, "missing": ["no-such-program"]}) as client:
        with pytest.raises(OutcomeUnknown):
            await client.invoke_tool("plain", "crash")
        with pytest.raises(ProcessStartError):
            await client.invoke_tool("missing", "echo")
        with pytest.raises(GatewayError) as caught:
            await client.list_tools("missing")
        assert not isinstance(caught.value, BaseExceptionGroup)
        assert await echo(client) == "hello"
    check_log(tmp_path / "audit")


async def test_tasks_connect_call_and_disconnect_in_any_order(tmp_path: Path) -> None:
    done: list[str] = []
    async with make(tmp_path) as client:
        await client.connect("plain")

        async def call(number: int) -> None:
            with suppress(ClientClosed, OutcomeUnknown):
                done.append(await echo(client, str(number)))

        async def bounce() -> None:
            for _ in range(3):
                await client.disconnect("plain")
                await client.connect("plain")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bounce)
            for number in range(30):
                tasks.start_soon(call, number)
        assert await echo(client) == "hello"
    check_log(tmp_path / "audit")


@pytest.mark.fault(46)
async def test_the_same_command_under_two_names_is_two_servers(tmp_path: Path) -> None:
    async with make(tmp_path, servers={"plain": PLAIN, "twin": PLAIN}) as client:
        await client.connect("plain")
        await client.connect("twin")
        pids = {server.wire.details["pid"] for server in client.statistics().servers.values()}
        assert len(pids) == 2
    assert alive(client) == 0


@pytest.mark.security(7)
@pytest.mark.fault(43)
async def test_a_server_process_does_not_inherit_our_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "hunter2")
    server = Stdio(stdio_server("everything-mcp2"), env={"GIVEN": "yes"})
    async with make(tmp_path, servers={"plain": server}) as client:
        for name, value in (("SECRET_OF_OURS", ""), ("GIVEN", "yes")):
            result = await client.invoke_tool("plain", "environment", {"name": name})
            assert result.text == value


async def test_http_connections_are_gone_when_the_client_is() -> None:
    with http_server("everything-mcp2") as url, no_leaked_descriptors():
        # The thread of a log on disk closes its end of a socket pair when it gets to it.
        log = AuditLog("log", files=MemoryDisk())
        options: dict[str, Any] = {"servers": {"plain": url}, "policy": AllowAll()}
        async with GatewayClient(audit=log, **options) as client:
            await client.invoke_tool("plain", "add", {"a": 1, "b": 2})
            pool = client.statistics().servers["plain"].wire.details["pool"]
            assert pool["idle"] >= 1


# -- signals --------------------------------------------------------------------------------------

_PROGRAM = """
import os, signal, sys, anyio
from sark_trio import AllowAll, GatewayClient

# Whoever runs the tests in the background has it ignored, which programs inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    client = GatewayClient(
        servers={"plain": sys.argv[4:]}, policy=AllowAll(), audit=sys.argv[2], grace_s=1.0
    )
    async with client, anyio.create_task_group() as tasks:
        if sys.argv[3] == "TERM":
            @tasks.start_soon
            async def stop():
                with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                    async for _ in signals:
                        tasks.cancel_scope.cancel()
                        return
        await anyio.lowlevel.checkpoint()
        await client.invoke_tool(
            "plain", "hold", on_progress=lambda _: print(pid(client), flush=True)
        )

def pid(client):
    return client.statistics().servers["plain"].wire.details["pid"]

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.row(56)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", ["INT", "TERM"])
def test_a_signal_ends_the_program_with_its_servers_and_its_outcomes_written(
    backend: str, kind: str, tmp_path: Path
) -> None:
    log = tmp_path / "audit"
    argv = [sys.executable, "-c", _PROGRAM, backend, str(log), kind, *PLAIN]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        began = time.monotonic()
        program.send_signal(getattr(signal, f"SIG{kind}"))
        _, stderr = program.communicate(timeout=30)
        assert time.monotonic() - began < 6.5
    if kind == "INT":
        assert "KeyboardInterrupt" in stderr
    else:
        assert (program.returncode, stderr) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    check_log(log)
    assert [delivery for _, delivery in outcomes(log)] == ["unknown"]
