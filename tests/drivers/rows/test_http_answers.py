"""Rows 9, 10 and 13 to 17: HTTP answers that come slowly, are too large, or are refusals.

In virtual time: thirty seconds of silence, and five minutes of a storm, are over at once.
"""

from __future__ import annotations

import gzip
import socket
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import BreakerOptions, RetryConfig
from sark_trio.errors import (
    AuthenticationRequired,
    CallTimeout,
    CircuitOpen,
    Forbidden,
    GatewayError,
    HTTPStatusError,
    MessageTooLarge,
    OutcomeUnknown,
    ProtocolError,
    RateLimited,
    ReadTimeout,
)
from sark_trio.net.sockets import tune
from tests.support.http_servers import SSE_HEAD, Peer, Received, response
from tests.support.virtual import virtual

pytestmark = pytest.mark.trio

BACKENDS = pytest.mark.parametrize("era", ["modern", "legacy"])


# -- row 9: a byte a second ------------------------------------------------------------------


async def trickle(peer: Peer, data: bytes) -> None:
    for byte in data:
        await anyio.sleep(1)
        await peer.send(bytes([byte]))


SLOW = {
    "headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100,
    "a body": response(b"{" + b" " * 1000 + b"}"),
    "comments": SSE_HEAD + b"3\r\n:\r\n\r\n" * 300,
}


@pytest.mark.row(9)
@BACKENDS
@pytest.mark.parametrize("what", SLOW)
@pytest.mark.parametrize(("asked_s", "ends_s"), [(None, 30), (75, 75), (float("inf"), 300)])
async def test_bytes_that_trickle_move_no_deadline(
    autojump_clock: MockClock, era: str, what: str, asked_s: float | None, ends_s: float
) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await trickle(peer, SLOW[what])

    async with virtual(handle, era=era) as world:
        await world.client.list_tools("desk")
        began = trio.current_time()
        with pytest.raises((CallTimeout, OutcomeUnknown)) as caught:
            await world.client.invoke_tool("desk", "echo", timeout_s=asked_s)
        # In a session the server is told, for a second at most.
        assert ends_s <= trio.current_time() - began <= ends_s + 1
        assert caught.value.delivery == "unknown"
        assert len(world.calls) == 1


# -- row 10: gone without a word ---------------------------------------------------------------


@pytest.mark.row(10)
@BACKENDS
async def test_silence_is_thirty_seconds_long(autojump_clock: MockClock, era: str) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.wait_closed()

    async with virtual(handle, era=era) as world:
        await world.client.list_tools("desk")
        began = trio.current_time()
        with pytest.raises(OutcomeUnknown) as caught:
            await world.client.invoke_tool("desk", "echo", timeout_s=200)
        assert isinstance(caught.value.__cause__, ReadTimeout)
        assert 30 <= trio.current_time() - began <= 31
        assert len(world.calls) == 1


@pytest.mark.row(10)
async def test_the_kernel_finds_an_idle_peer_that_is_gone_within_thirty_seconds() -> None:
    with socket.socket() as sock:
        tune(sock)

        def option(name: str) -> int:
            return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        asked_s = option("TCP_KEEPINTVL") * option("TCP_KEEPCNT")
        assert option("TCP_KEEPIDLE") + asked_s <= 30
        assert 0 < option("TCP_USER_TIMEOUT") <= 30_000


# -- row 13: bombs -------------------------------------------------------------------------------


@pytest.mark.row(13)
@BACKENDS
async def test_a_bomb_goes_off_at_the_limit_and_not_in_our_memory(
    autojump_clock: MockClock, era: str
) -> None:
    bomb = response(gzip.compress(bytes(64 << 20)), content_encoding="gzip")

    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(bomb)

    async with virtual(handle, era=era) as world:
        await world.client.list_tools("desk")
        tracemalloc.start()
        try:
            with pytest.raises(MessageTooLarge) as caught:
                await world.client.invoke_tool("desk", "echo", replay_safe=True)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 16 << 20
        assert caught.value.limit_bytes == 4 << 20
        assert len(world.calls) == 1


# -- rows 14 and 15: what is no answer, and what is a refusal -----------------------------------

REFUSALS: list[tuple[str, type[GatewayError], str | None]] = [
    ("202 Accepted", ProtocolError, ""),
    ("204 No Content", ProtocolError, ""),
    ("200 OK", ProtocolError, "text/html"),
    ("200 OK", ProtocolError, ""),
    ("302 Found", ProtocolError, ""),
    ("400 Bad Request", HTTPStatusError, "text/html"),
    ("401 Unauthorized", AuthenticationRequired, "text/html"),
    ("403 Forbidden", Forbidden, "text/html"),
    ("404 Not Found", HTTPStatusError, "text/html"),
    ("405 Method Not Allowed", HTTPStatusError, "text/html"),
    ("406 Not Acceptable", HTTPStatusError, "text/html"),
    ("409 Conflict", HTTPStatusError, "text/html"),
    ("413 Content Too Large", HTTPStatusError, "text/html"),
    ("415 Unsupported Media Type", HTTPStatusError, "text/html"),
]


