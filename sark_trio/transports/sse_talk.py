"""One event stream of the old HTTP+SSE transport, and the messages that are posted beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from sark_trio.errors import (
    ClientClosed,
    Delivery,
    GatewayError,
    HTTPStatusError,
    MessageTooLarge,
    ProtocolError,
    ReadTimeout,
    ServerDisconnected,
    SessionExpired,
)
from sark_trio.mcp import codec
from sark_trio.net.connection import Connection
from sark_trio.net.pool import ConnectionPool, Lease
from sark_trio.transports._http_answers import status_error_for
from sark_trio.transports._http_wire import Auth, Headers, RawHeaders, Sending, Wire
from sark_trio.transports._sse_events import EventReader
from sark_trio.transports.conversation import Conversation
from sark_trio.transports.outbox import Entry
from sark_trio.transports.switchboard import Call, Verdict

__all__ = ["SseTalk"]

#: From the stream's beginning to its first event, which servers send at once.
ENDPOINT_S: Final = 5.0

_GET_HEADERS: Final[RawHeaders] = (
    (b"Accept", b"text/event-stream"),
    (b"Cache-Control", b"no-store"),
)
_POST_HEADERS: Final[RawHeaders] = ((b"Content-Type", b"application/json"),)
#: What servers say to a message of a session that they do not know.
_UNKNOWN_SESSION: Final = frozenset({404, 410})


@final
@define(eq=False)
class _Message(Sending):
    """An entry of the outbox on its way."""

    entry: Entry = field(kw_only=True)
    _scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _withdrawn: bool = field(default=False, init=False)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._scope.__exit__(kind, value, trace)

    def begin(self) -> None:
        """See :meth:`Sending.begin`."""
        if self._withdrawn:
            # The connection came in the very turn in which its caller was told "not sent": the
            # cancellation would be noticed at the next checkpoint, and the write may have none.
            raise ClientClosed("taken back", delivery="not_sent")
        super().begin()

    def taken(self) -> None:
        """See :meth:`Sending.taken`."""
        self.entry.begin()

    def withdraw(self) -> bool:
        """Take it back, so that not a byte goes out from now on.

        ``False``: it has a connection, so some of it has to be taken to be out.
        """
        if self.begun:
            self.entry.begin()
            return False
        self._withdrawn = True
        self._scope.cancel()
        return True


@final
@define(eq=False, repr=False, kw_only=True)
class SseTalk(Conversation):
    """The conversation that lasts as long as one event stream.

    Each message is posted by a task of its own, for a server may answer on the stream before,
    or after, it answers the POST. Their number is bounded by that of the calls that wait.
    """

    url: str
    headers: Headers
    auth: Auth | None
    pool: ConnectionPool
    _posts: Wire = field(init=False)
    _events: EventReader = field(init=False)
    #: What is being posted.
    _posting: dict[Entry, _Message] = field(factory=dict, init=False)

    async def run(self, handshake: Callable[[], Awaitable[None]]) -> None:
        """See :meth:`Conversation.run`."""
        lease: Lease | None = None
        try:
            with self._opening as opening:
                lease = await self._open()
                opening.deadline = anyio.current_time() + ENDPOINT_S
                await self._await_endpoint(lease.connection)
            if self._verdict is not None:
                return
            if opening.cancelled_caught:
                text = f"{self.name}: no endpoint event within {ENDPOINT_S:g} s"
                raise ReadTimeout(text, delivery="not_sent")
            assert lease is not None
            async with anyio.create_task_group() as tasks:
                self.answer_in(tasks)
                tasks.start_soon(self._read, lease.connection)
                tasks.start_soon(self._write, tasks)
                await handshake()
                await self._condemned.wait()
                tasks.cancel_scope.cancel()
        finally:
            self.condemn(self._stopped)
            if lease is not None:
                lease.discard()

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Post one notification; returns when the server has it, so that nothing overtakes it.

        :raises GatewayError: as :meth:`Transport.notify`.
        """
        data = self._framed(codec.encode_notification(method, params))
        if self._verdict is not None:
            raise self._verdict("not_sent")
        await self._send(Sending(data))

    def condemn(self, verdict: Verdict) -> None:
        """See :meth:`Conversation.condemn`: what is not out by now must never be.

        Its callers are told so here, and may ask again; what posts it ends only in later turns.
        """
        if self._verdict is None:
            for message in self._posting.values():
                message.withdraw()
        super().condemn(verdict)

    def _abandon(self, call: Call, *, reason: str | None) -> None:
        message = None if call.entry is None else self._posting.get(call.entry)
        if message is not None and message.withdraw():
            reason = None
        super()._abandon(call, reason=reason)

    async def _open(self) -> Lease:
        wire = self._wire(self.url)
        lease, head = await wire.send(b"GET", _GET_HEADERS, Sending(b""), moves=True, stream=True)
        if head.status == 200 and head.content_type == "text/event-stream":
            lease.connection.listen()
            self._events = EventReader(wire.url, self.message_bytes_max)
            return lease
        lease.release()
        if head.status >= 400:
            raise status_error_for(head)
        kind = head.content_type[:80]
        raise ProtocolError(
            f"{self.name}: not an event stream: HTTP {head.status}, content type {kind!a}"
        )

    async def _await_endpoint(self, connection: Connection) -> None:
        while self._events.endpoint is None:
            piece = await connection.read_piece(self.message_bytes_max)
            if not piece:
                raise ServerDisconnected("the event stream ended before its first event")
            self._take(piece)
        self._posts = self._wire(str(self._events.endpoint))

    def _wire(self, url: str) -> Wire:
        return Wire(url, headers=self.headers, auth=self.auth, pool=self.pool)

    async def _read(self, connection: Connection) -> None:
        try:
            while piece := await connection.read_piece(self.message_bytes_max):
                self._take(piece)
        except GatewayError as exc:
            self.condemn(partial(self._over, exc))
        else:
            self.condemn(partial(self._over, None))

    def _take(self, piece: bytes) -> None:
        now, before = anyio.current_time(), self._events.strangers
        for message in self._events.feed(piece):
            if not self._board.receive(message, now):
                raise ProtocolError(f"{self.name} sends what is no MCP")
        self.tally.garbage += self._events.strangers - before

    async def _write(self, tasks: TaskGroup) -> None:
        while True:
            await self._outbox.wait_entry()
            if not self.alive:
                return  # condemned meanwhile: what still waits was said not to be sent
            entry = self._outbox.take()
            message = self._posting[entry] = _Message(bytes(entry.data), entry=entry)
            tasks.start_soon(self._post, message)

    async def _post(self, message: _Message) -> None:
        entry = message.entry
        try:
            with message:
                await self._send(message)
        except GatewayError as exc:
            if isinstance(exc, HTTPStatusError) and exc.status in _UNKNOWN_SESSION:
                text = f"{self.name} does not know our session any more: HTTP {exc.status}"
                self._fail(entry, SessionExpired(text, status=exc.status))
                self.condemn(self._forgotten)
            else:
                self._fail(entry, exc)
        finally:
            del self._posting[entry]

    async def _send(self, message: Sending) -> None:
        lease, head = await self._posts.send(b"POST", _POST_HEADERS, message)
        lease.release()
        if head.status >= 400:
            raise status_error_for(head)
        if head.status >= 300:
            raise ProtocolError(f"the server answered a message with HTTP {head.status}")

    def _fail(self, entry: Entry, error: GatewayError) -> None:
        """What was posted did not get through: whoever waits for an answer to it is told."""
        call = self.calls.peek(entry.call_id)
        if call is not None:
            self.calls.cancel(call.id)
            call.settle(error)

    def _over(self, cause: GatewayError | None, delivery: Delivery) -> GatewayError:
        """The error of one call where the stream ended with *cause*."""
        if isinstance(cause, MessageTooLarge):
            return MessageTooLarge(cause.message, limit_bytes=cause.limit_bytes, delivery=delivery)
        if isinstance(cause, ProtocolError):
            return ProtocolError(cause.message, delivery=delivery)
        how = "ended" if cause is None else f"broke: {cause.message}"
        return ServerDisconnected(f"the event stream of {self.name} {how}", delivery=delivery)

    def _forgotten(self, delivery: Delivery) -> GatewayError:
        return ServerDisconnected(
            f"{self.name} does not know our session any more", delivery=delivery
        )
