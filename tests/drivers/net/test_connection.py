"""HTTP/1.1 on one connection: what a peer may send, and what makes a connection unfit."""

from __future__ import annotations

import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpcore
import pytest
from anyio.lowlevel import checkpoint

from sark_trio.errors import (
    GatewayError,
    InvalidArguments,
    MessageTooLarge,
    ProtocolError,
    ReadTimeout,
    ServerDisconnected,
    WriteTimeout,
)
from sark_trio.net.connection import Connection, Request
from sark_trio.net.dial import dial
from sark_trio.net.options import Timeouts
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions
from sark_trio.net.url import Origin
from tests.support.http_servers import Peer, RawServer, Script, chunk, response, serve

pytestmark = pytest.mark.anyio

HOST = ((b"Host", b"x"),)
POST = Request(b"POST", b"/mcp", HOST, b"{}")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def sending(*answers: bytes) -> Script:
    """One answer to each request, then wait."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.receive()
            await peer.send(answer)
        await peer.wait_closed()

    return script


def sending_and_closing(answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(answer)

    return script


@asynccontextmanager
async def connected(
    script: Script, limits: Timeouts | None = None
) -> AsyncIterator[tuple[Connection, RawServer]]:
    async with serve(script) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        connection = await dial(origin, AnyIOBackend(), TLSOptions(), limits or Timeouts())
        try:
            yield connection, server
        finally:
            await connection.stream.aclose()


async def exchange(connection: Connection, request: Request = POST) -> tuple[int, bytes]:
    head = await connection.send(request)
    return head.status, await connection.read_body(1_000_000)


@pytest.mark.parametrize(
    "answer",
    [
        response(b"abc"),
        CHUNKED + chunk(b"a") + chunk(b"bc") + b"0\r\n\r\n",
        CHUNKED + b"1;x=y\r\na\r\n2\r\nbc\r\n0\r\ntrailer: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + response(b"abc"),
        b"HTTP/1.1 200 \r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200\r\nContent-Length:3\r\n\r\nabc",
    ],
)
async def test_good_responses_leave_the_connection_fit_for_more(answer: bytes) -> None:
    async with connected(sending(answer, answer, response(b"end"))) as (connection, server):
        for _ in range(2):
            assert await exchange(connection) == (200, b"abc")
            assert connection.finish()
        assert await exchange(connection) == (200, b"end")
        assert connection.exchanges == 3
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc",
    ],
)
async def test_a_response_that_ends_the_connection_is_read_and_the_connection_is_not_kept(
    answer: bytes,
) -> None:
    async with connected(sending_and_closing(answer)) as (connection, _):
        assert await exchange(connection) == (200, b"abc")
        assert not connection.finish()
        assert not connection.reusable


@pytest.mark.security(21)
@pytest.mark.row(11, 13)
@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 3\n\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\n\r\nabc",
        b"HTTP/1.1 200 OK\r\na: b\rc: d\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na : b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na\x00: b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabcXX0\r\n\r\n",
        CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + (b"1;" + b"e" * 4000 + b"\r\nx\r\n") * 60,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
        response(b"abc", content_encoding="br"),
        response(b"abc", content_encoding="gzip"),
        response(gzip.compress(b"abc")[:-4], content_encoding="gzip"),
        response(gzip.compress(b"abc") + b"more", content_encoding="gzip"),
    ],
)
async def test_what_two_parsers_could_read_in_two_ways_is_refused(answer: bytes) -> None:
    async with connected(sending(answer)) as (connection, _):
        with anyio.fail_after(5), pytest.raises(ProtocolError):
            await exchange(connection)
        assert not connection.reusable
        assert not connection.finish()


@pytest.mark.row(11)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_head_of_100_kib_is_refused_in_one_read_or_many(pieces: int) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: %b\r\n" % (n, b"y" * 2000) for n in range(50))
    whole = head + b"content-length: 0\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.receive()
        size = len(whole) // pieces + 1
        for start in range(0, len(whole), size):
            await peer.send(whole[start : start + size])
        await peer.wait_closed()

    async with connected(script) as (connection, _):
        with pytest.raises(MessageTooLarge) as caught:
            await exchange(connection)
        assert caught.value.limit_bytes == 64 * 1024


@pytest.mark.row(13)
async def test_gzip_is_undone_within_the_limit() -> None:
    plain = b"x" * 100_000
    good = response(gzip.compress(plain), content_encoding="gzip")
    async with connected(sending(good, good)) as (connection, _):
        assert await exchange(connection) == (200, plain)
        assert connection.finish()
        await connection.send(POST)
        with pytest.raises(MessageTooLarge) as caught:
            await connection.read_body(99_999)
        assert caught.value.limit_bytes == 99_999


@pytest.mark.row(13)
async def test_a_gzip_bomb_goes_off_at_the_limit() -> None:
    bomb = response(gzip.compress(bytes(64 * 1024 * 1024)), content_encoding="gzip")
    async with connected(sending(bomb)) as (connection, _):
        await connection.send(POST)
        with pytest.raises(MessageTooLarge):
            await connection.read_body(4 * 1024 * 1024)


@pytest.mark.row(5, 8)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        CHUNKED + b"a\r\nabc",
        CHUNKED + chunk(b"abc"),
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_an_answer_that_is_cut_leaves_the_outcome_unknown(answer: bytes, how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        if answer:
            await peer.send(answer)
        if how == "rst":
            await peer.reset()

    async with connected(script) as (connection, _):
        with pytest.raises(ServerDisconnected) as caught:
            await exchange(connection)
        assert caught.value.delivery == "unknown"
        assert not connection.reusable


@pytest.mark.row(5)
async def test_a_reset_before_the_request_is_not_sent() -> None:
    async def script(peer: Peer) -> None:
        await peer.reset()

    async with connected(script) as (connection, server):
        await server.closed.wait()
        with anyio.fail_after(5):
            while not connection.is_stale():
                await checkpoint()
        # The first write after a RST fails before the kernel takes a byte.
        with pytest.raises(ServerDisconnected) as caught:
            await exchange(connection)
        assert caught.value.delivery == "not_sent"


@pytest.mark.row(6)
async def test_an_early_answer_ends_the_writing_and_the_connection() -> None:
    """Row 6."""
    refusal = response(b"too big", "413 Content Too Large")

    async def script(peer: Peer) -> None:
        await peer.stream.receive()
        await peer.send(refusal)
        await anyio.sleep_forever()

    async with connected(script) as (connection, _):
        big = Request(b"POST", b"/", HOST, b"x" * 64 * 1024 * 1024)
        with anyio.fail_after(5):
            assert await exchange(connection, big) == (413, b"too big")
        assert not connection.reusable


@pytest.mark.row(6)
async def test_an_answer_before_the_peer_stops_listening_is_still_read() -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.receive()
        await peer.send(response(b"enough", "413 Content Too Large"))

    async with connected(script) as (connection, _):
        big = Request(b"POST", b"/", HOST, b"x" * 8 * 1024 * 1024)
        with anyio.fail_after(5):
            try:
                assert await exchange(connection, big) == (413, b"enough")
            except ServerDisconnected as exc:  # the reset overtook the answer
                assert exc.delivery == "unknown"
        assert not connection.reusable


async def test_a_big_request_arrives_whole_past_interim_responses() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"")
        received = await peer.receive()
        await peer.send(response(b"%d" % len(received.body)))
        await peer.wait_closed()

    async with connected(script) as (connection, _):
        big = Request(b"POST", b"/", HOST, b"x" * 16 * 1024 * 1024)
        assert await exchange(connection, big) == (200, b"%d" % (16 * 1024 * 1024))
        assert connection.finish()


async def test_a_peer_that_takes_no_bytes_is_a_write_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the kernel accepts, nobody reads
        origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
        connection = await dial(origin, AnyIOBackend(), TLSOptions(), Timeouts(write_s=0.05))
        big = Request(b"POST", b"/", HOST, b"x" * 64 * 1024 * 1024)
        with pytest.raises(WriteTimeout) as caught:
            await connection.send(big)
        assert caught.value.delivery == "unknown"
        assert not connection.reusable


@pytest.mark.row(9)
async def test_slow_headers_are_bounded_by_the_exchange() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        for byte in b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000:
            await peer.send(bytes([byte]))
        await peer.wait_closed()

    async with connected(script, Timeouts(read_s=0.1, exchange_s=0.15)) as (connection, _):
        with anyio.fail_after(5), pytest.raises(ReadTimeout):
            await connection.send(POST)


@pytest.mark.security(23)
@pytest.mark.row(12)
@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\n", b"\r\n", b"x"])
async def test_bytes_after_a_response_end_the_connection(extra: bytes) -> None:
    """P8: they would be taken for the answer to the next request."""
    async with connected(sending(response(b"abc") + extra)) as (connection, _):
        assert await exchange(connection) == (200, b"abc")
        assert not connection.finish()
        assert not connection.reusable


@pytest.mark.row(12)
async def test_unsolicited_bytes_make_an_idle_connection_stale() -> None:
    spoken = anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(response(b"abc"))
        await spoken.wait()
        await peer.send(response(b"stolen"))
        await peer.wait_closed()

    async with connected(script) as (connection, _):
        assert await exchange(connection) == (200, b"abc")
        assert connection.finish()
        assert not connection.is_stale()
        spoken.set()
        with anyio.fail_after(5):
            while not connection.is_stale():
                await checkpoint()


async def test_a_short_rest_is_drained_and_a_long_or_slow_one_is_not() -> None:
    short = response(b"x" * 10_000)
    async with connected(sending(short, response(b"next"))) as (connection, _):
        await connection.send(POST)
        assert await connection.drain()
        assert await exchange(connection) == (200, b"next")
    async with connected(sending(response(b"x" * 500_000))) as (connection, _):
        await connection.send(POST)
        assert not await connection.drain()
    async with connected(sending(CHUNKED + chunk(b"abc"))) as (connection, _):
        await connection.send(POST)
        begun = anyio.current_time()
        assert not await connection.drain()
        assert 0.04 < anyio.current_time() - begun < 1.0
    async with connected(sending_and_closing(CHUNKED + chunk(b"abc"))) as (connection, _):
        await connection.send(POST)
        assert not await connection.drain()
    async with connected(sending(CHUNKED + chunk(b"abc") + b"zz\r\n")) as (connection, _):
        await connection.send(POST)
        assert not await connection.drain()


@pytest.mark.security(21)
@pytest.mark.parametrize(
    "request_",
    [
        Request(b"POST", b"/ HTTP/1.1\r\nX: y", HOST),
        Request(b"POST", b"/a b", HOST),
        Request(b"POST\r\n", b"/", HOST),
        Request(b"POST", b"/", ((b"Host", b"x\r\nX: y"),)),
        Request(b"POST", b"/", ((b"Host", b"x\nX: y"),)),
        Request(b"POST", b"/", ((b"Host", b"x\x00"),)),
        Request(b"POST", b"/", ((b"Ho st", b"x"),)),
        Request(b"POST", b"/", ((b"", b"x"),)),
        Request(b"POST", b"/", ((b"X\r\nHost", b"x"),)),
        Request(b"POST", b"mcp", HOST),
    ],
)
async def test_what_could_be_read_as_another_request_is_not_sent(request_: Request) -> None:
    async with connected(sending(response())) as (connection, server):
        with pytest.raises(InvalidArguments) as caught:
            await connection.send(request_)
        assert caught.value.delivery == "not_sent"
        await connection.stream.aclose()
        assert server.requests == []


async def test_every_split_of_a_response_reads_alike() -> None:
    whole = CHUNKED + chunk(b"hello") + chunk(b" you") + b"0\r\n\r\n"
    for size in (1, 2, 3, 5):
        pieces = [whole[n : n + size] for n in range(0, len(whole), size)]
        stream = Pieces(pieces)
        connection = Connection(stream, Timeouts())
        assert await exchange(connection) == (200, b"hello you")
        assert connection.finish()
        assert connection.exchanges == 1


async def test_a_foreign_stream_that_fails_is_believed_to_have_sent() -> None:
    connection = Connection(Pieces([]), Timeouts())
    with pytest.raises(GatewayError) as caught:
        await connection.send(POST)
    assert caught.value.delivery == "unknown"
    assert repr(connection) == "<Connection busy exchanges=1 reusable=False>"


class Pieces(httpcore.AsyncNetworkStream):
    """A stream of given reads, as httpcore's interface has it."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        return None
