"""``/mcp``: Streamable HTTP, the server's side, in both eras.

2026-07-28 is stateless, and its headers must say what the body says. The revisions before it
open a session with ``initialize``. Which of them speaks is told by the version that a request
names, in its header or its ``_meta``.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, final

import anyio
from attrs import define, field

from sark_trio import Principal
from sark_trio.errors import GatewayError, ProtocolError
from sark_trio.gateway.answering import Answering, Before
from sark_trio.gateway.asgi import Reply, Send
from sark_trio.gateway.asgi import Request as HttpRequest
from sark_trio.gateway.batches import BATCHED, Batch, is_batch, joined
from sark_trio.gateway.envelope import (
    VERSION,
    check_envelope,
    check_params,
    check_version,
    is_modern_call,
    names_modern,
)
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.host import Host
from sark_trio.gateway.lapse import Lapses
from sark_trio.gateway.listening import listen, saying, until
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.refusals import INVALID_REQUEST, RpcRefused, no_method
from sark_trio.gateway.rpc import agreed_version, answer, made_by, malformed, refusal
from sark_trio.gateway.sessions import Session, Sessions
from sark_trio.gateway.tasks import REVISION as TASKS
from sark_trio.gateway.visitor import Visitor
from sark_trio.mcp.changes import LISTEN
from sark_trio.mcp.codec import decode, encode_result
from sark_trio.mcp.messages import Failure, Notification, Request, Success

__all__ = ["McpEndpoint"]

_ALLOWED: Final = (("allow", "GET, POST, DELETE"),)
#: Since 2026-07-28.
_ALLOWED_NOW: Final = (("allow", "POST"),)
#: Counts one request of the caller's; raises :class:`Refused` where that is one too many.
_Count = Callable[[], object]
_Work = Callable[[Before | None], Awaitable[tuple[int, bytes]]]


@final
@define(eq=False)
class McpEndpoint:
    """The endpoint. Replies that are whole are returned; others are sent, and ``None`` returned."""

    _methods: Methods
    #: Ends the streams that would go on for ever.
    _lapses: Lapses
    _sessions: Sessions = field(factory=Sessions)

    async def handle(
        self, request: HttpRequest, principal: Principal | None, send: Send, count: _Count
    ) -> Reply | None:
        """Answer one HTTP request.

        :param count: called for every further request that it brings.
        :raises Refused: it is no request to an MCP endpoint.
        """
        message: Any = None
        try:
            if request.method != "POST":
                return await self._without_body(request, principal, send)
            if not request.accepts("application/json"):
                raise Refused(406, "not_acceptable", "the answer is JSON or an event stream")
            body = await request.body()
            if is_batch(body) and "mcp-session-id" in request.headers:
                return await self._batch(body, request, principal, send, count)
            try:
                message = decode(body)
            except ProtocolError:
                return Reply(status=400, body=malformed(body))
            return await self._dispatch(message, request, principal, send)
        except RpcRefused as exc:
            request_id = message.id if isinstance(message, Request) else None
            return Reply(status=exc.status, body=refusal(request_id, exc))

    async def _without_body(
        self, request: HttpRequest, principal: Principal | None, send: Send
    ) -> Reply | None:
        if names_modern(request.headers):
            check_version(request.headers)
            return Reply.empty(405, _ALLOWED_NOW)
        if request.method == "DELETE":
            self._sessions.close(self._session(request, principal))
            return Reply.empty(204)
        if request.method == "GET" and "mcp-session-id" in request.headers:
            return await self._stream(request, principal, send)
        return Reply.empty(405, _ALLOWED)

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
        self._hear(message, self._session(request, principal))
        return Reply.empty(202)

    # 2026-07-28.

    async def _modern(
        self, call: Request, request: HttpRequest, principal: Principal | None, send: Send
    ) -> None:
        check_envelope(call, request.headers)
        make = made_by(self._methods, call, modern=True)
        if call.method == LISTEN:
            make = partial(listen, self._methods, call, self._lapses.of(principal))
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
        work = self._work(call, session, principal)
        # As servers of those revisions do, where it is to look as if one were asked itself.
        alike = self._methods.only is not None and request.names("text/event-stream")
        answering = Answering(
            request=request, send=send, cancels_when_gone=False, begins_at_once=alike
        )
        with session.calls.under_way(call.id, answering.scope):
            await answering.run(work)
        return None

    async def _batch(
        self,
        body: bytes,
        request: HttpRequest,
        principal: Principal | None,
        send: Send,
        count: _Count,
    ) -> Reply | None:
        """Answer several messages at once (2025-03-26, "Batching").

        Together they take one place among the caller's requests, so that one is made after the
        other; how many a caller may make counts each.
        """
        session = self._session(request, principal)
        if session.version != BATCHED:
            words = f"{session.version} has no batches"
            raise RpcRefused(INVALID_REQUEST, words, status=400)
        batch = Batch.of(body)
        for _ in batch.requests[1:]:
            count()
        for message in batch.others:
            self._hear(message, session)
        if not batch.requests and not batch.refusals:
            return Reply.empty(202)

        async def work(before: Before | None) -> tuple[int, bytes] | None:
            answers = list(batch.refusals)
            for call in batch.requests:
                try:
                    made = self._work(call, session, principal)
                    with anyio.CancelScope() as scope, session.calls.under_way(call.id, scope):
                        answers.append((await made(before))[1])
                except RpcRefused as exc:
                    answers.append(refusal(call.id, exc))
            return (200, joined(answers)) if answers else None

        await Answering(request=request, send=send, cancels_when_gone=False).run(work)
        return None

    def _work(self, call: Request, session: Session, principal: Principal | None) -> _Work:
        """What makes the answer to one request of a session.

        :raises RpcRefused: there is no such method.
        """
        host = session.host

        def visitor(before: Before | None) -> Visitor:
            return Visitor(
                principal=principal,
                modern=False,
                offers=host.offers,
                log_level=host.log_level,
                tell=None if before is None else before.tell,
                ask=None if before is None else partial(host.ask, before.tell),
                tasks=session.version == TASKS,
            )

        make = made_by(self._methods, call, modern=False) or host.made_by(self._methods, call)
        if make is None:
            raise no_method()
        return lambda before: answer(call, make, visitor(before))

    @staticmethod
    def _hear(message: Any, session: Session) -> None:
        """Take what is not answered: a notification, or an answer to a question."""
        if isinstance(message, Success | Failure):
            session.host.on_answer(message)
        elif message.method == "notifications/cancelled":
            session.calls.on_cancelled(message.params)

    async def _initialize(self, call: Request, principal: Principal | None) -> Reply:
        agreed = agreed_version(call.params)
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

        lapse = self._lapses.of(principal)

        async def work(before: Before | None) -> None:
            assert before is not None
            say = saying(before.put)
            await until(lapse, partial(session.host.listen, self._methods, principal, say))

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
        if request.headers.get(VERSION, found.version) != found.version:
            # 2025-06-18, "Protocol Version Header".
            raise RpcRefused(INVALID_REQUEST, f"this session speaks {found.version}", status=400)
        return found


def _owner(principal: Principal | None) -> str | None:
    """Whose a session is: the same person with a newer token goes on with it."""
    return None if principal is None else principal.key
