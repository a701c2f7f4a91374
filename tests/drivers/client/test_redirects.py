"""The web server for one sign-in, asked by browsers and by whatever else is on this machine."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

import anyio
import pytest

from sark_trio import AppRedirects, LoopbackRedirects
from sark_trio.errors import ConfigError
from tests.support.http_servers import no_leaked_descriptors

pytestmark = pytest.mark.anyio
AS = "https://as.example/authorize?client_id=c&state=our-state"


async def get(uri: str, request: bytes) -> bytes:
    """What comes back for raw bytes."""
    port = urlsplit(uri).port
    assert port is not None
    answer = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(request)
        try:
            while True:
                answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return answer


async def test_the_one_who_knows_our_state_ends_the_waiting() -> None:
    shown: list[str] = []
    answers: list[bytes] = []

    async def browse(url: str) -> None:
        shown.append(url)
        for target in (
            "/favicon.ico",
            "/callback",
            "/callback?state=guess&code=evil",
            "/callback?state=our-state&code=good",
        ):
            request = f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
            answers.append(await get(waiting.redirect_uri, request))

    with no_leaked_descriptors():
        waiting = await LoopbackRedirects(show=browse).open()
        assert waiting.redirect_uri.startswith("http://127.0.0.1:")
        result = await waiting.authorize(AS)
        await waiting.aclose()
    assert shown == [AS]
    assert result == f"{waiting.redirect_uri}?state=our-state&code=good"
    assert [answer.split(b" ")[1] for answer in answers] == [b"404", b"400", b"400", b"200"]
    assert b"no-referrer" in answers[-1]
    assert b"good" not in answers[-1]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\r\n\r\n",
        b"POST /callback?state=our-state HTTP/1.1\r\n\r\n",
        b"GET http://x/callback?state=our-state HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\ncookie: " + b"x" * 70_000,
    ],
)
async def test_other_visitors_are_answered_and_forgotten(request_bytes: bytes) -> None:
    async def browse(url: str) -> None:
        port = urlsplit(waiting.redirect_uri).port
        assert port is not None
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with suppress(anyio.BrokenResourceError):  # it has heard enough
                await stream.send(request_bytes)
        good = b"GET /callback?state=our-state&code=c HTTP/1.1\r\n\r\n"
        assert b"200 OK" in await get(waiting.redirect_uri, good)

    waiting = await LoopbackRedirects(show=browse).open()
    try:
        assert (await waiting.authorize(AS)).endswith("code=c")
    finally:
        await waiting.aclose()


async def test_a_browser_that_cannot_be_shown_is_one_plain_error() -> None:
    async def broken(url: str) -> None:
        raise OSError("no display")

    waiting = await LoopbackRedirects(show=broken).open()
    with pytest.raises(OSError, match="no display"):
        await waiting.authorize(AS)
    await waiting.aclose()


async def test_giving_up_leaves_no_socket() -> None:
    async def look(url: str) -> None:
        scope.cancel()

    with no_leaked_descriptors():
        waiting = await LoopbackRedirects(show=look).open()
        with anyio.CancelScope() as scope:
            await waiting.authorize(AS)
        assert scope.cancelled_caught
        await waiting.aclose()


async def test_a_port_that_is_taken_is_told() -> None:
    waiting = await LoopbackRedirects().open()
    port = urlsplit(waiting.redirect_uri).port
    assert port is not None
    with pytest.raises(ConfigError, match="cannot listen"):
        await LoopbackRedirects(port=port).open()
    await waiting.aclose()


@pytest.mark.parametrize(
    "uri", ["https://app.example/cb", "http://127.0.0.1/cb", "com.example.app:/cb"]
)
async def test_an_application_has_its_own_ways(uri: str) -> None:
    async def go(url: str) -> str:
        return f"{uri}?from={url}"

    redirects = AppRedirects(uri, go)
    waiting = await redirects.open()
    assert waiting.redirect_uri == uri
    assert await waiting.authorize("x") == f"{uri}?from=x"
    await waiting.aclose()


@pytest.mark.security(10)
@pytest.mark.parametrize("uri", ["http://app.example/cb", "javascript:1", "", "file:/x"])
async def test_redirects_that_would_leak_the_code(uri: str) -> None:
    async def go(url: str) -> str:
        return url

    with pytest.raises(ConfigError, match="redirect_uri"):
        AppRedirects(uri, go)
