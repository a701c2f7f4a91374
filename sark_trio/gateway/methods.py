"""The MCP methods that this gateway has, whatever the era: what is asked, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Final, final

from attrs import define, field

from sark_trio import GatewayClient
from sark_trio.client.relay import Relay
from sark_trio.errors import GatewayError, UnknownTool
from sark_trio.gateway.offers import Offers, paged
from sark_trio.gateway.refusals import INVALID_PARAMS, RpcRefused, no_method, no_resource
from sark_trio.gateway.roof import Roof
from sark_trio.gateway.tasks import CAPABILITY, REVISION, Tasks
from sark_trio.gateway.visitor import Visitor, meta_of
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.meta import LOG_LEVELS, SERVER_INFO, LogLevel
from sark_trio.mcp.versions import MODERN
from sark_trio.telemetry.hooks import trace_context

__all__ = ["ABOUT", "Methods", "stamped"]

ABOUT: Final[Mapping[str, str]] = {"name": "sark_trio", "version": version("sark_trio")}
#: How long what is offered may be believed, if it is all of it.
DISCOVERY_TTL_MS: Final = 3_600_000
_KINDS: Final = frozenset({"input_required", "task"})


@final
@define(eq=False)
class Methods:
    """The methods, over a governed client.

    :param instructions: what a model is told about this gateway.
    :param only: the one server whose own names are shown, if that is how it is.
    """

    _client: GatewayClient
    _instructions: str | None = None
    only: str | None = None
    roof: Roof = field(init=False)
    tasks: Tasks = field(init=False)
    _offers: Offers = field(init=False)
    #: The least severe log messages that legacy servers were asked for, in that connection.
    _levels: dict[str, tuple[Agreed, LogLevel]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.roof = Roof(self._client, self.only)
        self.tasks = Tasks(self._client)
        self._offers = Offers(self.roof)

    async def discovery(self) -> dict[str, Any]:
        """The result of ``server/discover``."""
        whole = len(await self.roof.agreed()) == len(self.roof.servers)
        return {
            "supportedVersions": [MODERN],
            "capabilities": await self.roof.capabilities(modern=True),
            "ttlMs": DISCOVERY_TTL_MS if whole else 0,
            "cacheScope": "public",
            **await self._told(),
        }

    async def initialization(self, agreed: str) -> dict[str, Any]:
        """The result of ``initialize``."""
        capabilities = await self.roof.capabilities(modern=False)
        if agreed == REVISION and "tools" in capabilities:
            capabilities["tasks"] = CAPABILITY
        return {
            "protocolVersion": agreed,
            "capabilities": capabilities,
            "serverInfo": dict(ABOUT),
            **await self._told(),
        }

    # -- lists --------------------------------------------------------------------------------

    async def list_tools(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """The result of ``tools/list``: the tools of all servers that *visitor* may see."""
        if self.only is not None and not await self.roof.offering("tools"):
            raise no_method()
        return paged(params, "tools", await self._offers.tools(visitor))

    async def list_prompts(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """The result of ``prompts/list``."""
        return paged(params, "prompts", await self._offers.prompts(visitor))

    async def list_resources(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """The result of ``resources/list``."""
        return paged(params, "resources", await self._offers.resources(visitor))

    async def list_templates(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """The result of ``resources/templates/list``."""
        return paged(params, "resourceTemplates", await self._offers.templates(visitor))

    # -- one thing ----------------------------------------------------------------------------

    async def call_tool(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """The result of ``tools/call``."""
        server, name = await self._named("tool", _string(params, "name"))
        make = partial(self._forward, server, "tools/call", {**params, "name": name}, visitor)
        wish = params.get("task") if visitor.tasks else None
        if wish is None:
            return await make()
        if not isinstance(wish, Mapping):
            raise RpcRefused(INVALID_PARAMS, "'task' must be an object")
        return await self.tasks.begin(server, wish, visitor, make)

    async def get_prompt(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """The result of ``prompts/get``."""
        server, name = await self._named("prompt", _string(params, "name"))
        return await self._forward(server, "prompts/get", {**params, "name": name}, visitor)

    async def read_resource(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """The result of ``resources/read``."""
        server, uri = self._found(_string(params, "uri"), visitor)
        result = await self._forward(server, "resources/read", {**params, "uri": uri}, visitor)
        if visitor.modern and "contents" in result:
            # Who may read is decided for each caller: nobody between may keep it for others.
            result = {"ttlMs": 0, **result, "cacheScope": "private"}
        return result

    async def complete(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """The result of ``completion/complete``."""
        ref = params.get("ref")
        if not isinstance(ref, Mapping):
            raise RpcRefused(INVALID_PARAMS, "'ref' must be an object")
        if ref.get("type") == "ref/resource":
            server, key = self._found(_string(ref, "uri"), visitor)
            ref = {**ref, "uri": key}
        else:
            server, key = await self._named("prompt", _string(ref, "name"))
            ref = {**ref, "name": key}
        return await self._forward(server, "completion/complete", {**params, "ref": ref}, visitor)

    async def task(
        self, method: str, params: Mapping[str, Any], visitor: Visitor
    ) -> dict[str, Any]:
        """The result of ``tasks/get``, ``tasks/update`` or ``tasks/cancel``."""
        server, task_id = await self._named("task", _string(params, "taskId"))
        return await self._forward(server, method, {**params, "taskId": task_id}, visitor)

    async def set_level(self, level: LogLevel, visitor: Visitor) -> dict[str, Any]:
        """The result of ``logging/setLevel``: legacy servers are asked for so much at least."""
        if "logging" not in await self.roof.capabilities(modern=False):
            raise no_method()
        for server in await self.roof.offering("logging"):
            await self._louder(server, level, visitor)
        return {}

    async def _forward(
        self,
        server: str,
        method: str,
        params: Mapping[str, Any],
        visitor: Visitor,
        relay: Relay | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        relay = relay or visitor.relay(params)
        if visitor.modern and relay.log_level is not None:
            await self._louder(server, relay.log_level, visitor)
        result = await self._client.forward(
            server,
            method,
            params,
            relay=relay,
            principal=visitor.principal,
            timeout_s=timeout_s,
            traceparent=_traceparent(params),
        )
        return self.roof.result(server, result)

    async def _louder(self, server: str, level: LogLevel, visitor: Visitor) -> None:
        """See to it that a legacy *server* sends messages of *level*; it has one level for all.

        Those that are not severe enough for somebody else are left out on the way to them.
        """
        try:
            agreed = await self._client.agreed(server)
            if agreed.modern or "logging" not in agreed.capabilities:
                return
            known = self._levels.get(server)
            if known is not None and known[0] is agreed and _covers(known[1], level):
                return
            await self._client.set_log_level(server, level, principal=visitor.principal)
            self._levels[server] = agreed, level
        except GatewayError:
            if self.only is not None:
                raise

    # -- helpers ------------------------------------------------------------------------------

    async def _named(self, what: str, name: str) -> tuple[str, str]:
        found = await self.roof.whose(name)
        if found is None and what == "tool":
            raise UnknownTool("no server has such a tool")
        if found is None:
            raise RpcRefused(INVALID_PARAMS, f"no server has such a {what}")
        return found

    def _found(self, uri: str, visitor: Visitor) -> tuple[str, str]:
        found = self.roof.whose_uri(uri)
        if found is None:
            raise no_resource(uri, modern=visitor.modern)
        return found

    async def _told(self) -> dict[str, Any]:
        """What models are told, and by one server alone if there is only one to speak of."""
        told = self._instructions
        if told is None and self.only is not None:
            agreed = (await self.roof.agreed()).get(self.only)
            told = None if agreed is None else agreed.instructions
        return {} if told is None else {"instructions": told}


def stamped(result: Mapping[str, Any], *, modern: bool) -> dict[str, Any]:
    """*result* with the members that the era wants, and without what an upstream said of itself."""
    said = result.get("_meta")
    meta = {k: v for k, v in said.items() if k != SERVER_INFO} if isinstance(said, Mapping) else {}
    plain = {key: value for key, value in result.items() if key not in {"_meta", "resultType"}}
    if modern:
        meta[SERVER_INFO] = dict(ABOUT)
        kind = result.get("resultType")
        plain["resultType"] = kind if kind in _KINDS else "complete"
    return {**plain, "_meta": meta} if meta else plain


def _covers(known: LogLevel, wanted: LogLevel) -> bool:
    return LOG_LEVELS.index(known) <= LOG_LEVELS.index(wanted)


def _traceparent(params: Mapping[str, Any]) -> str | None:
    """The span that the caller names as the parent (2026-07-28, "OpenTelemetry trace context").

    Its ``tracestate`` and ``baggage`` end here: they can hold anything, and no policy saw them.
    """
    return trace_context(meta_of(params)).get("traceparent")


def _string(params: Mapping[str, Any], key: str) -> str:
    value = params.get(key)
    if type(value) is not str:
        raise RpcRefused(INVALID_PARAMS, f"'{key}' must be a string")
    return value
