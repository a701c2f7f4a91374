"""The leak oracle finds what is left behind, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from sark_trio import AllowAll, AuditLog, GatewayClient, Http
from sark_trio.testing import Leaked, census, held, no_leaks
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, desk, open_client, tool
from tests.support.http_servers import Peer, Received, modern, result, serve


@pytest.mark.anyio
async def test_nothing_left_is_nothing_found() -> None:
    async with no_leaks():
        ours, theirs = socket.socketpair()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
        await anyio.to_thread.run_sync(os.getpid)
        await anyio.run_process([sys.executable, "-c", ""])
        ours.close()
        theirs.close()


@pytest.mark.anyio
async def test_a_descriptor_is_found_though_the_collector_would_close_it() -> None:
    kept: list[object] = []
    with pytest.raises(Leaked, match=r"descriptor: .*socket"):
        async with no_leaks():
            cycle = [socket.socket()]
            cycle.append(cycle)  # type: ignore[arg-type]
            kept.append(cycle)
            del cycle
    sock = kept.pop()[0]  # type: ignore[index]
    sock.close()


@pytest.mark.anyio
async def test_a_task_is_found() -> None:
    async with anyio.create_task_group() as tasks:
        with pytest.raises(Leaked, match=r"task: .*sleep"):
            async with no_leaks():
                tasks.start_soon(anyio.sleep_forever)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_thread_is_found() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="forgotten")
    with pytest.raises(Leaked, match="thread: forgotten"):
        async with no_leaks():
            thread.start()
    go.set()
    thread.join()


@pytest.mark.anyio
async def test_a_process_is_found_even_when_only_its_zombie_is_left() -> None:
    with pytest.raises(Leaked, match=r"child process: .*\(pid \d+(, ended and not reaped)?\)"):
        async with no_leaks():
            process = _zombie()
    assert process.poll() == 0


@pytest.mark.anyio
async def test_an_error_of_the_block_is_not_hidden() -> None:
    with pytest.raises(KeyError), socket.socket():
        async with no_leaks():
            raise KeyError("x")


@pytest.mark.anyio
async def test_what_a_client_lends_is_seen_and_comes_back() -> None:
    disk, began, go = MemoryDisk(), anyio.Event(), anyio.Event()

    async def slow(incoming: Incoming) -> Mapping[str, Any]:
        began.set()
        await go.wait()
        return {"content": []}

    async with open_client(desk(slow), disk) as client:
        assert held(client) == {}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.invoke_tool, "desk", "echo")
            await began.wait()
            assert held(client) == {
                "running calls": 1,
                "open audit intents": 1,
                "desk: permits of the breaker": 1,
                "desk: pending requests": 1,
            }
            go.set()
        assert held(client) == {}


@pytest.mark.anyio
async def test_a_connection_that_is_lent_is_seen_and_comes_back() -> None:
    began, go = anyio.Event(), anyio.Event()

    async def slow(peer: Peer, received: Received) -> None:
        if received.rpc == "tools/call":
            began.set()
            await go.wait()
        value = {"tools": [tool()]} if received.rpc == "tools/list" else None
        await peer.send(result(received, value))

    async with (
        serve(modern(slow)) as server,
        GatewayClient(
            servers={"desk": Http(server.url)},
            policy=AllowAll(),
            audit=AuditLog("log", files=MemoryDisk()),
            principal=ALICE,
        ) as client,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.invoke_tool, "desk", "echo")
            await began.wait()
            assert held(client)["desk: connections lent or waited for"] == 1
            go.set()
        assert held(client) == {}


@pytest.mark.anyio
async def test_a_census_names_what_it_counts() -> None:
    found = census()
    assert threading.current_thread().ident in found.threads
    assert anyio.get_current_task().id in found.tasks
    assert found.since(found) == []


def _zombie() -> subprocess.Popen[bytes]:
    """A process that has ended and that nobody has reaped."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process
