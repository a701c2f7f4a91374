"""Where metadata is looked for, in which order, and what ends the looking."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio.auth.challenge import Challenge
from sark_trio.client.authorizing.discovery import Found, discover
from sark_trio.client.authorizing.network import Network
from sark_trio.errors import AuthenticationRequired
from tests.support.http_servers import Peer, RawServer, response, serve

pytestmark = pytest.mark.anyio
RESOURCE = "/.well-known/oauth-protected-resource"
SERVER = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
Page = Callable[[str], Any]


def guarded(path: str = "/mcp", *tenants: str) -> Page:
    issuers = tenants or ("",)
    return lambda origin: {
        "resource": f"{origin}{path}",
        "authorization_servers": [f"{origin}{tenant}" for tenant in issuers],
    }


def server(tenant: str = "") -> Page:
    return lambda origin: {"issuer": f"{origin}{tenant}", "token_endpoint": f"{origin}/token"}


@asynccontextmanager
async def site(pages: dict[str, Page | bytes]) -> AsyncIterator[tuple[RawServer, Network]]:
    """A server with these pages: documents, or whole responses."""

    async def script(peer: Peer) -> None:
        while True:
            page = pages.get((await peer.receive()).target)
            if page is None:
                await peer.send(response(b"no", "404 Not Found", "text/html"))
            elif isinstance(page, bytes):
                await peer.send(page)
            else:
                origin = f"http://127.0.0.1:{peer.server.port}"
                await peer.send(response(json.dumps(page(origin)).encode()))

    async with serve(script) as raw, anyio.create_task_group() as group:
        network = Network(raw.url, server_tls=None, tls=None, named=(), private=False)
        await group.start(network.run)
        try:
            yield raw, network
        finally:
            group.cancel_scope.cancel()


async def look(raw: RawServer, network: Network, hint: str | None = None, **more: Any) -> Found:
    said = {} if hint is None else {"resource_metadata": f"http://127.0.0.1:{raw.port}{hint}"}
    options = {"issuer": None, **more}
    return await discover(network, raw.url, Challenge("bearer", said), **options)


@pytest.mark.parametrize(
    ("hint", "pages", "asked"),
    [
        (
            None,
            {f"{RESOURCE}/mcp": guarded(), SERVER: server()},
            [f"{RESOURCE}/mcp", SERVER],
        ),
        (
            None,
            {RESOURCE: guarded(""), OPENID: server()},
            [f"{RESOURCE}/mcp", RESOURCE, SERVER, OPENID],
        ),
        (
            "/custom",
            {"/custom": guarded("/mcp", "/t"), f"/t{OPENID}": server("/t")},
            ["/custom", f"{SERVER}/t", f"{OPENID}/t", f"/t{OPENID}"],
        ),
        (
            None,
            {f"{RESOURCE}/mcp": guarded("/mcp", "/t"), f"{OPENID}/t": server("/t")},
            [f"{RESOURCE}/mcp", f"{SERVER}/t", f"{OPENID}/t"],
        ),
        # Pages for people, where there should be none, are passed over.
        (
            None,
            {
                f"{RESOURCE}/mcp": response(b"<html>", content_type="text/html"),
                RESOURCE: guarded(""),
                SERVER: response(b"<html>", content_type="text/html"),
                OPENID: server(),
            },
            [f"{RESOURCE}/mcp", RESOURCE, SERVER, OPENID],
        ),
        # 2025-03-26: its own authorization server, with metadata or without.
        (None, {SERVER: server()}, [f"{RESOURCE}/mcp", RESOURCE, SERVER]),
        (None, {}, [f"{RESOURCE}/mcp", RESOURCE, SERVER, OPENID]),
    ],
)
async def test_the_order_of_looking(
    hint: str | None, pages: dict[str, Any], asked: list[str]
) -> None:
    async with site(pages) as (raw, network):
        found = await look(raw, network, hint)
        assert [each.target for each in raw.requests] == asked
        assert found.server.token_endpoint == f"http://127.0.0.1:{raw.port}/token"
        assert found.resource.startswith(f"http://127.0.0.1:{raw.port}")
        assert raw.requests[0].headers["mcp-protocol-version"] == "2026-07-28"


@pytest.mark.parametrize(
    ("hint", "pages", "why"),
    [
        ("/custom", {f"{RESOURCE}/mcp": guarded(), SERVER: server()}, "HTTP 404"),
        (None, {f"{RESOURCE}/mcp": response(b"", "503 No")}, "HTTP 503"),
        (None, {f"{RESOURCE}/mcp": guarded()}, "publishes no metadata"),
        (None, {f"{RESOURCE}/mcp": guarded("/other")}, "not about this server"),
        (None, {f"{RESOURCE}/mcp": response(b"x" * 2_000_000)}, "does not answer"),
        (None, {f"{RESOURCE}/mcp": response(b"[]")}, "JSON object"),
        (None, {RESOURCE: guarded(""), SERVER: server("/")}, "another issuer"),
    ],
)
async def test_what_ends_the_looking(hint: str | None, pages: dict[str, Any], why: str) -> None:
    async with site(pages) as (raw, network):
        with pytest.raises(AuthenticationRequired, match=why):
            await look(raw, network, hint)


async def test_one_of_several_servers_is_kept_or_configured() -> None:
    pages = {
        f"{RESOURCE}/mcp": guarded("/mcp", "/a", "/b"),
        **{f"{SERVER}{tenant}": server(tenant) for tenant in ("/a", "/b")},
    }
    async with site(pages) as (raw, network):
        origin = f"http://127.0.0.1:{raw.port}"
        assert (await look(raw, network)).server.issuer == f"{origin}/a"
        assert (await look(raw, network, present=f"{origin}/b")).server.issuer == f"{origin}/b"
        assert (await look(raw, network, present=f"{origin}/c")).server.issuer == f"{origin}/a"
        assert (await look(raw, network, issuer=f"{origin}/b")).server.issuer == f"{origin}/b"
        with pytest.raises(AuthenticationRequired, match="other authorization servers"):
            await look(raw, network, issuer=f"{origin}/c")


async def test_a_configured_issuer_serves_a_server_that_names_none() -> None:
    async with site({f"{SERVER}/t": server("/t")}) as (raw, network):
        origin = f"http://127.0.0.1:{raw.port}"
        assert (await look(raw, network, issuer=f"{origin}/t")).server.issuer == f"{origin}/t"
        with pytest.raises(AuthenticationRequired, match="neither"):
            await look(raw, network, issuer=f"{origin}/u")


@pytest.mark.row(63)
async def test_private_addresses_only_where_that_is_said() -> None:
    options: dict[str, Any] = {"server_tls": None, "tls": None, "named": ()}
    strict = Network("https://mcp.example/mcp", private=False, **options)
    loose = Network("https://mcp.example/mcp", private=True, **options)
    with pytest.raises(AuthenticationRequired, match="not a public address"):
        await strict.ask("GET", "https://10.1.2.3/x")
    assert loose._literal("https://10.1.2.3/x") is None
    assert strict._literal("https://name.example/") is None
    assert strict._literal("https://[::ffff:127.0.0.1]/") is not None
    assert Network("http://[::1]/mcp", private=False, **options)._literal("https://[::1]/") is None
