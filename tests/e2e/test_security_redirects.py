"""No credential follows a redirect anywhere (security, line 6): tokens, keys, codes, arguments.

Each kind of credential has a real server that sends its bearer elsewhere, and another one that
waits there. Nobody ever comes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import (
    AllowAll,
    ClientCredentials,
    GatewayClient,
    Http,
    JwksUrl,
    Opa,
    Registry,
    RetryConfig,
    TokenVerifier,
)
from sark_trio.errors import Denied, GatewayError
from tests.support.authority import Authority
from tests.support.http_servers import DISCOVERY, Peer, RawServer, Received, response, result, serve
from tests.support.tokens import AUDIENCE, ISSUER, Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.security(6)]

STATUSES = ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]


@asynccontextmanager
async def sent_away(
    status: str, but: Callable[[Received], Awaitable[bytes | None]] | None = None
) -> AsyncIterator[tuple[RawServer, RawServer]]:
    """A server that answers *but*, and sends everybody else away; and where they are sent."""

    async def thief(peer: Peer) -> None:
        await peer.send(result(await peer.receive(), {"stolen": True}))

    async with serve(thief) as other:

        async def script(peer: Peer) -> None:
            while True:
                received = await peer.receive()
                away = response(b"", status, location=other.url, content_type="")
                kept = None if but is None else await but(received)
                await peer.send(kept or away)

        with anyio.fail_after(60):
            async with serve(script) as server:
                yield server, other


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[GatewayClient]:
    own: dict[str, Any] = {
        "policy": AllowAll(),
        "audit": folder / "audit",
        "retry": RetryConfig(attempts=1),
    }
    async with GatewayClient(**{**own, **options}) as client:
        yield client


async def before_the_call(received: Received) -> bytes | None:
    """MCP up to the call itself."""
    if received.rpc == "server/discover":
        return result(received, DISCOVERY)
    if received.rpc == "tools/list":
        return result(received, {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})
    return None


@pytest.mark.row(14, 63)
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("at", ["the handshake", "the call"])
async def test_headers_of_a_server_stay_at_its_origin(status: str, at: str, tmp_path: Path) -> None:
    but = before_the_call if at == "the call" else None
    async with sent_away(status, but) as (server, other):
        web = Http(server.url, headers={"Authorization": "Bearer secret"})
        async with opened(tmp_path, servers={"web": web}) as client:
            with pytest.raises(GatewayError):
                await client.invoke_tool("web", "echo", {"text": "mine"}, replay_safe=True)
        assert server.requests[-1].headers["authorization"] == "Bearer secret"
        assert other.connections == 0


@pytest.mark.parametrize("status", STATUSES)
async def test_the_token_of_a_server_stays_at_its_origin(status: str, tmp_path: Path) -> None:
    """An access token that was just issued is not shown where its server points."""
    site = Authority()

    async def but(received: Received) -> bytes | None:
        shown = received.target == "/mcp" and "authorization" in received.headers
        return None if shown else await site.answer_to(received)

    async with sent_away(status, but) as (site.server, other):
        web = Http(site.url, auth=ClientCredentials(client_id="robot", client_secret="s3cret"))
        async with opened(tmp_path, servers={"web": web}) as client:
            with pytest.raises(GatewayError):
                await client.invoke_tool("web", "echo")
        assert site.presented()[-1] == "Bearer access-1"
        assert other.connections == 0


@pytest.mark.security(10)
@pytest.mark.parametrize("status", STATUSES)
async def test_no_secret_follows_a_redirect_of_the_token_endpoint(
    status: str, tmp_path: Path
) -> None:
    site = Authority()
    asked: list[Received] = []

    async def but(received: Received) -> bytes | None:
        if received.target != "/token":
            return await site.answer_to(received)
        asked.append(received)
        return None

    async with sent_away(status, but) as (site.server, other):
        web = Http(site.url, auth=ClientCredentials(client_id="robot", client_secret="s3cret"))
        async with opened(tmp_path, servers={"web": web}) as client:
            with pytest.raises(GatewayError):
                await client.invoke_tool("web", "echo")
        assert len(asked) == 1
        assert other.connections == 0


@pytest.mark.parametrize("status", STATUSES)
async def test_the_key_of_a_registry_stays_at_its_origin(status: str, tmp_path: Path) -> None:
    async with sent_away(status) as (server, other):
        base = server.url.removesuffix("/mcp")
        crm = Registry(base, "crm", api_key="secret")
        gateway = {"gateway_url": base, "api_key": "secret"}
        async with opened(tmp_path, servers={"crm": crm}, **gateway) as client:
            for name in ("crm", "another"):
                with pytest.raises(GatewayError):
                    await client.invoke_tool(name, "echo")
            with pytest.raises(GatewayError):
                await client.list_servers()
        assert {each.headers["x-api-key"] for each in server.requests} == {"secret"}
        assert other.connections == 0


@pytest.mark.parametrize("status", STATUSES)
async def test_the_token_for_opa_and_its_question_stay_there(status: str, tmp_path: Path) -> None:
    async with sent_away(status) as (server, other):
        opa = Opa(server.url.removesuffix("/mcp"), token="secret", timeout_s=10)
        web = {"web": Http(server.url)}
        async with opened(tmp_path, servers=web, policy=opa) as client:
            verdict = await client.explain("web", "echo", {"text": "mine"})
            assert not verdict.allow
        (asked,) = server.requests
        assert asked.headers["authorization"] == "Bearer secret"
        assert other.connections == 0


@pytest.mark.parametrize("status", STATUSES)
async def test_keys_are_not_taken_from_elsewhere(status: str, tmp_path: Path) -> None:
    async with sent_away(status) as (server, other):
        keys = JwksUrl(f"http://127.0.0.1:{server.port}/keys")
        verifier = TokenVerifier(keys=keys, issuer=ISSUER, audience=AUDIENCE, algorithms=("ES256",))
        async with opened(tmp_path, identity=verifier) as client:
            with pytest.raises(Denied):
                await client.authenticate(Issuer().token("ada"))
        assert len(server.requests) == 1
        assert other.connections == 0
