"""Pages of other origins: those on the list may ask and read, and nobody else may."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio import Principal
from sark_trio.gateway.limits import Limits
from sark_trio.machines.limiter import RateOptions
from tests.support.client import desk, open_client
from tests.support.gateway import META, Answer, Legacy, serving

pytestmark = pytest.mark.anyio

PAGE, OTHER = "http://localhost:6274", "https://app.example"
KEY = "pages-key-pages-key-1"
OPEN: dict[str, Any] = {"allowed_origins": [PAGE, OTHER]}
GUARDED: dict[str, Any] = {**OPEN, "api_keys": {KEY: Principal(id="page")}}
ASKING = {"Access_Control_Request_Method": "POST"}


def shared(found: Answer) -> dict[str, str]:
    """What a browser reads of it."""
    return {name: value for name, value in found.headers.items() if name.startswith("access-c")}


def listed(value: str) -> set[str]:
    return {one.strip().lower() for one in value.split(",")}


async def test_a_preflight_says_what_a_page_may_send_and_asks_for_no_credential() -> None:
    async with open_client(desk()) as client, serving(client, **GUARDED) as served:
        wanted = "authorization,content-type,mcp-param-region,x-evil"
        asking = {**ASKING, "Access_Control_Request_Headers": wanted}
        for path, methods in (
            ("/mcp", {"get", "post", "delete"}),
            ("/api/v1/invoke", {"post"}),
            ("/api/v1/servers/desk", {"get", "head"}),
        ):
            found = await served.ask("OPTIONS", path, Origin=PAGE, **asking)
            assert (found.status, found.body) == (204, b"")
            headers = shared(found)
            assert headers["access-control-allow-origin"] == PAGE
            assert listed(headers["access-control-allow-methods"]) == methods
            assert listed(headers["access-control-allow-headers"]) == {
                "accept",
                "authorization",
                "content-type",
                "last-event-id",
                "mcp-method",
                "mcp-name",
                "mcp-param-region",
                "mcp-protocol-version",
                "mcp-session-id",
                "x-api-key",
            }
            assert found.headers["vary"] == "Origin"
            # Of the browser's own, none is let through (Fetch, "CORS protocol and credentials").
            assert "access-control-allow-credentials" not in headers
            assert "*" not in "".join(headers.values())
        found = await served.ask("OPTIONS", "/nowhere", Origin=PAGE, **ASKING)
        assert (found.status, shared(found)["access-control-allow-origin"]) == (404, PAGE)
        # Asked by nobody's page it is a method like others, and needs a credential.
        assert (await served.ask("OPTIONS", "/mcp", **ASKING)).status == 401
        assert (await served.ask("OPTIONS", "/mcp", Origin=PAGE)).status == 401


@pytest.mark.security(32)
async def test_strangers_pages_are_refused_and_told_nothing() -> None:
    for options in (OPEN, {}):
        async with open_client(desk()) as client, serving(client, **options) as served:
            for origin in ("https://evil.example", "null", f"{OTHER}:8443", "http://app.example"):
                for method, more in (("OPTIONS", ASKING), ("GET", {}), ("POST", {})):
                    found = await served.ask(method, "/mcp", Origin=origin, **more)
                    assert (found.status, shared(found)) == (403, {})
            found = await served.ask("GET", "/health")
            assert shared(found) == {}
            assert found.headers.get("vary") == ("Origin" if options else None)


async def test_every_answer_can_be_read_by_the_page_and_by_no_other() -> None:
    """Refusals, too: a page that may not read a 401 cannot know that it has to sign in."""
    limits = Limits(rate=RateOptions(per_s=0.001, burst=6))
    async with open_client(desk()) as client, serving(client, limits=limits, **GUARDED) as served:
        key = {"X_API_Key": KEY}
        legacy = Legacy(served, Origin=PAGE, **key)
        begun = await legacy.initialize()
        assert "mcp-session-id" in listed(shared(begun)["access-control-expose-headers"])
        called = await legacy.call("tools/call", {"name": "desk__echo"})
        assert called.json["result"]["content"]
        denied = await served.ask("POST", "/mcp", {}, Origin=OTHER)
        assert "www-authenticate" in denied.headers
        found = {200: called, 401: denied}
        for path in ("/nowhere", "/api/v1/invoke", "/api/v1/servers", "/api/v1/servers"):
            one = await served.ask("GET", path, Origin=OTHER, **key)
            found[one.status] = one
        for _ in range(4):
            one = await served.ask("GET", "/api/v1/servers", Origin=OTHER, **key)
            found[one.status] = one
        assert sorted(found) == [200, 401, 404, 405, 429]
        for one in [*found.values(), begun, called]:
            assert one.headers["vary"] == "Origin"
            assert shared(one)["access-control-allow-origin"] in {PAGE, OTHER}
            exposed = listed(shared(one)["access-control-expose-headers"])
            assert exposed >= {"mcp-session-id", "www-authenticate", "retry-after", "ratelimit"}
        assert shared(begun)["access-control-allow-origin"] == PAGE
        assert shared(denied)["access-control-allow-origin"] == OTHER


async def test_the_gateways_own_pages_need_no_permission() -> None:
    async with open_client(desk()) as client, serving(client, **OPEN) as served:
        found = await served.ask("GET", "/api/v1/servers", Origin=served.url)
        assert (found.status, shared(found)) == (200, {})
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
        modern = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "tools/list"}
        answered = await served.ask("POST", "/mcp", body, Origin=PAGE.upper(), **modern)
        # The origin exactly as it was sent: a browser compares it byte by byte.
        assert shared(answered)["access-control-allow-origin"] == PAGE.upper()
