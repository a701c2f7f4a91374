"""One JSON-RPC request and its answer, on whatever wire it came."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from sark_trio import jsontext
from sark_trio.errors import GatewayError
from sark_trio.gateway.methods import Methods, stamped
from sark_trio.gateway.refusals import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    RpcRefused,
)
from sark_trio.gateway.visitor import Visitor
from sark_trio.mcp.codec import encode_error, encode_result
from sark_trio.mcp.messages import Request
from sark_trio.mcp.versions import LEGACY

__all__ = ["Made", "agreed_version", "answer", "made_by", "malformed", "refusal"]

#: Makes a result for whoever asks.
Made = Callable[[Visitor], Awaitable[dict[str, Any]]]
_Method = Callable[[Methods, Mapping[str, Any], Visitor], Awaitable[dict[str, Any]]]

_METHODS: Final[Mapping[str, _Method]] = {
    "tools/list": Methods.list_tools,
    "tools/call": Methods.call_tool,
    "prompts/list": Methods.list_prompts,
    "prompts/get": Methods.get_prompt,
    "resources/list": Methods.list_resources,
    "resources/templates/list": Methods.list_templates,
    "resources/read": Methods.read_resource,
    "completion/complete": Methods.complete,
}
_LOG: Final = logging.getLogger("sark_trio.gateway")
#: Of the extension ``io.modelcontextprotocol/tasks``, and of 2025-11-25.
_MODERN_TASKS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
_LEGACY_TASKS: Final = frozenset({"tasks/get", "tasks/result", "tasks/cancel"})


def made_by(methods: Methods, call: Request, *, modern: bool) -> Made | None:
    """What makes the result of *call*; ``None`` where there is no such method.

    What needs the conversation that it is part of is made by that: ``subscriptions/listen``, and
    until 2025-11-25 ``resources/subscribe`` and ``logging/setLevel``.
    """
    made = _METHODS.get(call.method)
    if made is not None:
        return partial(made, methods, call.params)
    match call.method:
        case "server/discover" if modern:
            return lambda _: methods.discovery()
        case "ping" if not modern:
            return _nothing
    if modern and call.method in _MODERN_TASKS:
        return partial(methods.task, call.method, call.params)
    if not modern and call.method in _LEGACY_TASKS:
        return partial(methods.tasks.answer, call.method, call.params)
    return None


async def answer(call: Request, make: Made, visitor: Visitor) -> tuple[int, bytes]:
    """The answer to *call*, whatever became of it, and the HTTP status that goes with it."""
    modern = visitor.modern
    try:
        result = await make(visitor)
    except RpcRefused as exc:
        return exc.status if modern else 200, refusal(call.id, exc)
    except GatewayError as exc:
        refused = RpcRefused.of(exc, modern=modern)
        return refused.status if modern else 200, refusal(call.id, refused)
    except Exception:  # noqa: BLE001 - it is logged in full
        # A mistake of ours costs one request, and not the conversation that it is part of.
        _LOG.exception("a request in MCP failed")
        return 500, refusal(call.id, RpcRefused(INTERNAL_ERROR, "the gateway failed"))
    return 200, encode_result(call.id, stamped(result, modern=modern))


def refusal(request_id: Any, error: RpcRefused) -> bytes:
    """*error* as an answer."""
    return encode_error(request_id, error.code, error.message, error.data)


def malformed(body: bytes) -> bytes:
    """The answer to *body*, which is no JSON, or no message (a batch, among others).

    It is to the request that *body* would be, as far as that can be told (JSON-RPC 2.0, section
    5). What would be an answer has an id, too, and that is none of the peer's own.
    """
    try:
        value = jsontext.decode_strict(body)
    except jsontext.JSONError:
        return refusal(None, RpcRefused(PARSE_ERROR, "this is not JSON"))
    asked = value.get("id") if isinstance(value, dict) and "method" in value else None
    request_id = asked if type(asked) is int or type(asked) is str else None
    return refusal(request_id, RpcRefused(INVALID_REQUEST, "this is not one JSON-RPC message"))


def agreed_version(params: Mapping[str, Any]) -> str:
    """The revision that a session speaks whose ``initialize`` has *params*.

    :raises RpcRefused: they name none.
    """
    wanted = params.get("protocolVersion")
    if not isinstance(wanted, str):
        raise RpcRefused(INVALID_PARAMS, "'protocolVersion' must be a string")
    return wanted if wanted in LEGACY else LEGACY[0]


async def _nothing(_: Visitor) -> dict[str, Any]:
    return {}
