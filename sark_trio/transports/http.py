"""Streamable HTTP, both eras: MCP 2026-07-28 (stateless) and 2025-03-26 to 2025-11-25.

The caller's own task does its own I/O on a leased connection. The transport's task group only
owns what outlives a call: dials, the handshake, draining, answers to requests of the server's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, final

import anyio
import httpcore
from anyio.abc import TaskGroup, TaskStatus
from attrs import asdict

from sark_trio.errors import (
    ClientClosed,
    HTTPStatusError,
    ReadTimeout,
    ServerDisconnected,
    SessionExpired,
    TransportError,
)
from sark_trio.machines.pool import PoolOptions
from sark_trio.mcp.changes import LISTEN
from sark_trio.mcp.codec import encode_notification
from sark_trio.mcp.evidence import contradicts
from sark_trio.mcp.headers import modern_headers
from sark_trio.mcp.messages import Agreed, Failure, Notification, Request, Success
from sark_trio.mcp.session import Session, denies_session
from sark_trio.net.addresses import AddressCheck
from sark_trio.net.options import Timeouts
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions
from sark_trio.net.watch import DeadlineWatch
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports._http_answers import AnswerReader, Handlers, result_in
from sark_trio.transports._http_calls import Call, Identity, may_resend, mirrored_headers
from sark_trio.transports._http_endpoint import POST_HEADERS, Endpoint, session_headers
from sark_trio.transports._http_handshake import Handshake
from sark_trio.transports._http_streams import Streams
from sark_trio.transports._http_wire import Auth, Headers, RawHeaders, Wire, encode_headers
from sark_trio.transports.answering import Answering, Asker
from sark_trio.transports.base import Outgoing, Transport, TransportStatistics

__all__ = ["HttpTransport"]

#: Larger messages are refused; tool results beyond it belong into resources.
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
#: Without a byte on a stream of changes; servers are encouraged to send comments meanwhile
#: (2026-07-28, "Receiving Messages").
LISTEN_IDLE_S: Final = 300.0


@final
class HttpTransport(Transport):
    """The wire to one Streamable HTTP endpoint.

    :param url: the MCP endpoint, ``http`` or ``https``.
    :param headers: sent with every request, to the URL's exact origin and nowhere else.
    :param auth: asked for credentials before every request, and maybe told of refusals.
    :param tls: whom to trust.
    :param pool: limits of the connection pool.
    :param timeouts: time limits of connections and exchanges.
    :param message_bytes_max: largest message that the server may send.
    :param client_info: who we are: ``name`` and ``version``.
    :param capabilities: what we offer to the server.
    :param on_event: told each notification that belongs to no request; synchronous, must not
        block. What it raises is counted and forgotten.
    :param on_request: answers a legacy server's requests that come with no request of ours.
    :param pinned_version: speak this protocol version or fail.
    :param backend: where network streams come from; sockets by default.
    :param address_check: asked about every address that the host resolves to, before one of
        them is connected to. Sockets only.
    :param report: told of connections and sessions.
    :raises ValueError: a bad URL, header or limit.
    """

    kind = "http"

    def __init__(
        self,
        url: str,
        *,
        headers: Headers = (),
        auth: Auth | None = None,
        tls: TLSOptions | None = None,
        pool: PoolOptions | None = None,
        timeouts: Timeouts | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        client_info: Mapping[str, Any] | None = None,
        capabilities: Mapping[str, Any] | None = None,
        on_event: Callable[[Notification], None] | None = None,
        on_request: Asker | None = None,
        pinned_version: str | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
        address_check: AddressCheck | None = None,
        report: Reporter | None = None,
    ) -> None:
        if message_bytes_max < 1:
            raise ValueError("message_bytes_max must be positive")
        if backend is not None and address_check is not None:
            raise ValueError("address_check needs the default backend")
        info = dict(client_info or {"name": "sark_trio", "version": "0"})
        self._identity = Identity(info, dict(capabilities or {}), itertools.count(1))
        self._watch = DeadlineWatch()
        self._pool = ConnectionPool(
            backend=backend or AnyIOBackend(address_check=address_check, watch=self._watch),
            options=pool,
            timeouts=timeouts,
            tls=tls,
            report=report,
        )
        self._wire = Wire(url, headers=headers, auth=auth, pool=self._pool)
        self.is_held_up = self._wire.is_held_up
        self._reader = AnswerReader(message_bytes_max)
        self._counters = self._reader.counters
        self._endpoint = Endpoint(self._wire, self._reader, self._identity)
        self._handshake = Handshake(self._endpoint, pinned_version, report)
        self._streams = Streams(
            wire=self._wire, reader=self._reader, handshake=self._handshake, report=report
        )
        self._on_event, self._on_request = on_event, on_request
        self._answering: Answering | None = None
        self._group: TaskGroup | None = None
        self._closed = False
        self._closing = anyio.Event()
        self._ended = anyio.Event()

    # Life.

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own connections and tasks until closed or cancelled."""
        if self._closed or self._group is not None:
            raise ClientClosed("a transport runs once")
        try:
            async with anyio.create_task_group() as group:
                await group.start(self._watch.run)
                await self._wire.start(group)
                self._group, self._answering = group, Answering(group, self._on_request)
                task_status.started()
                async with anyio.create_task_group() as pool_group:
                    await pool_group.start(self._pool.run)
                    try:
                        await self._closing.wait()
                    finally:
                        # Before anybody learns that the connection under them was closed.
                        self._closed = True
                        self._streams.close()
                        session = self._handshake.close()
                    if session is not None:
                        await self._endpoint.end_session(session)
                    self._pool.shutdown()  # and its task ends when all is given back
                group.cancel_scope.cancel()
        finally:
            self._group = None
            self._ended.set()

    async def aclose(self) -> None:
        """Close; see :meth:`Transport.aclose`. At most a second and the pool's grace."""
        self._closed = True
        self._closing.set()
        if self._group is not None:
            await self._ended.wait()

    @property
    def agreed(self) -> Agreed | None:
        """What was agreed with the server, once it was."""
        return self._handshake.agreed

    @property
    def try_sse(self) -> bool:
        """Whether connecting failed such that the old HTTP+SSE transport may be worth a try."""
        return self._handshake.try_sse

    def statistics(self) -> TransportStatistics:
        """A snapshot of the counters."""
        counters = self._counters
        sessions = self._handshake.sessions.statistics()
        return TransportStatistics(
            requests=counters.requests,
            unmatched=counters.unmatched,
            garbage=counters.garbage,
            restarts=sessions.renewals,
            details={
                "pool": {**asdict(self._pool.statistics()), "draining": self._pool.draining},
                "callback_errors": counters.callback_errors,
                "server_requests": counters.server_requests,
            },
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._group is not None else "new"
        # Without path and query: they may hold a secret.
        return f"<HttpTransport {state} {self._wire.origin} {self._pool!r}>"

    # Calls.

    async def connect(self) -> Agreed:
        """Agree on an era; see :meth:`Transport.connect`."""
        return await self._handshake.connect(self._running())

    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """Send one request; see :meth:`Transport.request`."""
        self._counters.requests += 1
        group = self._running()
        try:
            agreed = self._handshake.agreed or await self._handshake.connect(group)
            answer = await self._exchange(outgoing, agreed, group)
            if contradicts(answer, modern=agreed.modern):
                # Under our hands (an upgrade, another replica)? Ask anew, try once more if so.
                self._handshake.forget(agreed)
                now = await self._handshake.connect(group)
                if now.version != agreed.version and await may_resend(outgoing, "version_changed"):
                    answer = await self._exchange(outgoing, now, group)
            return result_in(answer)
        except TransportError as exc:
            if self._closed:
                raise ClientClosed("the transport was closed", delivery=exc.delivery) from exc
            raise

    async def listen(self, outgoing: Outgoing) -> None:
        """Hear of changes; on the GET stream in a session. See :meth:`Transport.listen`."""
        if (await self.connect()).modern:
            await self.request(outgoing)
            return
        await self._streams.listen(self._running(), self._unasked(), outgoing.on_sent)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send one notification; see :meth:`Transport.notify`."""
        agreed = await self.connect()
        if agreed.modern:
            headers = encode_headers(modern_headers(agreed.version, method, params))
        else:
            headers = session_headers(await self._handshake.session(self._running()))
        await self._endpoint.post(encode_notification(method, params), headers)

    async def _exchange(
        self, outgoing: Outgoing, agreed: Agreed, group: TaskGroup
    ) -> Success | Failure | HTTPStatusError:
        try:
            if agreed.modern:
                return await self._modern_request(outgoing, agreed.version)
            return await self._legacy_request(outgoing, group)
        except HTTPStatusError as exc:
            return exc

    async def _modern_request(self, outgoing: Outgoing, version: str) -> Success | Failure:
        call = Call(outgoing, version, self._identity)
        names = modern_headers(version, outgoing.method, outgoing.params)
        headers = POST_HEADERS + encode_headers(names)
        if outgoing.headers:
            headers += mirrored_headers(outgoing.headers)
        if outgoing.trace is not None:
            headers += encode_headers(outgoing.trace.items())
        stream = outgoing.method == LISTEN
        lease, head = await self._wire.send(b"POST", headers, call, stream=stream)
        # Leaving early closes the connection, which is how the server is told to stop.
        with lease:
            to = Handlers(outgoing.on_notification)
            if stream:
                lease.connection.listen()
                to.idle_s = LISTEN_IDLE_S
            return await self._reader.read(lease.connection, head, call.request_id, to)

    async def _legacy_request(self, outgoing: Outgoing, group: TaskGroup) -> Success | Failure:
        session = await self._handshake.session(group)
        if self._on_request is not None:
            await self._streams.ready(group, session, self._unasked())
        answer = await self._in_session(outgoing, session)
        if answer is None:
            session = await self._handshake.renewed(session, group, retried=False)
            # The server refused before it looked at the request, so this is safe for any call.
            if not await may_resend(outgoing, "session_renewed"):
                raise SessionExpired("the session was renewed, the call not repeated", status=404)
            answer = await self._in_session(outgoing, session)
        if answer is None:
            await self._handshake.renewed(session, group, retried=True)
            raise AssertionError("a session that was lost twice is given up")
        return answer

    async def _in_session(self, outgoing: Outgoing, session: Session) -> Success | Failure | None:
        """The answer, or ``None`` where the server does not know the session any more."""
        call = Call(outgoing, session.version, self._identity)
        headers = session_headers(session)
        if outgoing.trace is not None:
            headers += encode_headers(outgoing.trace.items())
        asked: set[anyio.CancelScope] = set()
        take = partial(self._ask, outgoing.on_request, asked)
        to = Handlers(outgoing.on_notification, take, self._heard)
        to.answers = outgoing.on_request is not None
        self._reader.waiting[call] = to
        try:
            return await self._answer(call, session, headers, to)
        except BaseException as exc:
            gave_up = isinstance(exc, ReadTimeout | anyio.get_cancelled_exc_class())
            if gave_up and call.begun:
                await self._endpoint.tell_cancelled(call.request_id, session)
            raise
        finally:
            del self._reader.waiting[call]
            for scope in asked:
                scope.cancel()

    async def _answer(
        self, call: Call, session: Session, headers: RawHeaders, to: Handlers
    ) -> Success | Failure | None:
        lease, head = await self._wire.send(b"POST", POST_HEADERS + headers, call)
        try:
            with lease:
                if head.status == 404 and session.id is not None:
                    return None
                answer = await self._reader.read(lease.connection, head, call.request_id, to)
                lost = head.status == 400 and session.id is not None and denies_session(answer)
                return None if lost else answer
        except ServerDisconnected:
            if not to.last_event_id:
                raise
        return await self._streams.resume(self._running, session, call.request_id, to)

    def _unasked(self) -> Handlers:
        """For what belongs to no request of ours."""
        return Handlers(self._heard, partial(self._ask, None, None))

    def _ask(
        self, ask: Asker | None, asked: set[anyio.CancelScope] | None, request: Request
    ) -> None:
        if self._answering is not None and not self._closed:
            self._answering.take(request, self._reply, ask, asked)

    async def _reply(self, body: bytes) -> None:
        session = await self._handshake.session(self._running())
        await self._endpoint.post(body, session_headers(session))

    def _heard(self, notification: Notification) -> None:
        if notification.method == "notifications/cancelled" and self._answering is not None:
            self._answering.withdraw(notification.params.get("requestId"))
        elif self._on_event is not None:
            self._on_event(notification)

    def _running(self) -> TaskGroup:
        if self._closed or self._group is None:
            raise ClientClosed("the transport is closed, or not running")
        return self._group
