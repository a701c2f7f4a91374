"""The registry client against scripted servers on real sockets, byte for byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio.errors import (
    ClientClosed,
    ConnectError,
    HTTPStatusError,
    InvalidArguments,
    MessageTooLarge,
    ProtocolError,
    RateLimited,
    ServerDisconnected,
)
from sark_trio.net import pages
from sark_trio.net.options import Timeouts
from sark_trio.net.streams import AnyIOBackend
from sark_trio.transports.registry import RegistryClient, RegistryParameter, RegistryServer
from tests.support.http_servers import Peer, RawServer, Received, Script, response, serve

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[RegistryClient]:
    client = RegistryClient(url, **options)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            await tasks.start(client.run)
            try:
                yield client
            finally:
                with anyio.CancelScope(shield=True):
                    await client.aclose()


@asynccontextmanager
async def registry(
    *answers: Callable[[Received], bytes], **options: Any
) -> AsyncIterator[tuple[RawServer, RegistryClient]]:
    """A server that gives the n-th answer to the n-th request, and the last to all others."""

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            count = len(peer.server.requests)
            await peer.send(answers[min(count, len(answers)) - 1](received))

    async with serve(script) as server, client_of(base_of(server), **options) as client:
        yield server, client


def base_of(server: RawServer) -> str:
    return server.url.removesuffix("/mcp")


def gives(value: Any, **more: Any) -> Callable[[Received], bytes]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda _: response(body, **more)


def server_item(number: int = 0, **members: Any) -> dict[str, Any]:
    return {
        "server_id": f"id-{number}",
        "server_name": f"server-{number}",
        "server_url": "http://127.0.0.1:1/mcp",
        "health_status": "healthy",
        "tools_count": 2,
        **members,
    }


def tool_item(name: str = "echo", server: str = "files", **members: Any) -> dict[str, Any]:
    return {"tool_name": name, "server_name": server, "description": "Says it again.", **members}


def paged(total: int, *, cap: int = 1000, known: bool = False) -> Callable[[Received], bytes]:
    """A registry of *total* servers that gives at most *cap* at once."""

    def answer(received: Received) -> bytes:
        query = dict(pair.split("=") for pair in received.target.partition("?")[2].split("&"))
        begin, limit = int(query["offset"]), min(int(query["limit"]), cap)
        page = [server_item(number) for number in range(begin, min(begin + limit, total))]
        body = {"servers": page, **({"total": total} if known else {})}
        return response(json.dumps(body).encode())

    return answer


# -- what is sent, and what comes back ------------------------------------------------------------


@pytest.mark.fault(1)
async def test_a_server_is_asked_for_and_read_whole() -> None:
    full = server_item(
        7,
        sensitivity_level="high",
        authorized_teams=["data"],
        access_restrictions={"hours": "9-17"},
        created_at="2026-01-01T00:00:00Z",
        unknown_member=1,
    )
    async with registry(gives(full), api_key="k-1") as (server, client):
        found = await client.get_server("server-7")
    assert found == RegistryServer(
        server_id="id-7",
        server_name="server-7",
        server_url="http://127.0.0.1:1/mcp",
        sensitivity_level="high",
        authorized_teams=("data",),
        access_restrictions={"hours": "9-17"},
        health_status="healthy",
        tools_count=2,
        created_at="2026-01-01T00:00:00Z",
    )
    (asked,) = server.requests
    assert (asked.method, asked.target) == ("GET", "/api/v1/servers/server-7")
    assert asked.headers["x-api-key"] == "k-1"
    assert asked.headers["accept"] == "application/json"
    assert "authorization" not in asked.headers


async def test_tools_are_asked_for_by_server() -> None:
    item = tool_item(
        parameters=[{"name": "text", "type": "string", "required": True}, {"name": "times"}],
        sensitive_params=["text"],
        required_capabilities=["fs"],
    )
    async with registry(gives({"tools": [item]})) as (server, client):
        (tool,) = await client.list_tools("my files & more", page=3, page_size=50)
    asked = server.requests[0].target
    assert asked == "/api/v1/tools?offset=100&limit=50&server=my%20files%20%26%20more"
    assert tool.parameters == (
        RegistryParameter("text", "string", True),
        RegistryParameter("times"),
    )
    assert (tool.sensitive_params, tool.required_capabilities) == (("text",), ("fs",))
    assert tool.sensitivity_level == "medium"


async def test_a_path_below_a_base_url_is_kept() -> None:
    async with (
        serve(_one(gives({"servers": []}))) as server,
        client_of(f"{base_of(server)}/gateway/") as client,
    ):
        assert await client.list_servers() == ()
    assert server.requests[0].target == "/gateway/api/v1/servers?offset=0&limit=100"


def _one(answer: Callable[[Received], bytes]) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.send(answer(await peer.receive()))

    return script


async def test_the_users_token_goes_with_invoke_alone() -> None:
    answers = (gives({"status": "success", "result": {"rows": 1}}), gives({"servers": []}))
    async with registry(*answers, api_key="k") as (server, client):
        answer = await client.invoke_tool("db", "query", {"sql": "select 1"}, user_token="t.t.t")
        await client.list_servers()
    assert answer == {"status": "success", "result": {"rows": 1}}
    invoke, listed = server.requests
    assert (invoke.method, invoke.target) == ("POST", "/api/v1/invoke")
    assert invoke.headers["authorization"] == "Bearer t.t.t"
    assert invoke.headers["content-type"] == "application/json"
    assert invoke.json == {"server": "db", "tool": "query", "parameters": {"sql": "select 1"}}
    assert "authorization" not in listed.headers


async def test_health_is_what_the_registry_says() -> None:
    answers = (gives({"status": "healthy", "version": "2"}), gives({"status": "degraded"}))
    async with registry(*answers) as (server, client):
        well, unwell = await client.health_check(), await client.health_check()
    assert (well.healthy, well.details["version"], well.error) == (True, "2", None)
    assert (unwell.healthy, unwell.details) == (False, {"status": "degraded"})
    assert [one.target for one in server.requests] == ["/health", "/health"]


@pytest.mark.row(2)
@pytest.mark.fault(47)
async def test_health_of_a_registry_that_is_not_there_is_not_well() -> None:
    async with serve(_one(gives({}))) as server:
        base = base_of(server)
    async with client_of(base) as client:
        found = await client.health_check()
        assert (found.healthy, found.details) == (False, {})
        assert found.error
        with pytest.raises(ConnectError):
            await client.list_servers()


@pytest.mark.fault(47)
async def test_a_closed_client_stays_closed() -> None:
    async with registry(gives({"servers": []})) as (server, client):
        await client.list_servers()
        await client.aclose()
        await client.aclose()
        with pytest.raises(ClientClosed):
            await client.list_servers()
        with pytest.raises(ClientClosed):
            await client.run()
    assert len(server.requests) == 1
    never = RegistryClient("http://127.0.0.1:1")
    with pytest.raises(ClientClosed):
        await never.list_servers()
    await never.aclose()


# -- names, redirects, credentials ----------------------------------------------------------------


@pytest.mark.fault(28)
async def test_a_name_is_one_segment_of_the_path() -> None:
    names = ("../admin?x=1#", "a/b", "grün", "%2e%2e")
    answers = [gives(server_item(server_name=name)) for name in names]
    async with registry(*answers) as (server, client):
        for name in names:
            assert (await client.get_server(name)).server_name == name
        for name in ("", ".", "..", "\ud800"):
            with pytest.raises(InvalidArguments):
                await client.get_server(name)
    prefix = "/api/v1/servers/"
    assert [one.target for one in server.requests] == [
        f"{prefix}..%2Fadmin%3Fx%3D1%23",
        f"{prefix}a%2Fb",
        f"{prefix}gr%C3%BCn",
        f"{prefix}%252e%252e",
    ]


@pytest.mark.parametrize("said", ["DB", "db ", "id-0", "prod"])
async def test_no_alias_of_a_server_is_taken_for_it(said: str) -> None:
    async with registry(gives(server_item(server_name=said))) as (_, client):
        with pytest.raises(ProtocolError, match=f"servers/db: the registry answered of '{said}'"):
            await client.get_server("db")


@pytest.mark.security(6)
@pytest.mark.row(14)
@pytest.mark.fault(27)
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_credentials_never_follow_a_redirect_to_another_origin(status: str) -> None:
    async with serve(_one(gives({"servers": []}))) as thief:
        leads = {"status": status, "Location": f"{base_of(thief)}/api/v1/servers"}
        async with registry(gives(b"", **leads), api_key="secret") as (_, client):
            with pytest.raises(ProtocolError, match="redirect"):
                await client.list_servers()
            with pytest.raises(ProtocolError):
                await client.invoke_tool("db", "query", user_token="secret")
    assert thief.connections == 0


@pytest.mark.security(6)
@pytest.mark.row(14)
@pytest.mark.fault(27)
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other"])
async def test_a_redirect_never_makes_a_get_of_an_invoke(status: str) -> None:
    async with registry(gives({}, status=status, Location="/elsewhere")) as (server, client):
        with pytest.raises(ProtocolError, match=r"POST /api/v1/invoke: HTTP 30. is not followed"):
            await client.invoke_tool("db", "query")
    assert [one.method for one in server.requests] == ["POST"]


async def test_redirects_within_the_origin_are_followed_as_they_were() -> None:
    moved = gives(b"", status="307 Temporary Redirect", Location="/v2/invoke")
    async with registry(moved, gives({"done": True})) as (server, client):
        answer = await client.invoke_tool("db", "query", {"a": 1}, user_token="t")
    assert answer == {"done": True}
    first, second = server.requests
    assert (second.method, second.target, second.body) == ("POST", "/v2/invoke", first.body)
    assert second.headers["authorization"] == "Bearer t"
    found = gives(b"", status="302 Found", Location="/v2/servers")
    async with registry(found, gives({"servers": []})) as (server, client):
        assert await client.list_servers() == ()
    assert server.requests[1].target == "/v2/servers"


@pytest.mark.row(14)
async def test_redirects_end() -> None:
    async with registry(gives(b"", status="307 Again", Location="/round")) as (server, client):
        with pytest.raises(ProtocolError, match="more than 3 redirects"):
            await client.list_servers()
    assert len(server.requests) == 4


def test_what_cannot_be_sent_is_refused_at_once() -> None:
    for options in (
        {"api_key": "two words"},
        {"api_key": "k\r\nX: y"},
        {"headers": [("X-API-Key", "k")]},
        {"headers": [("X-A", "a\nb")]},
        {"answer_bytes_max": 0},
    ):
        with pytest.raises(ValueError) as caught:
            RegistryClient("http://127.0.0.1", **options)
        assert "k\r" not in str(caught.value)
    for url in ("ftp://a", "http://u:p@a", "http://a/?q=1"):
        with pytest.raises(ValueError):
            RegistryClient(url)


async def test_a_token_that_is_no_header_is_sent_nowhere() -> None:
    async with registry(gives({})) as (server, client):
        with pytest.raises(InvalidArguments) as caught:
            await client.invoke_tool("db", "query", user_token="secret\r\nX-Admin: 1")
        assert "secret" not in str(caught.value)
        with pytest.raises(InvalidArguments):
            await client.invoke_tool("db", "query", {"x": float("nan")})
    assert server.requests == []


# -- pages ----------------------------------------------------------------------------------------


@pytest.mark.fault(29)
@pytest.mark.parametrize(("cap", "known"), [(1000, False), (1000, True), (70, False), (70, True)])
async def test_all_pages_are_walked_whatever_the_registrys_own_limit(cap: int, known: bool) -> None:
    async with registry(paged(2500, cap=cap, known=known)) as (server, client):
        found = await client.list_all_servers(page_size=5000)
    assert [one.server_id for one in found] == [f"id-{number}" for number in range(2500)]
    assert all("limit=1000" in one.target for one in server.requests)
    pages = -(-2500 // min(cap, 1000))
    assert len(server.requests) == (pages if known else pages + 1)


async def test_pages_are_fetched_as_they_are_wanted() -> None:
    async with registry(paged(10_000, cap=10)) as (server, client):
        seen = 0
        async for _ in client.servers(page_size=10):
            seen += 1
            assert len(server.requests) == -(-seen // 10)
            if seen == 25:
                break
    assert len(server.requests) == 3


@pytest.mark.fault(29)
async def test_a_registry_that_gives_the_same_page_for_ever_is_left() -> None:
    same = gives({"servers": [server_item(number) for number in range(10)]})
    async with registry(same) as (server, client):
        with pytest.raises(ProtocolError, match="repeats itself at offset 10"):
            await client.list_all_servers(page_size=10)
        assert len(server.requests) == 2
        # Fewer than asked for: it knows no pages, and has given all that it has.
        assert len(await client.list_all_servers(page_size=20)) == 10


async def test_a_registry_that_goes_round_in_circles_is_left() -> None:
    def answer(received: Received) -> bytes:
        offset = int(received.target.partition("offset=")[2].partition("&")[0])
        return response(json.dumps({"servers": [server_item(offset % 7)]}).encode())

    async with registry(answer) as (server, client):
        with pytest.raises(ProtocolError, match="repeats itself"):
            async for _ in client.servers(page_size=1):
                pass
    assert len(server.requests) < 30


async def test_one_page_and_what_it_holds() -> None:
    async with registry(paged(25)) as (_, client):
        assert len(await client.list_servers(page=2, page_size=20)) == 5
        assert len(await client.list_servers(page=-3, page_size=20)) == 20
        with pytest.raises(ValueError, match="page_size must be positive"):
            await client.list_servers(page_size=0)
        tools = client.tools()
        with pytest.raises(ProtocolError, match=r"GET /api/v1/tools: tools: expected a list"):
            await tools.collect()


# -- answers that are wrong -----------------------------------------------------------------------

MALFORMED = [
    (b"<html>", r"GET /api/v1/servers: not JSON.*content type: 'text/html'"),
    (b"", r"GET /api/v1/servers: not JSON"),
    ([], r"GET /api/v1/servers: expected an object, got \[\]"),
    ({}, r"GET /api/v1/servers: servers: expected a list, got None"),
    ({"servers": {}}, r"servers: expected a list"),
    ({"servers": ["x"]}, r"servers\[0\]: expected an object, got 'x'"),
    ({"servers": [server_item(), {}]}, r"servers\[1\]: no 'server_id'"),
    ({"servers": [server_item(server_id="")]}, r"servers\[0\].server_id: expected a name"),
    ({"servers": [server_item(tools_count=-1)]}, r"tools_count: expected an integer of 0 or more"),
    ({"servers": [server_item(tools_count=True)]}, r"tools_count: expected an integer"),
    ({"servers": [server_item(health_status=None)]}, r"health_status: expected a string"),
    ({"servers": [server_item(authorized_teams="x")]}, r"authorized_teams: expected a list"),
    ({"servers": [server_item(authorized_teams=[1])]}, r"authorized_teams\[0\]: expected a string"),
    ({"servers": [server_item(access_restrictions=[])]}, r"access_restrictions: expected an obj"),
    ({"servers": [server_item(created_at=3)]}, r"created_at: expected a string, got 3"),
]


@pytest.mark.row(27)
@pytest.mark.parametrize(("body", "message"), MALFORMED)
async def test_a_malformed_answer_is_one_clear_error(body: Any, message: str) -> None:
    async with registry(gives(body, content_type="text/html")) as (server, client):
        with pytest.raises(ProtocolError, match=message) as caught:
            await client.list_all_servers()
    assert caught.value.delivery == "answered"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"description": None}, r"tools\[0\].description: expected a string"),
        ({"parameters": [{}]}, r"tools\[0\].parameters\[0\]: no 'name'"),
        ({"parameters": [{"name": "a", "required": "yes"}]}, r"\[0\].required: expected true or"),
        ({"input_schema": 3}, r"input_schema: expected an object"),
    ],
)
async def test_a_malformed_tool_is_named(members: dict[str, Any], message: str) -> None:
    async with registry(gives({"tools": [tool_item(**members)]})) as (_, client):
        with pytest.raises(ProtocolError, match=message):
            await client.list_tools()


async def test_a_strangers_words_do_not_dress_up_the_message() -> None:
    body = {"servers": [server_item(server_url=["\x1b[31m\n" + "x" * 500])]}
    async with registry(gives(body)) as (_, client):
        with pytest.raises(ProtocolError) as caught:
            await client.list_servers()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 200


@pytest.mark.row(27)
@pytest.mark.fault(31)
@pytest.mark.parametrize("body", [b"<html>ok</html>", b"", b"[1]", b'"ok"'])
async def test_an_invoke_that_is_answered_with_nonsense_is_sent_once(body: bytes) -> None:
    async def yes(_: str) -> bool:
        return True

    async with registry(gives(body)) as (server, client):
        with pytest.raises(ProtocolError) as caught:
            await client.invoke_tool("db", "query", may_resend=yes)
    assert caught.value.delivery == "answered"
    assert len(server.requests) == 1


@pytest.mark.row(15, 16)
async def test_statuses_have_their_types() -> None:
    answers = (
        gives({"detail": "no"}, status="404 Not Found"),
        gives({}, status="429 Too Many Requests", Retry_After="7"),
    )
    async with registry(*answers) as (server, client):
        with pytest.raises(HTTPStatusError) as caught:
            await client.get_server("nobody")
        assert (caught.value.status, caught.value.delivery) == (404, "answered")
        with pytest.raises(RateLimited) as limited:
            await client.list_servers()
        assert limited.value.retry_after_s == 7
    assert len(server.requests) == 2


async def test_an_answer_has_a_bound() -> None:
    async with registry(gives(b"[" + b" " * 5000 + b"]"), answer_bytes_max=1000) as (_, client):
        with pytest.raises(MessageTooLarge):
            await client.list_servers()


# -- connections that break -----------------------------------------------------------------------


def _dying_after(count: int, answer: Callable[[Received], bytes]) -> Script:
    """Answers *count* requests, takes one more, and closes."""

    async def script(peer: Peer) -> None:
        for _ in range(count):
            await peer.send(answer(await peer.receive()))
        await peer.receive()

    return script


@pytest.mark.row(7)
async def test_a_connection_that_went_stale_costs_a_list_nothing_and_a_call_its_certainty() -> None:
    answer = gives({"servers": []})
    reasons: list[str] = []

    async def may_resend(reason: str) -> bool:
        reasons.append(reason)
        return True

    dying = _dying_after(1, answer)
    async with (
        serve(dying, dying, dying, _one(answer)) as server,
        client_of(base_of(server)) as client,
    ):
        await client.list_servers()
        await client.list_servers()  # dies, and is asked for again on a new connection
        with pytest.raises(ServerDisconnected) as caught:
            await client.invoke_tool("db", "drop")
        assert caught.value.delivery == "unknown"
        await client.list_servers()
        answered = await client.invoke_tool("db", "read", may_resend=may_resend)
    assert answered == {"servers": []}
    assert reasons == ["stale_connection"]
    calls = [one.json["tool"] for one in server.requests if one.method == "POST"]
    assert calls == ["drop", "read", "read"]


async def test_a_first_connection_that_breaks_is_not_tried_again() -> None:
    async with (
        serve(_dying_after(0, gives({}))) as server,
        client_of(base_of(server)) as client,
    ):
        with pytest.raises(ServerDisconnected):
            await client.list_servers()
    assert server.connections == 1


async def test_closing_ends_a_request_that_waits() -> None:
    arrived = anyio.Event()

    async def silent(peer: Peer) -> None:
        await peer.receive()
        arrived.set()
        await peer.wait_closed()

    sent: list[bool] = []
    async with (
        serve(silent) as server,
        client_of(base_of(server), timeouts=Timeouts(read_s=15)) as client,
        anyio.create_task_group() as tasks,
    ):

        async def call() -> None:
            with pytest.raises(ClientClosed) as caught:
                await client.invoke_tool("db", "q", on_sent=lambda: sent.append(True))
            assert caught.value.delivery == "unknown"

        tasks.start_soon(call)
        await arrived.wait()
        await client.aclose()
    assert sent
    assert "closed" not in repr(client)
    assert client.requests == 1


async def test_a_status_that_is_neither_answer_nor_refusal() -> None:
    async with registry(gives(b"", status="304 Not Modified")) as (_, client):
        with pytest.raises(ProtocolError, match="answered HTTP 304"):
            await client.list_servers()


async def test_headers_of_ones_own_are_sent() -> None:
    async with registry(gives({"servers": []}), headers=[("X-Team", "data")]) as (server, client):
        await client.list_servers()
    assert server.requests[0].headers["x-team"] == "data"


@pytest.mark.row(7)
async def test_a_second_connection_that_breaks_is_the_end() -> None:
    answer = gives({"servers": []})
    async with (
        serve(_dying_after(1, answer), _dying_after(0, answer)) as server,
        client_of(base_of(server)) as client,
    ):
        await client.list_servers()
        with pytest.raises(ServerDisconnected):
            await client.list_servers()
    assert server.connections == 2


async def test_a_list_without_end_is_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ITEMS_MAX", 50)
    async with registry(paged(60)) as (_, client):
        with pytest.raises(ProtocolError, match="more than 50 items; iterate over them instead"):
            await client.list_all_servers(page_size=20)
        assert len([one async for one in client.servers()]) == 60


def test_addresses_are_checked_by_our_own_backend_alone() -> None:
    with pytest.raises(ValueError, match="default backend"):
        RegistryClient(
            "http://127.0.0.1", backend=AnyIOBackend(), address_check=lambda _address: None
        )
