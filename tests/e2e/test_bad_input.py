"""Whatever somebody hands us that cannot be: one clear typed error each, and no more than that.

Each mistake is made against real sockets and processes. Afterwards the client is as it was before:
the servers that it had, its next call works, no descriptor or process is left, and no secret is in
what was said.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, field

from sark_trio import (
    AllowAll,
    AuditLog,
    BreakerOptions,
    ConfigError,
    Denied,
    GatewayClient,
    GatewayError,
    Rego,
    RetryConfig,
    TokenVerifier,
    TransportNotAvailableError,
    load,
)
from sark_trio.client.servers import Memory
from sark_trio.errors import (
    AuthenticationRequired,
    ConnectError,
    Forbidden,
    HTTPStatusError,
    InvalidArguments,
    ProcessStartError,
    ProtocolError,
    UnknownServer,
    UnknownTool,
    UsageError,
)
from tests.support.audit_disk import MemoryDisk
from tests.support.client import check_log, desk
from tests.support.gateway import serving
from tests.support.http_servers import Peer, Received, no_leaked_descriptors, response
from tests.support.registry import (
    RegistryDesk,
    Step,
    client_of,
    registry,
    server_record,
    tool_record,
)
from tests.support.tokens import AUDIENCE, ISSUER, Issuer

pytestmark = pytest.mark.anyio

SECRET = "the-key-that-nobody-may-see"
#: One attempt each: what is tried again is another file's matter.
ONCE = RetryConfig(attempts=1)
PATIENT = BreakerOptions(failures=1_000)


def says(body: bytes, status: str = "200 OK", kind: str = "application/json", **more: str) -> Step:
    """A gateway that answers the next request so."""

    async def step(_: Peer, __: Received) -> bytes:
        return response(body, status, kind, **more)

    return step


def tells(value: Any) -> Step:
    """A gateway that answers the next request with that JSON."""
    return says(json.dumps(value).encode())


@define
class Mistake:
    """What somebody does, and the error that it gets.

    :param script: what the gateway answers meanwhile; the first that are asked get it.
    """

    name: str
    make: Callable[[GatewayClient], Awaitable[Any]]
    error: type[GatewayError]
    said: str
    script: list[Step] = field(factory=list)
    delivery: str = "not_sent"


async def follow(client: GatewayClient, **options: Any) -> None:
    async with client.stream_events(**options) as events:
        await anext(events)


def invoke(server: str = "server-0", tool: str = "echo", parameters: Any = None) -> Any:
    return lambda client: client.invoke_tool(server, tool, parameters)


def served_by(name: str, step: Step, error: type[GatewayError], said: str, make: Any) -> Mistake:
    return Mistake(name, make, error, said, [step], "answered")


def lists(client: GatewayClient) -> Any:
    return client.list_all_servers()


def tools(client: GatewayClient) -> Any:
    return client.list_all_tools()


def info(client: GatewayClient) -> Any:
    return client.get_server_info("server-1")


HTML = says(b"<!doctype html><p>Welcome", kind="text/html")
UNKNOWN = [
    Mistake("unknown server", invoke("nobody"), UnknownServer, "no server 'nobody'"),
    Mistake("a name that is a path", invoke("../x?y#"), UnknownServer, r"no server '\.\./x\?y#'"),
    Mistake("a name that is no text", invoke(3), UsageError, "are strings, not 3"),  # type: ignore[arg-type]
    Mistake("unknown tool", invoke("server-0", "nothing"), UnknownTool, "no tool 'nothing'"),
    Mistake("unknown tool here", invoke("desk", "Echo"), UnknownTool, "names are exact"),
    Mistake(
        "tools of an unknown server", lambda c: c.list_tools("nobody"), UnknownServer, "nobody"
    ),
    Mistake("an unknown server's record", lambda c: c.get_server_info("x"), UnknownServer, "'x'"),
    Mistake("connecting to nobody", lambda c: c.connect("nobody"), UnknownServer, "desk"),
    Mistake(
        "ending a server that was never started",
        lambda c: c.disconnect_local_server("desk"),
        UnknownServer,
        "no local server 'desk' was started",
    ),
]
ARGUMENTS = [
    Mistake("a list of arguments", invoke("desk", "echo", [1]), InvalidArguments, "an object"),
    Mistake("NaN", invoke("desk", "echo", {"a": float("nan")}), InvalidArguments, "/a: nan is not"),
    Mistake("what is no JSON", invoke("desk", "echo", {"a": {1}}), InvalidArguments, "/a: set is"),
    Mistake("pages of nothing", lambda c: c.list_servers(page_size=0), UsageError, "page_size"),
    Mistake(
        "a deadline before now",
        lambda c: c.invoke_tool("desk", "echo", timeout_s=-1),
        UsageError,
        "timeout_s=-1 is no number",
    ),
]
DUPLICATES = [
    Mistake(
        "a second server of that name",
        lambda c: c.add_server("desk", ["true"]),
        ConfigError,
        "there is a server 'desk' already; remove it first",
    ),
    Mistake(
        "a second program of that name",
        lambda c: c.connect_local_server([sys.executable, "-c", ""], server_id="desk"),
        ConfigError,
        "there is a server 'desk' already",
    ),
    Mistake(
        "a name that names nothing",
        lambda c: c.add_server("a b", ["true"]),
        ConfigError,
        "server name 'a b': use 1 to 64",
    ),
]
PROGRAMS = [
    Mistake(
        "a program that is not there",
        lambda c: c.connect_local_server(["no-such-program-here"]),
        ProcessStartError,
        "'no-such-program-here' was not found on PATH",
    ),
    Mistake(
        "a program that ends at once",
        lambda c: c.connect_local_server(["false"]),
        ProcessStartError,
        "'false' exited with status 1 before it spoke MCP",
    ),
    Mistake(
        "a directory that is not there",
        lambda c: c.connect_local_server([sys.executable], cwd="/no/such/place"),
        ProcessStartError,
        "'/no/such/place' does not exist",
    ),
    Mistake("no program", lambda c: c.connect_local_server([]), ConfigError, "command: a command"),
]
REGISTRIES = [
    served_by("a page for people", HTML, ProtocolError, "not JSON.*'text/html'", lists),
    served_by("nothing", says(b""), ProtocolError, "not JSON.*truncated", lists),
    served_by("half an answer", says(b'{"servers": ['), ProtocolError, "truncated", lists),
    served_by("no UTF-8", says(b'{"servers": "\xff"}'), ProtocolError, "not JSON", lists),
    served_by("no object", tells([]), ProtocolError, r"expected an object, got \[\]", lists),
    served_by("no servers", tells({}), ProtocolError, "servers: expected a list", lists),
    served_by("no list", tells({"servers": "x"}), ProtocolError, "servers: expected a list", lists),
    served_by(
        "no record", tells({"servers": [None]}), ProtocolError, r"servers\[0\]: expected an", lists
    ),
    served_by(
        "no name",
        tells({"servers": [{"server_id": "a"}]}),
        ProtocolError,
        "no 'server_name'",
        lists,
    ),
    served_by(
        "a name of nothing",
        tells({"servers": [server_record(0, server_name="")]}),
        ProtocolError,
        r"servers\[0\]\.server_name: expected a name",
        lists,
    ),
    served_by(
        "a number of tools that is none",
        tells({"servers": [server_record(0, tools_count=-1)]}),
        ProtocolError,
        r"servers\[0\]\.tools_count: expected an integer of 0 or more, got -1",
        lists,
    ),
    Mistake(
        "a tool without a name",
        lambda c: c.list_all_tools("server-0"),
        ProtocolError,
        r"tools\[0\]\.tool_name",
        [tells(server_record(0)), tells({"tools": [{**tool_record("server-0"), "tool_name": 3}]})],
        "answered",
    ),
    served_by("another server's record", tells(server_record(2)), ProtocolError, "server-2", info),
    served_by(
        "a way elsewhere",
        says(b"", "302 Found", location="http://127.0.0.2:1/api/v1/servers"),
        ProtocolError,
        "redirect not followed: it leads from .* to http://127.0.0.2:1",
        lists,
    ),
    served_by("a wrong key", says(b"{}", "401 No"), AuthenticationRequired, "HTTP 401", lists),
    served_by("no right", says(b"{}", "403 No"), Forbidden, "HTTP 403", lists),
    served_by("a broken gateway", says(b"", "500 Oops"), HTTPStatusError, "HTTP 500", lists),
]
CALLS = [
    served_by("an answer for people", HTML, ProtocolError, "not JSON.*'text/html'", invoke()),
    served_by("an answer of nothing", tells(None), ProtocolError, "got None", invoke()),
    served_by("an answer that is a list", tells([]), ProtocolError, r"got \[\]", invoke()),
    served_by("an answer of half", says(b'{"status":'), ProtocolError, "truncated", invoke()),
    served_by(
        "a POST that is to become a GET",
        says(b"", "302 Found", location="/api/v1/servers"),
        ProtocolError,
        "HTTP 302 is not followed",
        invoke(),
    ),
    served_by(
        "content of no type",
        tells({"content": [3]}),
        ProtocolError,
        "a block of content has no type",
        invoke(),
    ),
]
STREAMS = [
    served_by(
        "no event stream", tells({}), ProtocolError, "no event stream.*'appl.*/json'", follow
    ),
    served_by("a page instead of events", HTML, ProtocolError, "no event stream.*'text/", follow),
    served_by(
        "events without a type", says(b"", kind=""), ProtocolError, "no event stream", follow
    ),
    served_by("no events here", says(b"", "404 None"), HTTPStatusError, "HTTP 404", follow),
    Mistake(
        "another gateway's events",
        lambda c: follow(c, endpoint="http://other.example/api/v1/events"),
        InvalidArguments,
        "http://other.example is not the gateway",
    ),
    Mistake(
        "one type for a set of them",
        lambda c: follow(c, event_types="tool_invoked"),
        UsageError,
        "event_types is a set",
    ),
]
MISTAKES = [
    *UNKNOWN,
    *ARGUMENTS,
    *DUPLICATES,
    *PROGRAMS,
    *REGISTRIES,
    *CALLS,
    *STREAMS,
]


def everything_said(error: BaseException | None) -> Iterator[str]:
    """All that an error, and whatever it came from, would show to somebody."""
    while error is not None:
        yield from (str(error), repr(error), repr(vars(error)))
        yield from getattr(error, "__notes__", ())
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("mistake", MISTAKES, ids=[one.name for one in MISTAKES])
async def test_a_mistake_is_one_error_and_changes_nothing(mistake: Mistake) -> None:
    disk = MemoryDisk()
    options: dict[str, Any] = {"api_key": SECRET, "retry": ONCE, "breaker": PATIENT, "cache": None}
    async with (
        registry(RegistryDesk(api_key=SECRET)) as (shown, url),
        client_of(url, disk, servers={"desk": Memory(desk())}, **options) as client,
    ):
        await client.invoke_tool("server-0", "echo")
        before = {one.server_name for one in await client.list_servers()}
        with no_leaked_descriptors():
            shown.script = list(mistake.script)
            with pytest.raises(mistake.error) as caught:
                await mistake.make(client)
            shown.script.clear()
        assert type(caught.value) is mistake.error
        assert re.search(mistake.said, caught.value.message), caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.delivery == mistake.delivery
        assert SECRET not in "".join(everything_said(caught.value))
        # Nothing is half-configured, and whoever did nothing wrong notices nothing.
        assert {one.server_name for one in await client.list_servers()} == before
        for server in ("server-0", "desk"):
            await client.invoke_tool(server, "echo")
        assert client.statistics().running_calls == 0
    check_log(disk)


async def test_a_gateway_that_cannot_be_reached_is_one_error() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    await listener.aclose()
    url = f"http://127.0.0.1:{port}"
    async with client_of(url, api_key=SECRET, retry=ONCE, breaker=PATIENT) as client:
        for operation in (lists, tools, invoke("any"), follow_once):
            with pytest.raises(ConnectError, match=str(port)) as caught:
                await operation(client)
            assert caught.value.delivery == "not_sent"
            assert SECRET not in "".join(everything_said(caught.value))
        report = await client.health_check()
        assert (report.healthy, report.http.status) == (False, "unhealthy")


async def follow_once(client: GatewayClient) -> None:
    await follow(client, reconnects_max=0)


async def test_what_a_mode_forbids_is_refused_whoever_asks() -> None:
    async with registry() as (shown, url):
        for mode, operation in (
            ("stdio_only", lists),
            ("sse_only", invoke()),
            ("http_only", follow),
            ("http_only", lambda c: c.connect_local_server([sys.executable, "-c", ""])),
        ):
            async with client_of(url, transport_mode=mode) as client:
                with pytest.raises(TransportNotAvailableError, match=f"'{mode}'.*'auto'"):
                    await operation(client)
        assert not shown.asked


#: Options that cannot be, and what is said of them.
OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"gateway_url": "gateway.example"}, "gateway_url: a server URL must begin with http://"),
    ({"gateway_url": "ftp://gateway.example"}, "gateway_url: .*not 'ftp'"),
    ({"gateway_url": "http://u:p@gateway.example"}, "gateway_url: .*must not hold user"),
    ({"gateway_url": "http://gateway.example?a=b"}, "gateway_url: a base URL has no query"),
    ({"api_key": SECRET}, "api_key: a key for which gateway"),
    ({"api_key": f"{SECRET}\n", "gateway_url": "http://g.example"}, "api_key: cannot be sent"),
    ({"transport_mode": "http"}, "transport_mode: 'http' is not one of auto, http_only"),
    ({"max_connections": 0}, "max_connections: 0 is no positive number"),
    ({"timeout_s": 0}, r"timeout_s: 0 is not in \(0, 300\]"),
    ({"timeout_s": float("nan")}, "timeout_s: nan is not in"),
    ({"servers": {"a b": ["true"]}}, "server name 'a b': use 1 to 64"),
    ({"servers": {"a": "not a url"}}, "servers.a: 'not a url' is no http://"),
    ({"servers": {"a": "http://"}}, "servers.a: '' is no host name"),
    ({"servers": {"a": 3}}, "servers.a: 3 is no Server, URL or list of strings"),
    ({"servers": {"a": ["x", 3]}}, r"servers.a: \['x', 3\] is no Server"),
    ({"policy": "policy.rego"}, "policy: 'policy.rego' decides nothing: give Rego"),
    ({"policy": Rego("no/such.rego")}, "no/such.rego: can not be read"),
    ({"policy": Rego(texts={"a.rego": "package a\nallow if {\n\tx ==\n}"})}, "a.rego:4:1: expect"),
]


@pytest.mark.parametrize(("options", "said"), OPTIONS, ids=[said[:30] for _, said in OPTIONS])
def test_an_option_that_cannot_be_makes_no_client(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        GatewayClient(**{"audit": tmp_path / "audit", **options})
    assert SECRET not in "".join(everything_said(caught.value))
    assert list(tmp_path.iterdir()) == []


#: Files by name, their text, and where and what is said to be wrong.
FILES = [
    ("a.toml", "[servers.a]\nurl =\n", "a.toml:2:6: not TOML"),
    ("a.toml", '[client]\ntimeout_s = "30s"\n', "a.toml:2: client.timeout_s: "),
    (
        "a.toml",
        '[servers.a]\ncommand = ["x"]\n[servers.a]\ncommand = ["y"]\n',
        r"a.toml:3:11: not TOML: \[servers\.a\] stands twice",
    ),
    (
        "a.toml",
        '[servers.a]\nurl = "http://x"\ncomand = "y"\n',
        "a.toml:3: servers.a.comand: unknown key; did you mean",
    ),
    ("a.toml", '[servers.a]\nurl = "http://x"\ncommand = ["y"]\n', "servers.a: needs exactly one"),
    ("a.toml", '[client]\ntransport_mode = "http"\n', "a.toml:2: client.transport_mode: 'http' is"),
    ("a.json", '{"mcpServers": {"a": }}', "a.json:1:22: not JSON"),
    ("a.json", '{"mcpServers": {"a": {"command": "x"}, "a": {}}}', "'a' stands twice in one obj"),
    ("a.json", "{}", "a.json: no 'mcpServers' in it"),
    ("a.json", "[]", "a.json:1: not a JSON object"),
]


@pytest.mark.parametrize(("name", "text", "said"), FILES, ids=[said[:40] for *_, said in FILES])
def test_a_file_that_cannot_be_read_says_where(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load(tmp_path / name)
    assert caught.value.source == str(tmp_path / name)
    place = re.search(r":(\d+):(\d+): ", said)
    if place is not None:
        assert (caught.value.line, caught.value.column) == (int(place[1]), int(place[2]))


async def test_a_policy_that_is_wrong_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text("package mcp.gateway\nallow if {\n\tinput.x ==\n}\n")
    async with client_of("http://127.0.0.1:1", servers={"desk": Memory(desk())}) as client:
        with pytest.raises(ConfigError) as caught:
            client.reload_policy(Rego(tmp_path / "p.rego"))
        assert (caught.value.line, caught.value.column) == (4, 1)
        assert str(tmp_path / "p.rego") in caught.value.message
        assert (await client.invoke_tool("desk", "echo")).text == "done"


async def test_tokens_that_prove_nothing_get_nowhere() -> None:
    """Expired, forged, for others, or none at all: one denial, and one status at the door."""
    issuer, now = Issuer(), int(time.time())

    async def keys() -> Any:
        return issuer.jwks

    shown = desk()
    client = GatewayClient(
        servers={"desk": Memory(shown)},
        policy=AllowAll(),
        audit=AuditLog("log", files=MemoryDisk()),
        identity=TokenVerifier(keys=keys, issuer=ISSUER, audience=AUDIENCE, algorithms=("ES256",)),
    )
    good = issuer.token("ann")
    head, body, signature = good.split(".")
    bad = {
        "expired": issuer.token("ann", exp=now - 3_600),
        "not yet": issuer.token("ann", nbf=now + 3_600),
        "forged": Issuer().token("ann"),
        "changed": f"{head}.{body[:-4]}AAAA.{signature}",
        "of others": issuer.token("ann", iss="https://other.example"),
        "for others": issuer.token("ann", aud="other"),
        "unsigned": f"{head}.{body}.",
        "no token": "x",
        "nothing": "",
    }
    call = {"server": "desk", "tool": "echo", "parameters": {}}
    async with client, serving(client, verifier=client.authenticate) as served:
        for token in bad.values():
            with pytest.raises(Denied) as caught:
                await client.authenticate(token)
            assert not token or token not in "".join(everything_said(caught.value))
            authorization = f"Bearer {token}"
            found = await served.ask("POST", "/api/v1/invoke", call, authorization=authorization)
            assert found.status == 401
            assert not token or token.encode() not in found.body
        assert shown.arrived == []
        assert (await client.authenticate(good)).id == "ann"
        found = await served.ask("POST", "/api/v1/invoke", call, authorization=f"Bearer {good}")
        assert found.status == 200
    assert len(shown.arrived) == 1
