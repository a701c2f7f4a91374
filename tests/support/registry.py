"""A registry on a real socket, as the original system's gateway speaks, and clients of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
from attrs import define, field

from sark_trio import AllowAll, AuditLog, GatewayClient
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE
from tests.support.http_servers import Peer, RawServer, Received, response, serve

__all__ = [
    "RegistryDesk",
    "base_of",
    "client_of",
    "registry",
    "server_record",
    "tool_record",
]

#: Longer than anything here takes on a loaded machine: a test that gets there has hung.
HUNG_S = 30.0
_HEALTHY = {"status": "healthy", "version": "1"}

#: Answers one request by hand: the bytes of a response, or ``None`` to go on as ever.
Step = Callable[[Peer, Received], Awaitable[bytes | None]]


def server_record(number: int, **members: Any) -> dict[str, Any]:
    """A server, as a registry describes it."""
    return {
        "server_id": f"id-{number}",
        "server_name": f"server-{number}",
        "server_url": f"http://127.0.0.1:1/{number}",
        "health_status": "healthy",
        "tools_count": 2,
        **members,
    }


def tool_record(server: str, name: str = "echo", **members: Any) -> dict[str, Any]:
    """A tool, as a registry describes it."""
    parameters = [{"name": "text", "type": "string", "required": False}]
    return {
        "tool_name": name,
        "server_name": server,
        "description": f"{name} of {server}",
        "parameters": parameters,
        **members,
    }


@define(eq=False)
class RegistryDesk:
    """A registry with *servers* servers, each of which has the tools ``echo`` and ``read``.

    :param page_max: the largest page that it gives.
    :param ignores_offset: gives the same page again and again.
    :param api_key: wanted with each request.
    """

    servers: int = 3
    page_max: int = 1000
    ignores_offset: bool = False
    api_key: str | None = None
    health: dict[str, Any] = field(factory=lambda: dict(_HEALTHY))
    #: Steps for the next requests, one each.
    script: list[Step] = field(factory=list)
    #: What was called, in order: server, tool, parameters.
    invoked: list[tuple[str, str, Any]] = field(factory=list)
    #: Requests by path, without query.
    asked: Counter[str] = field(factory=Counter)
    headers: list[dict[str, str]] = field(factory=list)

    async def __call__(self, peer: Peer) -> None:
        while True:
            received = await peer.receive()
            self.asked[urlsplit(received.target).path] += 1
            self.headers.append(received.headers)
            said = await self.script.pop(0)(peer, received) if self.script else None
            await peer.send(said if said is not None else self.answer(received))

    def answer(self, received: Received) -> bytes:
        """What a registry that is well says."""
        if self.api_key is not None and received.headers.get("x-api-key") != self.api_key:
            return _json({"detail": "who are you?"}, "401 Unauthorized")
        url = urlsplit(received.target)
        parts = [unquote(part) for part in url.path.split("/")]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match parts[1:]:
            case ["health"]:
                return _json(self.health)
            case ["api", "v1", "servers"]:
                numbers = self._page(range(self.servers), query)
                return _json({"servers": [server_record(number) for number in numbers]})
            case ["api", "v1", "servers", name]:
                return self._server(name)
            case ["api", "v1", "tools"]:
                return _json({"tools": self._page(self._all_tools(query), query)})
            case ["api", "v1", "invoke"]:
                return self._invoke(received.json)
        return _json({"detail": "no such path"}, "404 Not Found")

    def _all_tools(self, query: dict[str, str]) -> list[dict[str, Any]]:
        names = [f"server-{number}" for number in range(self.servers)]
        wanted = [name for name in names if query.get("server", name) == name]
        return [tool_record(name, tool) for name in wanted for tool in ("echo", "read")]

    def _page(self, items: Sequence[Any], query: dict[str, str]) -> Sequence[Any]:
        offset = 0 if self.ignores_offset else int(query["offset"])
        return items[offset : offset + min(int(query["limit"]), self.page_max)]

    def _server(self, name: str) -> bytes:
        number = name.removeprefix("server-")
        if number.isdecimal() and int(number) < self.servers:
            return _json(server_record(int(number)))
        return _json({"detail": "no such server"}, "404 Not Found")

    def _invoke(self, call: dict[str, Any]) -> bytes:
        self.invoked.append((call["server"], call["tool"], call["parameters"]))
        return _json({"status": "success", "result": {"echo": call["parameters"]}})


def _json(value: Any, status: str = "200 OK") -> bytes:
    return response(json.dumps(value).encode(), status)


@asynccontextmanager
async def registry(desk: RegistryDesk | None = None) -> AsyncIterator[tuple[RegistryDesk, str]]:
    """A registry that serves, and its base URL."""
    shown = desk or RegistryDesk()
    with anyio.fail_after(HUNG_S):
        async with serve(shown) as server:
            yield shown, base_of(server)


def base_of(server: RawServer) -> str:
    """The base URL of a registry that *server* is."""
    return server.url.removesuffix("/mcp")


@asynccontextmanager
async def client_of(
    url: str, disk: MemoryDisk | None = None, **options: Any
) -> AsyncIterator[GatewayClient]:
    """A client of the gateway at *url*."""
    client = GatewayClient(
        gateway_url=url,
        audit=AuditLog("log", files=disk or MemoryDisk()),
        **{"policy": AllowAll(), "principal": ALICE, "jitter": lambda: 0.5, **options},
    )
    async with client:
        yield client
