"""``/mcp``: Streamable HTTP, the server's side, in both eras.

2026-07-28 is stateless, and its headers must say what the body says. The revisions before it
open a session with ``initialize``. Which of them speaks is told by the version that a request
names, in its header or its ``_meta``.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any, Final, final

import anyio
from attrs import define, field

from sark_trio import Principal
from sark_trio.errors import ProtocolError
from sark_trio.gateway.answering import Answering
from sark_trio.gateway.asgi import Reply, Send
from sark_trio.gateway.asgi import Request as HttpRequest
from sark_trio.gateway.envelope import check_envelope, check_version, is_modern_call
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.methods import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Methods,
    RpcRefused,
    progress_token,
)
from sark_trio.gateway.rpc import answer, made_by, malformed, refusal
from sark_trio.gateway.sessions import Session, Sessions
from sark_trio.mcp.codec import decode, encode_result
from sark_trio.mcp.messages import Notification, Request
from sark_trio.mcp.versions import LEGACY

__all__ = ["McpEndpoint"]

_ALLOWED: Final = (("allow", "POST, DELETE"),)


@final
@define(eq=False)
class McpEndpoint:
    """The endpoint. Replies that are whole are returned; others are sent, and ``None`` returned."""

    _methods: Methods
    _sessions: Sessions = field(factory=Sessions)

    async def handle(
        self, request: HttpRequest, principal: Principal | None, send: Send
    ) -> Reply | None:
        """Answer one HTTP request.

        :raises Refused: it is no request to an MCP endpoint.
        """
        if request.method == "DELETE":
            self._sessions.close(self._session(request, principal))
            return Reply.empty(204)
        if request.method != "POST":
            # The stream of 2025-11-25 that a GET opens is optional, and there is nothing for it.
            return Reply.empty(405, _ALLOWED)
        if not request.accepts("application/json"):
            raise Refused(406, "not_acceptable", "the answer is JSON or an event stream")
        body = await request.body()
        try:
            message = decode(body)
        except ProtocolError:
            return Reply(status=400, body=refusal(None, malformed(body)))
        try:
            return await self._dispatch(message, request, principal, send)
        except RpcRefused as exc:
            request_id = message.id if isinstance(message, Request) else None
            return Reply(status=exc.status, body=refusal(request_id, exc))

    async def _dispatch(
        self, message: Any, request: HttpRequest, principal: Principal | None, send: Send
    ) -> Reply | None:
        modern = is_modern_call(message, request.headers)
        if isinstance(message, Request):
            if modern:
                await self._modern(message, request, principal, send)
                return None
            return await self._legacy(message, request, principal, send)
        if modern:
            if not isinstance(message, Notification):
                raise RpcRefused(INVALID_REQUEST, "clients send no responses", status=400)
            check_version(request.headers)
            return Reply.empty(202)
        session = self._session(request, principal)
        if isinstance(message, Notification) and message.method == "notifications/cancelled":
            scope = session.calls.get(message.params.get("requestId", ""))
            if scope is not None:
                scope.cancel()
        return Reply.empty(202)

    # 2026-07-28.

    async def _modern(
        self, call: Request, request: HttpRequest, principal: Principal | None, send: Send
    ) -> None:
        check_envelope(call, request.headers)
        make = made_by(self._methods, call, principal, modern=True)
        if make is None:
            raise RpcRefused(METHOD_NOT_FOUND, "this gateway has no such method", status=404)
        answering = Answering(
            request=request, send=send, token=progress_token(call.params), cancels_when_gone=True
        )
        await answering.run(partial(answer, call, make, modern=True))

    # 2025-03-26 to 2025-11-25.

    async def _legacy(
        self, call: Request, request: HttpRequest, principal: Principal | None, send: Send
    ) -> Reply | None:
        if call.method == "initialize":
            return self._initialize(call, principal)
        session = self._session(request, principal)
        named = request.headers.get("mcp-protocol-version", session.version)
        if named != session.version:
            message = f"this session speaks {session.version}"
            raise RpcRefused(INVALID_REQUEST, message, status=400)
        make = made_by(self._methods, call, principal, modern=False)
        if make is None:
            raise RpcRefused(METHOD_NOT_FOUND, "this gateway has no such method")
        if call.id in session.calls:
            raise RpcRefused(INVALID_REQUEST, "a request with this id is under way", status=400)
        answering = Answering(
            request=request, send=send, token=progress_token(call.params), cancels_when_gone=False
        )
        session.calls[call.id] = answering.scope
        try:
            await answering.run(partial(answer, call, make, modern=False))
        finally:
            del session.calls[call.id]
        return None

    def _initialize(self, call: Request, principal: Principal | None) -> Reply:
        wanted = call.params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise RpcRefused(INVALID_PARAMS, "'protocolVersion' must be a string")
        agreed = wanted if wanted in LEGACY else LEGACY[0]
        now, name = anyio.current_time(), secrets.token_urlsafe(24)
        session = self._sessions.open(now, name, agreed, _owner(principal))
        if session is None:
            raise Refused(503, "overloaded", "too many sessions are open")
        result = encode_result(call.id, self._methods.initialization(agreed))
        return Reply(body=result, headers=(("mcp-session-id", session.id),))

    def _session(self, request: HttpRequest, principal: Principal | None) -> Session:
        name = request.headers.get("mcp-session-id")
        if name is None:
            raise Refused(400, "invalid_request", "a session is needed: send initialize first")
        found = self._sessions.find(anyio.current_time(), name, _owner(principal))
        if found is None:
            raise Refused(404, "unknown_session", "there is no such session")
        return found


def _owner(principal: Principal | None) -> str | None:
    """Whose a session is: the same person with a newer token goes on with it."""
    return None if principal is None else f"{principal.kind}:{principal.id}"
