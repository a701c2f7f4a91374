"""One JSON-RPC request and its answer, on whatever wire it came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sark_trio import Principal, Progress, jsontext
from sark_trio.errors import GatewayError
from sark_trio.gateway.methods import (
    INVALID_REQUEST,
    PARSE_ERROR,
    Methods,
    RpcRefused,
    stamped,
)
from sark_trio.mcp.codec import encode_error, encode_result
from sark_trio.mcp.messages import Request

__all__ = ["Made", "Tell", "answer", "made_by", "malformed", "refusal"]

Tell = Callable[[Progress], None]
#: Makes a result, telling progress meanwhile.
Made = Callable[[Tell | None], Awaitable[dict[str, Any]]]


def made_by(
    methods: Methods, call: Request, principal: Principal | None, *, modern: bool
) -> Made | None:
    """What makes the result of *call*; ``None`` where there is no such method."""
    match call.method:
        case "tools/list":
            return lambda _: methods.list_tools(call.params, principal)
        case "tools/call":
            return lambda tell: methods.call_tool(call.params, principal, tell)
        case "server/discover" if modern:
            return _at_once(methods.discovery())
        case "ping" if not modern:
            return _at_once({})
    return None


async def answer(
    call: Request, make: Made, tell: Tell | None, *, modern: bool
) -> tuple[int, bytes]:
    """The answer to *call*, whatever became of it, and the HTTP status that goes with it."""
    try:
        result = await make(tell)
    except RpcRefused as exc:
        return exc.status if modern else 200, refusal(call.id, exc)
    except GatewayError as exc:
        return 200, refusal(call.id, RpcRefused.of(exc))
    return 200, encode_result(call.id, stamped(result, modern=modern))


def refusal(request_id: Any, error: RpcRefused) -> bytes:
    """*error* as an answer."""
    return encode_error(request_id, error.code, error.message, error.data)


def malformed(body: bytes) -> RpcRefused:
    """Whether *body* is no JSON, or no message (a batch, among others)."""
    try:
        jsontext.decode_strict(body)
    except jsontext.JSONError:
        return RpcRefused(PARSE_ERROR, "this is not JSON")
    return RpcRefused(INVALID_REQUEST, "this is not one JSON-RPC message")


def _at_once(result: dict[str, Any]) -> Made:
    async def make(_: Tell | None) -> dict[str, Any]:
        return result

    return make
