"""Callers who read byte by byte: they get their places back from them, and nobody waits."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import pytest
from anyio.abc import SocketStream

from sark_trio.gateway import stalls
from sark_trio.gateway.limits import Limits
from tests.support.client import answer, desk, open_client
from tests.support.gateway import Served, connected, eventually, head, read, serving
from tests.support.http_servers import no_leaked_descriptors

pytestmark = pytest.mark.anyio

#: More than kernels keep for somebody who does not read.
LARGE = "x" * (16 << 20)
CALL = {"server": "desk", "tool": "echo"}


@asynccontextmanager
async def slow(served: Served) -> AsyncIterator[SocketStream]:
    """A connection whose reader has little room, and that has asked for much."""
    address = urlsplit(served.url)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    plain.connect((str(address.hostname), int(address.port or 0)))
    async with await SocketStream.from_socket(plain) as stream:
        body = json.dumps(CALL).encode()
        await stream.send(head(served.url, "POST", "/api/v1/invoke", body, {}))
        assert await stream.receive(1) == b"H"
        yield stream


async def read_bytewise(stream: SocketStream) -> int:
    """Read until there is no more: how many bytes there were."""
    count = 0
    try:
        while True:
            count += len(await stream.receive(1))
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return count


@pytest.mark.security(25)
async def test_who_reads_byte_by_byte_holds_its_place_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stalls, "PATIENCE_S", 0.05)
    monkeypatch.setattr(stalls, "LOOK_S", 0.01)
    async with (
        open_client(desk(answer(LARGE))) as client,
        serving(client, limits=Limits(concurrent=1)) as served,
        slow(served) as stream,
        connected(served.url) as other,
    ):
        assert await read_bytewise(stream) < len(LARGE) // 2
        await eventually(lambda: served.app.traffic.in_flight == 0)
        # The place is free, and other connections of the same host are as they were.
        await other.send(head(served.url, "GET", "/api/v1/tools", b"", {}))
        assert (await read(other)).status == 200


async def test_who_reads_byte_by_byte_does_not_hold_up_the_end() -> None:
    async with open_client(desk(answer(LARGE))) as client:
        async with serving(client) as served:
            await served.ask("GET", "/health")
        with no_leaked_descriptors():
            async with (
                serving(client, grace_s=0.05) as served,
                slow(served) as stream,
                anyio.create_task_group() as tasks,
            ):
                counts: list[int] = []

                async def count() -> None:
                    counts.append(await read_bytewise(stream))

                tasks.start_soon(count)
                await served.stop()
            assert counts[0] < len(LARGE) // 2


async def test_a_large_answer_that_is_read_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting counts, and not how long it takes: time between two pieces gives patience back."""
    monkeypatch.setattr(stalls, "LOOK_S", 0.001)
    async with open_client(desk(answer(LARGE))) as client, serving(client) as served:
        found = await served.ask("POST", "/api/v1/invoke", CALL)
        assert found.json["result"]["content"][0]["text"] == LARGE


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
async def test_one_connection_is_severed_and_no_other(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        if family == socket.AF_INET:
            raise
        pytest.skip("this machine has no IPv6")
    pairs: list[tuple[socket.socket, Any]] = []
    with listener, no_leaked_descriptors():
        try:
            for _ in range(3):
                near = socket.create_connection(listener.getsockname()[:2])
                pairs.append((near, listener.accept()[0]))
            near, far = pairs[1]
            ends = far.getsockname()[:2], far.getpeername()[:2]
            stalls.sever(*ends)
            assert near.recv(1) == b""
            stalls.sever(*ends)  # there is nothing left to do
            for near, far in (pairs[0], pairs[2]):
                far.sendall(b"x")
                assert near.recv(1) == b"x"
        finally:
            for pair in pairs:
                for one in pair:
                    one.close()