@pytest.mark.row(14, 15)
@pytest.mark.parametrize(("status", "kind", "content_type"), REFUSALS)
async def test_what_is_no_answer_is_typed_and_not_asked_for_again(
    autojump_clock: MockClock, status: str, kind: type[GatewayError], content_type: str
) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(response(b"no" if content_type else b"", status, content_type))

    async with virtual(handle) as world:
        with pytest.raises(kind) as caught:
            await world.client.invoke_tool("desk", "echo", replay_safe=True)
        assert type(caught.value) is kind
        assert caught.value.attempts == 1
        assert len(world.calls) == 1
        votes = world.client.statistics().servers["desk"].breaker
        assert (votes.failures == 0) is issubclass(kind, HTTPStatusError)


# -- row 16: Retry-After ---------------------------------------------------------------------------


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def after(*values: str) -> bytes:
    return b"".join(b"retry-after: %s\r\n" % value.encode() for value in values)


#: What is said, and from when to when the second attempt comes; ``None``: it does not.
ASKED: dict[str, tuple[Any, tuple[float, float] | None]] = {
    "nothing": (lambda: b"", (1, 1)),
    "0": (lambda: after("0"), (1, 1)),
    "5": (lambda: after("5"), (5, 6)),
    "-1": (lambda: after("-1"), (1, 1)),
    "words": (lambda: after("soon"), (1, 1)),
    "words twice": (lambda: after("soon", "later"), (1, 1)),
    "two": (lambda: after("3", "6"), (6, 7)),
    "a date to come": (lambda: after(in_seconds(20)), (15, 23)),
    "a date that was": (lambda: after(in_seconds(-3600)), (1, 1)),
    "a date over the deadline": (lambda: after(in_seconds(3600)), None),
    "10^12": (lambda: after("1" + "0" * 12), None),
    "10^400": (lambda: after("1" + "0" * 400), None),
}


@pytest.mark.row(16)
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize("said", ASKED)
async def test_nobody_comes_back_earlier_than_asked(
    autojump_clock: MockClock, status: str, said: str
) -> None:
    times: list[float] = []
    header, window = ASKED[said]

    async def handle(peer: Peer, received: Received) -> None:
        times.append(trio.current_time())
        if len(times) == 1:
            line = f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n".encode()
            await peer.send(line + header() + b"\r\n")
        else:
            await peer.send(_done(received))

    async with virtual(handle, retry=RetryConfig()) as world:
        await world.client.list_tools("desk")
        if window is None:
            with pytest.raises((RateLimited, HTTPStatusError)):
                await world.client.invoke_tool("desk", "echo", replay_safe=True)
            assert times == [trio.current_time()]
        else:
            await world.client.invoke_tool("desk", "echo", replay_safe=True)
            first, second = times
            assert window[0] - 0.01 <= second - first <= window[1] + 0.01


def _done(received: Received) -> bytes:
    body = b'{"jsonrpc":"2.0","id":%d,"result":{"resultType":"complete","content":[]}}'
    return response(body % received.id)


# -- row 17: a storm -------------------------------------------------------------------------------


@pytest.mark.row(17)
@pytest.mark.parametrize("status", ["500 Oops", "502 Bad Gateway", "504 Gateway Timeout"])
async def test_the_breaker_opens_at_the_fifth_failure_of_a_storm_and_heals(
    autojump_clock: MockClock, status: str
) -> None:
    sick = True

    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(response(b"", status) if sick else _done(received))

    options: dict[str, Any] = {"breaker": BreakerOptions(), "retry": RetryConfig(attempts=1)}
    async with virtual(handle, **options) as world:
        await world.client.list_tools("desk")
        for _ in range(500):
            with pytest.raises((HTTPStatusError, CircuitOpen)):
                await world.client.invoke_tool("desk", "echo")
            await trio.sleep(0.01)
        assert len(world.calls) == 5
        # Until it heals: one probe each thirty seconds, which opens it again.
        for _ in range(10):
            await trio.sleep(30)
            for _ in range(3):
                with pytest.raises((HTTPStatusError, CircuitOpen)):
                    await world.client.invoke_tool("desk", "echo")
        assert len(world.calls) <= 5 + 10
        sick = False
        await trio.sleep(30)
        for _ in range(2):
            await world.client.invoke_tool("desk", "echo")
        assert world.client.statistics().servers["desk"].breaker.state == "closed"


@pytest.mark.row(17)
async def test_without_a_breaker_the_budget_bounds_what_a_storm_costs(
    autojump_clock: MockClock,
) -> None:
    """Twenty calls a second for half a minute: retries are a fifth, one a second, and the start."""

    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(response(b"", "503 Service Unavailable"))

    async with virtual(handle, retry=RetryConfig()) as world:
        await world.client.list_tools("desk")

        async def call() -> None:
            with pytest.raises(HTTPStatusError):
                await world.client.invoke_tool("desk", "echo", replay_safe=True)

        async with trio.open_nursery() as nursery:
            for _ in range(600):
                nursery.start_soon(call)
                await trio.sleep(0.05)
        assert 600 < len(world.calls) <= 600 * 1.2 + 30 + 10 + 4
        await trio.sleep(60)
