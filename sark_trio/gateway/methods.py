"""The MCP methods that this gateway has, whatever the era: what is asked, and what is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, final

from attrs import define

from sark_trio import GatewayClient, Principal, Progress
from sark_trio.errors import GatewayError, RemoteError, UnknownServer, UnknownTool
from sark_trio.gateway.faults import fault_of
from sark_trio.gateway.names import candidates, definition
from sark_trio.mcp.messages import RequestId
from sark_trio.mcp.meta import PROGRESS_TOKEN, SERVER_INFO
from sark_trio.mcp.versions import MODERN
from sark_trio.telemetry.hooks import trace_context

__all__ = [
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "Methods",
    "RpcRefused",
    "progress_token",
    "stamped",
]

#: JSON-RPC 2.0, section 5.1.
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
#: The range that JSON-RPC and MCP keep for themselves: nothing in it is ours to pass on.
_RESERVED: Final = range(-32768, -31999)
_STANDARD: Final = frozenset({INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR})
_CALLERS_FAULT: Final = frozenset({"invalid_arguments", "unknown_server", "unknown_tool"})

#: Tools in one answer: about 1 MiB with their schemas.
PAGE_SIZE: Final = 1_000
#: How long a list may be believed: it depends on the caller's rights, which change.
LIST_TTL_MS: Final = 30_000
ABOUT: Final[Mapping[str, str]] = {"name": "sark_trio", "version": version("sark_trio")}

OnProgress = Callable[[Progress], None]


class RpcRefused(Exception):
    """A request that is answered with a JSON-RPC error.

    :param status: of HTTP, in the modern era.
    """

    def __init__(self, code: int, message: str, *, data: Any = None, status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.status = status

    @classmethod
    def of(cls, error: GatewayError) -> RpcRefused:
        """*error* as its caller sees it. Codes of our own are those of HTTP.

        2026-07-28, "Error Codes": new ones belong outside the range that JSON-RPC reserves.
        """
        fault = fault_of(error)
        code = fault.status
        if fault.kind in _CALLERS_FAULT:
            code = INVALID_PARAMS
        elif isinstance(error, RemoteError):
            known = error.code in _STANDARD or error.code not in _RESERVED
            code = error.code if known else INTERNAL_ERROR
        return cls(code, fault.message, data=fault.data)


def progress_token(params: Mapping[str, Any]) -> RequestId | None:
    """The token that progress is wanted under, if it is (2026-07-28, "Progress")."""
    meta = params.get("_meta")
    token = meta.get(PROGRESS_TOKEN) if isinstance(meta, Mapping) else None
    return token if type(token) is int or type(token) is str else None


@final
@define(eq=False)
class Methods:
    """The methods, over a governed client.

    :param instructions: what a model is told about this gateway.
    """

    _client: GatewayClient
    _instructions: str | None = None

    def discovery(self) -> dict[str, Any]:
        """The result of ``server/discover``."""
        about: dict[str, Any] = {
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {}},
            "ttlMs": 3_600_000,
            "cacheScope": "public",
        }
        return about if self._instructions is None else {**about, **self._told()}

    def initialization(self, agreed: str) -> dict[str, Any]:
        """The result of ``initialize``."""
        return {
            "protocolVersion": agreed,
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": dict(ABOUT),
            **({} if self._instructions is None else self._told()),
        }

    async def list_tools(
        self, params: Mapping[str, Any], principal: Principal | None
    ) -> dict[str, Any]:
        """The result of ``tools/list``: the tools of all servers that *principal* may see."""
        offset = _offset(params.get("cursor"))
        servers = {info.server_name for info in await self._client.list_all_servers()}
        listing = await self._client.list_all_tools(principal=principal)
        page = listing.tools[offset : offset + PAGE_SIZE]
        items = [item for info in page if (item := definition(info, servers)) is not None]
        result: dict[str, Any] = {"tools": items, "ttlMs": LIST_TTL_MS, "cacheScope": "private"}
        if offset + PAGE_SIZE < len(listing):
            result["nextCursor"] = str(offset + PAGE_SIZE)
        return result

    async def call_tool(
        self,
        params: Mapping[str, Any],
        principal: Principal | None,
        on_progress: OnProgress | None,
    ) -> dict[str, Any]:
        """The result of ``tools/call``."""
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str):
            raise RpcRefused(INVALID_PARAMS, "'name' must be a string")
        if arguments is not None and not isinstance(arguments, dict):
            raise RpcRefused(INVALID_PARAMS, "'arguments' must be an object")
        server, tool = await self._resolve(name)
        result = await self._client.invoke_tool(
            server,
            tool,
            arguments,
            principal=principal,
            on_progress=on_progress,
            traceparent=_traceparent(params),
        )
        return dict(result.raw)

    async def _resolve(self, name: str) -> tuple[str, str]:
        for server, tool in candidates(name):
            try:
                await self._client.get_server_info(server)
            except UnknownServer:
                continue
            return server, tool
        raise UnknownTool("no server has such a tool")

    def _told(self) -> dict[str, Any]:
        return {"instructions": self._instructions}


def stamped(result: Mapping[str, Any], *, modern: bool) -> dict[str, Any]:
    """*result* with the members that the era wants, and without what an upstream said of itself."""
    said = result.get("_meta")
    meta = {k: v for k, v in said.items() if k != SERVER_INFO} if isinstance(said, Mapping) else {}
    plain = {key: value for key, value in result.items() if key not in {"_meta", "resultType"}}
    if modern:
        meta[SERVER_INFO] = dict(ABOUT)
        plain["resultType"] = "complete"
    return {**plain, "_meta": meta} if meta else plain


def _traceparent(params: Mapping[str, Any]) -> str | None:
    """The span that the caller names as the parent (2026-07-28, "OpenTelemetry trace context").

    Its ``tracestate`` and ``baggage`` end here: they can hold anything, and no policy saw them.
    """
    meta = params.get("_meta")
    return trace_context(meta).get("traceparent") if isinstance(meta, Mapping) else None


def _offset(cursor: Any) -> int:
    if cursor is None:
        return 0
    if not (isinstance(cursor, str) and cursor.isascii() and cursor.isdecimal()) or len(cursor) > 9:
        raise RpcRefused(INVALID_PARAMS, "'cursor' is none of this gateway's")
    return int(cursor)
