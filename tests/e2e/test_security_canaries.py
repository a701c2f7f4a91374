"""No secret of ours is in anything that leaves the house (security, lines 4 and 7).

Every secret that a client can be given is a canary; every output that it has is searched for all
of them, raw, in base64, URL-, JSON-escaped and in hexadecimal. The servers are real.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest

from sark_trio import (
    ClientCredentials,
    GatewayClient,
    Http,
    Opa,
    Pins,
    Principal,
    Registry,
    RetryConfig,
    Stdio,
    TokenVerifier,
    ToolRule,
    WebSocket,
)
from sark_trio.errors import ConfigError, Denied, GatewayError
from sark_trio.telemetry.events import Event, fields_of
from sark_trio.telemetry.logs import JsonFormatter, LogHook
from sark_trio.telemetry.prometheus import Prometheus
from tests.support.canaries import Canary, leaks
from tests.support.cli import Done, closed_port, make_place
from tests.support.http_servers import DISCOVERY, Peer, RawServer, Received, response, result, serve
from tests.support.stdio import changeable
from tests.support.tokens import AUDIENCE, ISSUER, Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.security(7)]

#: What may stand in a URL or a header of any server without being encoded.
PLAIN = "-_."


class Told:
    """A hook that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


class Lines(logging.Handler):
    """Every record of every logger, in both formats."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))
        self.lines.append(JsonFormatter().format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    root, handler = logging.getLogger(), Lines()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


class Flock:
    """The canaries of one test, by where they are put."""

    def __init__(self) -> None:
        self.all: dict[str, Canary] = {}

    def __call__(self, where: str, awkward: str | None = None) -> str:
        made = Canary(where) if awkward is None else Canary(where, awkward)
        self.all[where] = made
        return made.secret


async def world(peer: Peer) -> None:
    """An MCP server, OPA, and a registry and a token endpoint that let nobody in."""
    while True:
        await reply(peer, await peer.receive())


async def reply(peer: Peer, received: Received) -> None:
    if received.target == "/signed" or not received.body.startswith(b"{"):
        await peer.send(response(b"{}", "401 Unauthorized"))
    elif received.rpc == "server/discover":
        await peer.send(result(received, DISCOVERY))
    elif received.rpc == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "fail")]
        await peer.send(result(received, {"tools": tools, "ttlMs": 60_000}))
    elif received.rpc == "tools/call" and received.json["params"]["name"] == "fail":
        await peer.send(response(b"it broke", "500 Internal Server Error", "text/plain"))
    elif received.target.startswith("/v1/data"):
        denied = received.json["input"]["tool"]["name"] == "forbidden"
        await peer.send(response(json.dumps({"result": {"allow": not denied}}).encode()))
    elif received.rpc:
        await peer.send(result(received, {"content": [{"type": "text", "text": "done"}]}))
    else:
        await peer.send(response(b"{}", "401 Unauthorized"))


def child(folder: Path) -> list[str]:
    """The command of a server on stdio."""
    names = ("echo", "crash", "surroundings")
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    (folder / "tools.json").write_text(json.dumps(tools))
    return changeable(folder / "tools.json", folder / "seen.txt")


def configured(server: RawServer, canary: Flock, folder: Path) -> dict[str, Any]:
    """Options of a client in which every secret is a canary."""
    base = server.url.removesuffix("/mcp")
    dead = f"127.0.0.1:{closed_port()}"
    rules = {"*": ToolRule(sensitive_params=("password",))}
    return {
        "servers": {
            "web": Http(
                f"{server.url}?key={canary('query of a URL', PLAIN)}",
                headers={"Authorization": f"Bearer {canary('header')}"},
                tools=rules,
            ),
            "child": Stdio(
                [*child(folder), f"--token={canary('argument of a child')}"],
                env={"API_TOKEN": canary("variable of a child")},
                tools=rules,
            ),
            "dead": Http(f"http://{dead}/mcp", headers={"X-Key": canary("header of the dead")}),
            "socket": WebSocket(f"ws://{dead}/mcp", headers={"X-Key": canary("of a WebSocket")}),
            "signed": Http(
                f"{base}/signed",
                auth=ClientCredentials(
                    issuer=f"http://{dead}",
                    client_id="robot",
                    client_secret=canary("client secret"),
                ),
            ),
            "registry": Registry(base, "crm", api_key=canary("registry key", PLAIN)),
        },
        "policy": Opa(base, token=canary("token for OPA", PLAIN), timeout_s=10),
        "gateway_url": base,
        "api_key": canary("gateway key", PLAIN),
        "audit": folder / "audit",
        "principal": Principal(id="ada", roles=("analyst",)),
        "pins": Pins(folder / "pins.json"),
        "jitter": lambda: 0.0,
        "retry": RetryConfig(attempts=2, initial_delay_s=0.01),
    }


@asynccontextmanager
async def website() -> AsyncIterator[RawServer]:
    with anyio.fail_after(90):
        async with serve(world) as server:
            yield server


CALLS: list[tuple[str, str]] = [
    ("web", "echo"),
    ("child", "echo"),
    ("web", "fail"),
    ("web", "forbidden"),
    ("web", "nothing"),
    ("child", "crash"),
    ("dead", "echo"),
    ("socket", "echo"),
    ("signed", "echo"),
    ("registry", "echo"),
    ("elsewhere", "echo"),
]


async def every_way(client: GatewayClient, canary: Flock) -> list[tuple[str, str]]:
    """Calls that go well and badly, on all kinds of servers; what their errors say."""
    said: list[tuple[str, str]] = []

    def keep(what: str, error: BaseException) -> None:
        said.append((f"error of {what}", "".join(traceback.format_exception(error))))
        said.append((f"members of the error of {what}", repr(error) + repr(error.__dict__)))

    for server, tool in CALLS:
        arguments = {"text": "hello", "password": canary(f"argument of {server} {tool}")}
        try:
            answer = await client.invoke_tool(server, tool, arguments, timeout_s=20)
            said.append((f"result of {server} {tool}", repr(answer)))
        except GatewayError as exc:
            keep(f"{server} {tool}", exc)
    for token in (canary("token that is none"), f"e30.{canary('token of its shape', '')}.e30"):
        try:
            await client.authenticate(token)
        except Denied as exc:
            keep("a token", exc)
    for server in ("web", "dead", "registry", "child"):
        try:
            said.append((f"tools of {server}", repr(await client.list_tools(server))))
        except GatewayError as exc:
            keep(f"the list of {server}", exc)
    said.append(("health", repr(await client.health_check(timeout_s=20))))
    return said


def insides(client: GatewayClient, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is shown of a client, and of all that it is made of."""
    shown: dict[str, object] = {
        "client": client,
        "statistics": client.statistics(),
        "metrics": client.get_metrics(),
        "policy": options["policy"],
        "link": client._gateway,
        "keeper": client._pins,
        "governor": client._caller.governor,
        **{f"server {name}": server for name, server in options["servers"].items()},
    }
    for name, upstream in client._engine.all_upstreams().items():
        shown[f"upstream {name}"] = upstream
        shown[f"transport {name}"] = upstream._transport
        shown[f"address {name}"] = upstream.server.address
    return [(f"repr of {name}", f"{thing!r} {thing!s}") for name, thing in shown.items()]


