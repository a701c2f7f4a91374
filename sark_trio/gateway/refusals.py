"""Requests that are answered with a JSON-RPC error, and the codes that there are for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sark_trio.errors import GatewayError, RemoteError
from sark_trio.gateway.faults import fault_of
from sark_trio.mcp.faults import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
)

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "RpcRefused",
    "no_method",
    "no_resource",
]

#: JSON-RPC 2.0, section 5.1.
PARSE_ERROR: Final = -32700
#: MCP, "Error Codes": the first until 2025-11-25, the other in it alone.
RESOURCE_NOT_FOUND: Final = -32002
URL_ELICITATION_REQUIRED: Final = -32042
#: The range that JSON-RPC and MCP keep for themselves: what of it is between the client and the
#: server, such as their versions, is not ours to pass on.
_RESERVED: Final = range(-32768, -31999)
_STANDARD: Final = frozenset({INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR})
#: What each era has beside them. A code that the other one knows is said in this one's words.
_MODERN: Final[Mapping[int, int]] = {
    MISSING_CAPABILITY: MISSING_CAPABILITY,
    RESOURCE_NOT_FOUND: INVALID_PARAMS,
}
_LEGACY: Final[Mapping[int, int]] = {
    RESOURCE_NOT_FOUND: RESOURCE_NOT_FOUND,
    URL_ELICITATION_REQUIRED: URL_ELICITATION_REQUIRED,
}
#: HTTP statuses that go with codes (2026-07-28, "Error Codes").
_STATUSES: Final[Mapping[int, int]] = {METHOD_NOT_FOUND: 404, MISSING_CAPABILITY: 400}
_CALLERS_FAULT: Final = frozenset({"invalid_arguments", "unknown_server", "unknown_tool"})


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
    def of(cls, error: GatewayError, *, modern: bool = True) -> RpcRefused:
        """*error* as its caller sees it. Codes of our own are those of HTTP.

        2026-07-28, "Error Codes": new ones belong outside the range that JSON-RPC reserves. What
        a server says beside its code is its answer to the caller.
        """
        fault = fault_of(error)
        code, data = fault.status, fault.data
        if fault.kind in _CALLERS_FAULT:
            code = INVALID_PARAMS
        elif isinstance(error, RemoteError):
            code = _passed_on(error.code, modern=modern)
            if code != INTERNAL_ERROR and isinstance(error.data, Mapping):
                data = {**data, **error.data}
        return cls(code, fault.message, data=data, status=_STATUSES.get(code, 200))


def no_method() -> RpcRefused:
    """There is no such method, or nothing here that it belongs to."""
    return RpcRefused(METHOD_NOT_FOUND, "this gateway has no such method", status=404)


def no_resource(uri: str, *, modern: bool) -> RpcRefused:
    """There is no such resource (2026-07-28, "Resources", Error Handling)."""
    code = INVALID_PARAMS if modern else RESOURCE_NOT_FOUND
    return RpcRefused(code, "no server has such a resource", data={"uri": uri})


def _passed_on(code: int, *, modern: bool) -> int:
    if code in _STANDARD or code not in _RESERVED:
        return code
    return (_MODERN if modern else _LEGACY).get(code, INTERNAL_ERROR)
