"""Rows 1 to 3, 5, 8 and 19: names, connections, TLS, and servers that end in the middle."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import httpcore
import pytest
import trio
import trustme
from trio.testing import MockClock

from sark_trio import RetryConfig
from sark_trio.errors import (
    ConnectError,
    ConnectTimeout,
    OutcomeUnknown,
    TLSError,
)
from sark_trio.net import addresses
from sark_trio.net.tls import TLSOptions
from sark_trio.testing import no_leaks
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, outcomes
from tests.support.faulty import (
    EVERYWHERE,
    HUNG_S,
    NETWORKED,
    cell,
    client_of,
    described,
    do,
    faulty,
    free_port,
    is_idle,
)

#: As a client has it of itself; jitter is a half, so that waits are of 1 and 2 s.
DEFAULT = RetryConfig()


class Nowhere(httpcore.AsyncNetworkBackend):
    """A network that takes a connection and does nothing with it."""

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> httpcore.AsyncNetworkStream:
        assert timeout is not None
        with anyio.move_on_after(timeout):
            await anyio.sleep_forever()
        raise httpcore.ConnectTimeout("nobody answers")


async def refused(server: Any, kind: type[ConnectError], disk: MemoryDisk, **options: Any) -> Any:
    """The error of a call to *server*, which nothing was sent to."""
    async with no_leaks(), client_of(server, disk, heals=False, **options) as client:
        with pytest.raises(kind) as caught:
            await client.invoke_tool("desk", "echo")
        await is_idle(client)
        assert client.statistics().servers["desk"].breaker.failures == caught.value.attempts
    assert caught.value.delivery == "not_sent"
    assert audited(disk, "intent") == []  # not even the list of tools could be had
    return caught.value


@pytest.mark.anyio
@pytest.mark.row(1)
@pytest.mark.parametrize("kind", NETWORKED)
async def test_a_name_that_does_not_resolve_is_tried_again_and_nothing_is_sent(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(addresses.anyio, "getaddrinfo", nobody)
    server = described(kind, "http://nobody.invalid/mcp")
    with anyio.fail_after(HUNG_S):
        error = await refused(server, ConnectError, MemoryDisk())
    assert error.attempts == 3


@pytest.mark.trio
@pytest.mark.row(1)
@pytest.mark.parametrize("kind", NETWORKED)
async def test_a_name_that_takes_for_ever_costs_five_seconds(
    autojump_clock: MockClock, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        await anyio.sleep_forever()

    monkeypatch.setattr(addresses.anyio, "getaddrinfo", never)
    began = trio.current_time()
    server = described(kind, "http://slow.example/mcp")
    error = await refused(server, ConnectTimeout, MemoryDisk(), retry=DEFAULT)
    assert error.attempts == 3
    assert trio.current_time() - began == pytest.approx(5 + 1 + 5 + 2 + 5, abs=0.01)


@pytest.mark.anyio
@pytest.mark.row(2)
@pytest.mark.parametrize("kind", NETWORKED)
async def test_a_server_that_is_not_there_yet_is_called_as_soon_as_it_is(kind: str) -> None:
    port, disk = free_port(), MemoryDisk()
    server = described(kind, f"http://127.0.0.1:{port}/mcp")
    with anyio.fail_after(HUNG_S):
        async with no_leaks(), client_of(server, disk, heals=False) as client:
            with pytest.raises(ConnectError) as caught:
                await client.invoke_tool("desk", "echo")
            assert not isinstance(caught.value, ConnectTimeout)
            assert (caught.value.delivery, caught.value.attempts) == ("not_sent", 3)
            async with faulty(kind, port=port) as known:
                assert (await client.invoke_tool("desk", "echo", do())).text == "7"
                await is_idle(client)
                assert known.effects == 1
    assert outcomes(disk) == [("ok", "answered")]


@pytest.mark.trio
@pytest.mark.row(2)
@pytest.mark.parametrize("kind", ["json", "legacy", "sse", "websocket"])
async def test_a_black_hole_costs_five_seconds_an_attempt(
    autojump_clock: MockClock, kind: str
) -> None:
    began = trio.current_time()
    server = described(kind, "http://hole.example/mcp", network=Nowhere())
    error = await refused(server, ConnectTimeout, MemoryDisk(), retry=DEFAULT)
    assert error.attempts == 3
    assert trio.current_time() - began == pytest.approx(5 + 1 + 5 + 2 + 5, abs=0.01)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.anyio
@pytest.mark.row(3)
@pytest.mark.parametrize("case", ["authority", "host", "expired", "good"])
@pytest.mark.parametrize("kind", NETWORKED)
async def test_a_certificate_that_is_not_good_is_looked_at_once(
    kind: str, case: str, authority: trustme.CA
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    name = "elsewhere.example" if case == "host" else "127.0.0.1"
    ended = datetime.now(UTC) - timedelta(days=1) if case == "expired" else None
    authority.issue_cert(name, not_after=ended).configure_cert(context)
    trusted = trustme.CA() if case == "authority" else authority
    tls = TLSOptions(ca_data=trusted.cert_pem.bytes().decode())
    tls.context()  # here, or a worker thread would do it, and outlive the test
    good = case == "good"
    async with cell(kind, server={"tls": tls}, shows=context, heals=good) as (server, client):
        if not good:
            with pytest.raises(TLSError) as caught:
                await client.invoke_tool("desk", "echo")
            assert (caught.value.delivery, caught.value.attempts) == ("not_sent", 1)
            assert server.listening.requests == []
        assert server.effects == 0


@pytest.mark.anyio
@pytest.mark.row(5, 8, 19)
@pytest.mark.parametrize("end", ["die", "cut"])
@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_an_unsafe_call_whose_server_ends_is_made_once(kind: str, end: str) -> None:
    disk = MemoryDisk()
    async with cell(kind, disk=disk) as (server, client):
        await client.list_tools("desk")
        with pytest.raises(OutcomeUnknown) as caught:
            await client.invoke_tool("desk", "echo", do(end=end))
        assert (caught.value.delivery, caught.value.attempts) == ("unknown", 1)
        assert server.effects == 1
    assert outcomes(disk) == [("unknown", "unknown"), ("ok", "answered")]


@pytest.mark.anyio
@pytest.mark.row(5, 8, 19)
@pytest.mark.parametrize("end", ["die first", "cut first"])
@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_a_safe_call_whose_server_ends_is_made_again(kind: str, end: str) -> None:
    disk = MemoryDisk()
    async with cell(kind, disk=disk) as (server, client):
        await client.list_tools("desk")
        found = await client.invoke_tool("desk", "echo", do(end=end), replay_safe=True)
        assert found.text == "7"
        assert server.effects == 2
    assert len(audited(disk, "attempt")) == 1  # after the first, which the intent stands for


@pytest.mark.anyio
@pytest.mark.row(5, 8, 19)
@pytest.mark.parametrize("kind", [kind for kind in EVERYWHERE if kind != "memory"])
async def test_a_server_that_ends_under_one_call_takes_no_other_server_along(kind: str) -> None:
    """Calls on the same wire end with it, each with its own error; another server's go on."""
    errors: list[OutcomeUnknown] = []
    async with cell(kind) as (server, client), faulty("json") as other:
        await client.add_server("other", other.server)
        await client.list_tools()

        async def held() -> None:
            with pytest.raises(OutcomeUnknown) as caught:
                await client.invoke_tool("desk", "echo", do(end="hang"), timeout_s=300)
            errors.append(caught.value)

        shared = kind in {"sse", "websocket", "stdio"}
        async with anyio.create_task_group() as tasks:
            for _ in range(5 if shared else 0):
                tasks.start_soon(held)
            while server.effects < (5 if shared else 0):
                await anyio.lowlevel.checkpoint()
            with pytest.raises(OutcomeUnknown):
                await client.invoke_tool("desk", "echo", do(end="die"))
            assert (await client.invoke_tool("other", "echo", do())).text == "7"
        assert len({id(error) for error in errors}) == len(errors)
        await client.remove_server("other")
