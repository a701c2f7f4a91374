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
from sark_trio.errors import GatewayError, ProtocolError
from sark_trio.gateway.answering import Answering, Before
from sark_trio.gateway.asgi import Reply, Send
from sark_trio.gateway.asgi import Request as HttpRequest
from sark_trio.gateway.envelope import (
    check_envelope,
    check_params,
    check_version,
    is_modern_call,
)
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.host import Host
from sark_trio.gateway.listening import listen, saying, until
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.refusals import INVALID_PARAMS, INVALID_REQUEST, RpcRefused, no_method
from sark_trio.gateway.rpc import answer, made_by, malformed, refusal
from sark_trio.gateway.sessions import Session, Sessions
from sark_trio.gateway.visitor import Visitor
from sark_trio.mcp.changes import LISTEN
from sark_trio.mcp.codec import decode, encode_result
from sark_trio.mcp.messages import Failure, Notification, Request, Success
from sark_trio.mcp.versions import LEGACY

__all__ = ["McpEndpoint"]

_ALLOWED: Final = (("allow", "GET, POST, DELETE"),)


@final
@define(eq=False)
class McpEndpoint:
    """The endpoint. Replies that are whole are returned; others are sent, and ``None`` returned."""

    _methods: Methods
    _sessions: Sessions = field(factory=Sessions)
    #: Ends the streams that would go on for ever.
    closing: anyio.Event = field(factory=anyio.Event, init=False)

    async def handle(
        self, request: HttpRequest, principal: Principal | None, send: Send
    ) -> Reply | None:
        """Answer one HTTP request.

        :raises Refused: it is no request to an MCP endpoint.
        """
        if request.method == "DELETE":
            self._sessions.close(self._session(request, principal))
            return Reply.empty(204)
        if request.method == "GET" and "mcp-session-id" in request.headers:
            return await self._stream(request, principal, send)
        if request.method != "POST":
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
        if isinstance(message, Success | Failure):
            session.host.on_answer(message)
        elif message.method == "notifications/cancelled":
            scope = session.calls.get(message.params.get("requestId", ""))
            if scope is not None:
                scope.cancel()
        return Reply.empty(202)

    # 2026-07-28.

    async def _modern(
        self, call: Request, request: HttpRequest, principal: Principal | None, send: Send
    ) -> None:
        check_envelope(call, request.headers)
        make = made_by(self._methods, call, modern=True)
        if call.method == LISTEN:
            make = partial(listen, self._methods, call, self.closing)
        if make is None:
            raise no_method()
        if call.method == "tools/call" and self._methods.only is not None:
            await self._check_mirrored(self._methods.only, call, request)
        level = Visitor.level_in(call.params)

        def visitor(before: Before | None) -> Visitor:
            return Visitor(
                principal=principal,
                modern=True,
                offers=Visitor.offers_in(call.params),
                log_level=level,
                tell=None if before is None else before.tell,
                put=None if before is None else before.put,
            )

        answering = Answering(request=request, send=send, cancels_when_gone=True)
        await answering.run(lambda before: answer(call, make, visitor(before)))

    async def _check_mirrored(self, server: str, call: Request, request: HttpRequest) -> None:
        """Hold the call to the headers that the tool, which is shown as it is, asks for."""
        try:
            wanted = await self._methods.roof.client.mirrored(server, str(call.params.get("name")))
        except GatewayError:
            return  # the call itself will say why
        check_params(wanted, call.params.get("arguments"), request.headers)

    # 2025-03-26 to 2025-11-25.

    async def _legacy(
        self, call: Request, request: HttpRequest, principal: Principal | None, send: Send
    ) -> Reply | None:
        if call.method == "initialize":
            return await self._initialize(call, principal)
        session = self._session(request, principal)
        named = request.headers.get("mcp-protocol-version", session.version)
        if named != session.version:
            message = f"this session speaks {session.version}"
            raise RpcRefused(INVALID_REQUEST, message, status=400)
        if call.id in session.calls:
            raise RpcRefused(INVALID_REQUEST, "a request with this id is under way", status=400)
        host = session.host

        def visitor(before: Before | None) -> Visitor:
            return Visitor(
                principal=principal,
                modern=False,
                offers=host.offers,
                log_level=host.log_level,
                tell=None if before is None else before.tell,
                ask=None if before is None else partial(host.ask, before.tell),
            )

        make = made_by(self._methods, call, modern=False) or host.made_by(self._methods, call)
        if make is None:
            raise no_method()
        # As servers of those revisions do, where it is to look as if one were asked itself.
        alike = self._methods.only is not None and request.names("text/event-stream")
        answering = Answering(
            request=request, send=send, cancels_when_gone=False, begins_at_once=alike
        )
        session.calls[call.id] = answering.scope
        try:
            await answering.run(lambda before: answer(call, make, visitor(before)))
        finally:
            del session.calls[call.id]
        return None

    async def _initialize(self, call: Request, principal: Principal | None) -> Reply:
        wanted = call.params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise RpcRefused(INVALID_PARAMS, "'protocolVersion' must be a string")
        agreed = wanted if wanted in LEGACY else LEGACY[0]
        about = await self._methods.initialization(agreed)
        now, name = anyio.current_time(), secrets.token_urlsafe(24)
        session = self._sessions.open(now, name, agreed, _owner(principal))
        if session is None:
            raise Refused(503, "overloaded", "too many sessions are open")
        session.host = Host(Host.offers_in(call.params))
        return Reply(body=encode_result(call.id, about), headers=(("mcp-session-id", session.id),))

    async def _stream(
        self, request: HttpRequest, principal: Principal | None, send: Send
    ) -> Reply | None:
        """What belongs to no call ("Listening for Messages from the Server")."""
        session = self._session(request, principal)
        if not request.accepts("text/event-stream"):
            raise Refused(406, "not_acceptable", "the answer is an event stream")
        if session.stream is not None:
            raise Refused(409, "conflict", "this session has its stream already")

        async def work(before: Before | None) -> None:
            assert before is not None
            say = saying(before.put)
            await until(self.closing, partial(session.host.listen, self._methods, principal, say))

        answering = Answering(
            request=request, send=send, cancels_when_gone=True, begins_at_once=True
        )
        session.stream = answering.scope
        try:
            await answering.run(work)
        finally:
            session.stream = None
        return None

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
