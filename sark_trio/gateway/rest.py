"""The registry REST dialect of the original system, answered by a governed client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from attrs import define

from sark_trio import GatewayClient, Principal, ServerInfo, ToolInfo, jsontext
from sark_trio.errors import GatewayError
from sark_trio.gateway.asgi import Reply, Request
from sark_trio.gateway.faults import Fault, Refused, fault_of

__all__ = ["RestApi", "failure", "server_record", "tool_record"]

#: The dialect's own defaults.
PAGE_SIZE: Final = 100
PAGE_SIZE_MAX: Final = 1_000
#: Larger offsets lead nowhere.
OFFSET_MAX: Final = 10_000_000


@final
@define(eq=False)
class RestApi:
    """The endpoints below ``/api/v1``.

    What goes wrong is raised: :class:`Refused` or :class:`~sark_trio.errors.GatewayError`.
    """

    _client: GatewayClient

    async def servers(self, request: Request, principal: Principal | None) -> Reply:
        """``GET /servers``: one page of the servers that the caller may see, and their number."""
        infos = await self._client.list_all_servers(principal=principal or self._client.principal)
        return _page("servers", [server_record(info) for info in infos], request.query())

    async def server(self, request: Request, principal: Principal | None) -> Reply:
        """``GET /servers/{name}``: one that the caller may not see is not there."""
        name, who = request.path[-1], principal or self._client.principal
        return Reply.json(server_record(await self._client.get_server_info(name, principal=who)))

    async def tools(self, request: Request, principal: Principal | None) -> Reply:
        """``GET /tools``: one page of the tools that the caller may see.

        Servers that could not be asked are named under ``failures``.
        """
        query = request.query()
        server = query.pop("server", None)
        listing = await self._client.list_all_tools(server, principal=principal)
        failures = {name: fault_of(error).kind for name, error in listing.failures.items()}
        more = {"failures": failures} if failures else {}
        return _page("tools", [tool_record(info) for info in listing], query, more)

    async def invoke(self, request: Request, principal: Principal | None) -> Reply:
        """``POST /invoke``: call a tool."""
        server, tool, parameters = _call_in(await request.body())
        result = await self._client.invoke_tool(
            server,
            tool,
            parameters,
            principal=principal,
            traceparent=request.headers.get("traceparent"),
        )
        status = "error" if result.is_error else "success"
        return Reply.json({"status": status, "result": result.raw})


def failure(error: Refused | GatewayError, *, detail: bool = False) -> Reply:
    """The reply that says why there is no other.

    :param detail: say it under ``detail`` as well, as below ``/api/v1/gateway``.
    """
    if isinstance(error, Refused):
        return _failure(error.fault, error.headers, detail=detail)
    return _failure(fault_of(error), (), detail=detail)


def _failure(fault: Fault, headers: tuple[tuple[str, str], ...], *, detail: bool) -> Reply:
    body: dict[str, Any] = {"error": {**fault.data, "message": fault.message}}
    if detail:
        body["detail"] = fault.message
    return Reply.json(body, fault.status, (*fault.headers, *headers))


def _page(
    key: str, items: Sequence[Any], query: Mapping[str, str], more: Mapping[str, Any] | None = None
) -> Reply:
    offset = _number(query, "offset", 0, OFFSET_MAX)
    limit = max(1, min(_number(query, "limit", PAGE_SIZE, OFFSET_MAX), PAGE_SIZE_MAX))
    page = items[offset : offset + limit]
    return Reply.json({key: page, "total": len(items), "offset": offset, **(more or {})})


def _number(query: Mapping[str, str], name: str, default: int, largest: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= largest):
        raise Refused(400, "invalid_request", f"{name} must be an integer of 0 to {largest}")
    return int(text)


def _call_in(body: bytes) -> tuple[str, str, dict[str, Any]]:
    try:
        call = jsontext.decode_strict(body)
    except jsontext.JSONError as exc:
        raise Refused(400, "invalid_request", "the body is not JSON") from exc
    if not isinstance(call, dict):
        raise Refused(400, "invalid_request", "the body must be an object")
    for name in ("server", "tool"):
        if not isinstance(call.get(name), str):
            raise Refused(400, "invalid_request", f"{name!r} must be a string")
    parameters = call.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise Refused(400, "invalid_request", "'parameters' must be an object")
    return call["server"], call["tool"], parameters or {}


def server_record(info: ServerInfo) -> dict[str, Any]:
    """A server, in the dialect."""
    has_url = info.address.startswith(("http://", "https://", "ws://", "wss://"))
    return {
        "server_id": info.server_name,
        "server_name": info.server_name,
        # A program's name says nothing to a caller who is not on this machine.
        "server_url": info.address if has_url else f"{info.transport}:",
        "sensitivity_level": info.sensitivity_level,
        "authorized_teams": [],
        "access_restrictions": None,
        "health_status": info.health_status,
        "tools_count": info.tools_count or 0,
        "created_at": None,
        "updated_at": None,
        "transport": info.transport,
        "protocol_version": info.protocol_version,
    }


def tool_record(info: ToolInfo) -> dict[str, Any]:
    """A tool, in the dialect."""
    return {
        "tool_name": info.tool_name,
        "server_name": info.server_name,
        "description": info.description,
        "sensitivity_level": info.sensitivity_level,
        "parameters": _parameters(info.input_schema),
        "sensitive_params": list(info.sensitive_params),
        "required_capabilities": [],
        "input_schema": info.input_schema,
    }


def _parameters(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping):
        return []
    needed = required if isinstance(required, list) else []
    return [
        {"name": name, "type": _type(value), "required": name in needed}
        for name, value in properties.items()
    ]


def _type(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    return kind if isinstance(kind, str) else "any"
