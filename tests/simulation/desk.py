"""What a simulated MCP server does with a message, whatever carries it: and what it remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio
from attrs import define, field

from sark_trio import jsontext
from tests.simulation.network import Chaos

__all__ = ["LISTEN", "RESOURCES", "TOOLS_CHANGED", "WATCHING", "Desk", "Effect", "Visit"]

LISTEN = "subscriptions/listen"
TOOLS_CHANGED = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
#: Until 2025-11-25.
WATCH, UNWATCH = WATCHING = ("resources/subscribe", "resources/unsubscribe")
#: What changes from time to time, beside the list of tools.
RESOURCES = ("sim:///one", "sim:///two")

_TOOLS = [
    {
        "name": name,
        "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "annotations": {"readOnlyHint": name == "read", "idempotentHint": name == "put"},
    }
    for name in ("read", "put", "write", "admin")
]
_CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
#: An id that no client of ours ever reaches.
_NOBODYS = 999_999
_ABOUT = "io.modelcontextprotocol/subscriptionId"


@define(frozen=True)
class Effect:
    """A call that was executed."""

    at: float
    server: str
    tool: str
    arguments: Mapping[str, Any]


def _unheard(_server: str, _tool: str, _arguments: Mapping[str, Any]) -> None:
    """Nobody wants to know."""


@define(eq=False)
class Visit:
    """One session, connection or process, as far as it is told of changes."""

    desk: Desk
    #: Takes one message for the client.
    say: Callable[[bytes], None]
    #: Until 2025-11-25: resources that it was asked to watch.
    watched: set[str] = field(factory=set)
    #: Since 2026-07-28: what the requests that listen want to hear of, by their ids.
    listens: dict[Any, Mapping[str, Any]] = field(factory=dict)

    def begin(self) -> None:
        """Be told from now on."""
        self.desk.visits.append(self)

    def end(self) -> None:
        """Be told no more. Idempotent."""
        if self in self.desk.visits:
            self.desk.visits.remove(self)

    def listen(self, message: Mapping[str, Any]) -> None:
        """Take a request that listens, and say so."""
        wanted = message["params"]["notifications"]
        self.listens[message["id"]] = wanted
        self._say(
            "notifications/subscriptions/acknowledged",
            {"_meta": {_ABOUT: message["id"]}, "notifications": wanted},
        )

    def cancel(self, message: Mapping[str, Any]) -> None:
        """A notification of the client's: it may end a request that listens."""
        if message["method"] == "notifications/cancelled":
            self.listens.pop(message["params"]["requestId"], None)

    def tell(self, method: str, uri: str | None) -> None:
        """Something changed."""
        params = {} if uri is None else {"uri": uri}
        if self.desk.modern:
            for number, wanted in self.listens.items():
                subjects = wanted.get("resourceSubscriptions", ())
                if uri in subjects or (uri is None and wanted.get("toolsListChanged")):
                    self._say(method, {"_meta": {_ABOUT: number}, **params})
        elif uri is None or uri in self.watched:
            self._say(method, params)

    def _say(self, method: str, params: Mapping[str, Any]) -> None:
        self.say(jsontext.encode({"jsonrpc": "2.0", "method": method, "params": params}))


@define(eq=False)
class Desk:
    """One server's work. ``effects`` is what it did, whoever heard of it."""

    name: str
    chaos: Chaos
    modern: bool
    #: The revision of one that is not modern.
    version: str = "2025-11-25"
    effects: list[Effect] = field(factory=list)
    #: Told of each call before it is executed.
    on_arrival: Callable[[str, str, Mapping[str, Any]], None] = _unheard
    #: Told of each list that is given.
    on_listed: Callable[[str], None] = field(default=lambda _name: None)
    visits: list[Visit] = field(factory=list)

    def change(self, uri: str | None) -> None:
        """The resource *uri* changes, or the list of tools; who listens is told."""
        for visit in tuple(self.visits):
            visit.tell(TOOLS_CHANGED if uri is None else UPDATED, uri)

    async def result(
        self, method: str, params: Mapping[str, Any], visit: Visit | None = None
    ) -> dict[str, Any] | None:
        """The result of one request; ``None``: there is no such method here."""
        if method == "tools/call":
            result = await self._work(params)
        elif method == "tools/list":
            self.on_listed(self.name)
            result = {"tools": _TOOLS}
        elif method == "initialize" and not self.modern:
            about = {"name": self.name, "version": "1"}
            result = {"protocolVersion": self.version, "capabilities": _CAPABILITIES}
            result["serverInfo"] = about
        elif method == "ping" and not self.modern:
            result = {}
        elif method == WATCH and visit is not None and not self.modern:
            visit.watched.add(params["uri"])
            result = {}
        elif method == UNWATCH and visit is not None and not self.modern:
            visit.watched.discard(params["uri"])
            result = {}
        elif method == "server/discover" and self.modern:
            result = {"supportedVersions": ["2026-07-28"], "capabilities": _CAPABILITIES}
        else:
            return None
        return result | {"resultType": "complete"} if self.modern else result

    async def answer(self, message: Mapping[str, Any], visit: Visit) -> None:
        """Answer one message on a stream of messages: once, twice, wrongly, or not at all."""
        if "id" not in message:
            visit.cancel(message)
            return
        if "method" not in message or self.chaos.strikes("dropped requests"):
            return
        method = message["method"]
        if method == LISTEN and self.modern:
            visit.listen(message)
            return
        result = await self.result(method, message.get("params", {}), visit)
        if self.chaos.strikes("dropped answers"):
            return
        body = self.encoded(message["id"], result)
        visit.say(body)
        if self.chaos.strikes("answers twice"):
            visit.say(body)

    def encoded(self, request_id: Any, result: Mapping[str, Any] | None) -> bytes:
        """The answer with that *result*, or with an error; or something else entirely."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id}
        if result is None:
            answer["error"] = {"code": -32601, "message": "no such method"}
            return jsontext.encode(answer)
        answer["result"] = result
        if self.chaos.strikes("answers to somebody else"):
            answer["id"] = _NOBODYS if self.chaos.strikes("wrong numbers") else str(request_id)
        body = jsontext.encode(answer)
        if self.chaos.strikes("garbage"):
            choice = self.chaos.size("garbage", 5) - 1
            body = (b"{}", b"[", b"\xff\xfe", b"null", body[:-2])[choice]
        return body

    async def _work(self, params: Mapping[str, Any]) -> dict[str, Any]:
        arguments = params["arguments"]
        self.on_arrival(self.name, params["name"], arguments)
        self.effects.append(Effect(trio.current_time(), self.name, params["name"], arguments))
        if self.chaos.strikes("slow work"):
            await trio.sleep(self.chaos.seconds("slow work", 0, 20))
        if self.chaos.strikes("tools that fail"):
            return {"content": [], "isError": True}
        return {"content": [{"type": "text", "text": str(arguments["n"])}]}