def files(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


@pytest.mark.security(4)
async def test_no_secret_is_in_any_output(tmp_path: Path, lines: Lines) -> None:
    canary, told, prometheus, issuer = Flock(), Told(), Prometheus(), Issuer()
    async with website() as server:
        options = configured(server, canary, tmp_path)
        verifier = TokenVerifier(
            keys=issuer.jwks, issuer=ISSUER, audience=AUDIENCE, algorithms=("ES256",)
        )
        hooks = [told, LogHook(), prometheus]
        async with GatewayClient(**options, identity=verifier, hooks=hooks) as client:
            said = await every_way(client, canary)
            token = issuer.token("bob")
            bob = await client.authenticate(token)
            await client.invoke_tool("web", "echo", {"text": "hello"}, principal=bob)
            child = await client.invoke_tool("child", "surroundings")
            outputs: list[tuple[str, bytes | str]] = [*said, *insides(client, options)]
        requests = list(server.requests)
    outputs += [("log", line) for line in lines.lines]
    outputs += [(f"event {each.name}", f"{each!r} {fields_of(each)}") for each in told.events]
    outputs += [("Prometheus", prometheus.text()), *files(tmp_path)]
    assert leaks(outputs, canary.all.values()) == []

    # They were where they belong, so there was something to leak; and nowhere else.
    kept = {"web": ("header", "query of a URL"), "opa": ("token for OPA",)}
    for received in requests:
        wire = f"{received.target} {received.headers} {received.body!r}"
        mine = "opa" if received.target.startswith("/v1/data") else "web"
        if received.body.startswith(b"{") and received.target != "/signed":
            found = {where for where, one in canary.all.items() if one.is_in(wire)}
            assert found == set(kept[mine]), received.target
        assert token not in wire
        assert token.split(".")[2] not in wire
    assert child.structured_content is not None
    given = json.dumps(child.structured_content)
    found = {where for where, one in canary.all.items() if one.is_in(given)}
    assert found == {"variable of a child", "argument of a child"}
    assert len(told.events) > 30
    assert len(lines.lines) > 30


async def test_no_secret_is_in_an_option_that_is_refused(tmp_path: Path) -> None:
    """A message that says what is wrong with an option does not say what it was."""
    canary, said = Flock(), list[tuple[str, bytes | str]]()
    bad = "\r\n"
    attempts: list[tuple[str, Any]] = [
        (
            "header",
            lambda: {"web": Http("http://h.example/", headers={"A": canary("a header") + bad})},
        ),
        ("url", lambda: {"web": Http(f"http://user:{canary('a URL', PLAIN)}@h.example/")}),
        ("key", lambda: {"web": Registry("http://h.example", "x", api_key=canary("k") + bad)}),
        ("socket", lambda: {"w": WebSocket("ws://h.example", headers={"A": canary("ws") + bad})}),
    ]
    for name, servers in attempts:
        with pytest.raises(ConfigError) as caught:
            GatewayClient(servers=servers(), audit=tmp_path / "audit")
        said.append((name, "".join(traceback.format_exception(caught.value, chain=True))))
    with pytest.raises(GatewayError) as caught:
        GatewayClient(
            audit=tmp_path / "audit", gateway_url="https://g.example", api_key=canary("g") + bad
        )
    said.append(("gateway", "".join(traceback.format_exception(caught.value))))
    # A traceback quotes lines of this file, which name no canary.
    assert leaks(said, canary.all.values()) == []


def commands() -> list[list[str]]:
    logs = ["--log-level", "debug"]
    return [
        ["servers", "--check", *logs],
        ["tools", *logs, "--log-format", "json"],
        ["call", "web", "echo", "text=hello", *logs],
        ["call", "web", "fail", "--json"],
        ["call", "child", "crash"],
        ["call", "signed", "echo"],
        ["audit", "tail", "--json"],
        ["pins", "list"],
        ["login", "signed"],
    ]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["cli"])
async def test_no_secret_is_in_the_output_of_the_command(tmp_path: Path) -> None:
    """The same of ``sark``, which gets its secrets from the environment."""
    canary, place = Flock(), make_place(tmp_path)
    async with website() as server:
        env = {
            "WEB_TOKEN": canary("header"),
            "WEB_KEY": canary("query of a URL", PLAIN),
            "CHILD_TOKEN": canary("variable of a child"),
            "CLIENT_SECRET": canary("client secret"),
        }
        place.write(
            "sark.toml",
            f"""
[servers.web]
url = "{server.url}?key=${{WEB_KEY}}"
headers = {{ Authorization = "Bearer ${{WEB_TOKEN}}" }}
[servers.child]
command = {json.dumps(child(tmp_path))}
env = {{ API_TOKEN = "${{CHILD_TOKEN}}" }}
[servers.signed]
url = "{server.url.removesuffix("/mcp")}/signed"
auth = {{ kind = "client", client_id = "me", client_secret = "${{CLIENT_SECRET}}", store = "s" }}
[policy]
allow_all = true
[audit]
directory = "audit"
[pins]
path = "pins.json"
""",
        )
        done: list[tuple[str, Done]] = []
        for words in commands():
            run = await anyio.to_thread.run_sync(lambda w=words: place.sark(*w, env=env))
            done.append((" ".join(words), run))
    outputs: list[tuple[str, bytes | str]] = [
        (f"sark {words}", run.out + run.err) for words, run in done
    ]
    assert leaks([*outputs, *files(tmp_path / "audit")], canary.all.values()) == []
    statuses = {words: run.status for words, run in done}
    assert statuses["call web echo text=hello --log-level debug"] == 0, done
    assert any(canary.all["header"].is_in(str(each.headers)) for each in server.requests)


# -- the search itself ------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["search"])
@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
async def test_a_planted_secret_is_found_in_every_dress(before: str) -> None:
    canary = Canary("here")
    text = f"{before}{canary.secret}, and so on"
    dressed = {
        "raw": text,
        "base64": base64.b64encode(text.encode()).decode(),
        "base64url": base64.urlsafe_b64encode(text.encode()).decode(),
        "url": quote(text, safe=""),
        "json": json.dumps({"a": text}),
        "hex": text.encode().hex(),
        "repr": repr([text]),
        "a piece": f"...{canary.core}...",
    }
    assert leaks(dressed.items(), [canary]) == [f"here in {name}" for name in dressed]
    assert leaks([("else", "nothing of it"), ("more", sys.version)], [canary]) == []
