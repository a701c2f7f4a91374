"""Event streams of the session era: what a server says unasked, and answers cut off half-way.

MCP 2025-03-26 to 2025-11-25, "Listening for Messages from the Server" and "Resumability and
Redelivery": one GET opens the first, and one with ``Last-Event-ID`` goes on with the second.
Both are driven by :class:`~sark_trio.transports._events_feed.Feed`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final, final

import anyio
from anyio.abc import TaskGroup
from attrs import define, evolve, field

from sark_trio.errors import GatewayError, ProtocolError, ServerDisconnected
from sark_trio.machines.backoff import RetryConfig, backoff
from sark_trio.machines.reconnect import ReconnectOptions
from sark_trio.machines.streams import RETRY_S_MAX, RETRY_S_MIN
from sark_trio.mcp.messages import Failure, RequestId, Success
from sark_trio.mcp.session import Session
from sark_trio.net.framing import ResponseHead
from sark_trio.net.pool import Lease
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports._events_feed import Feed, Source
from sark_trio.transports._http_answers import AnswerReader, Handlers
from sark_trio.transports._http_endpoint import session_headers
from sark_trio.transports._http_handshake import Handshake
from sark_trio.transports._http_wire import Sending, Wire

__all__ = ["Streams"]

#: For a server to begin the stream that it may ask us something on, once in a session.
READY_S: Final = 2.0
#: Without a byte on it. Quiet is what it mostly is, and few servers send comments.
HEAR_IDLE_S: Final = 300.0
_ACCEPT: Final = ((b"Accept", b"text/event-stream"),)
_SENDABLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?")


@final
@define(eq=False)
class _Ear:
    """The one stream on which a server says what it says unasked, and who cares."""

    is_open: bool = False
    listeners: set[Callable[[], None]] = field(factory=set)
    #: It is open, or never will be.
    begun: anyio.Event = field(factory=anyio.Event)
    over: anyio.Event = field(factory=anyio.Event)
    error: GatewayError | None = None

    def open(self) -> None:
        self.is_open = True
        for listener in tuple(self.listeners):
            if self.begun.is_set():
                listener()
        self.begun.set()


@final
@define(eq=False, kw_only=True)
class Streams:
    """The GET streams of one legacy endpoint.

    :param jitter: draws from [0, 1).
    :param report: told of streams.
    """

    wire: Wire
    reader: AnswerReader
    handshake: Handshake
    jitter: Callable[[], float] = field(default=random.random)
    _ear: _Ear | None = field(default=None, init=False)
    _feed: Feed | None = field(default=None, init=False)
    #: The session in which the stream was last waited for.
    _tried: int = field(default=0, init=False)
    report: Reporter | None = None

    async def resume(
        self,
        running: Callable[[], TaskGroup],
        session: Session,
        request_id: RequestId,
        to: Handlers,
    ) -> Success | Failure:
        """The answer to *request_id*, whose stream broke after the event that *to* noted.

        :param running: the transport's task group; raises ClientClosed once that is closed.
        :raises ServerDisconnected: the server does not go on with it, or refuses to.
        """
        if _SENDABLE.fullmatch(to.last_event_id) is None:
            raise ServerDisconnected("the event stream broke at an id that cannot be sent back")
        # "The client MUST respect the retry field" (2025-11-25).
        await anyio.sleep(self._delay_s(to.retry_ms))
        feed = Feed(
            Source(
                name="the response",
                open=lambda last_id: self._open(session, last_id),
                report=self.report,
            ),
            ReconnectOptions(resume_only=True),
            self.jitter,
            to.last_event_id,
            to.seen or (),
        )
        try:
            answer = await self._follow(running(), feed, request_id, to)
        except GatewayError as exc:
            if exc.delivery == "unknown":
                raise
            # That is how far the GET came. The request itself was sent long ago.
            text = f"the event stream broke and does not go on: {exc.message}"
            raise ServerDisconnected(text, delivery="unknown") from exc
        if answer is None:
            raise ServerDisconnected("the event stream ended without the answer")
        return answer

    async def ready(self, group: TaskGroup, session: Session, to: Handlers) -> None:
        """Have the stream open before something is sent in *session*, if there is to be one.

        Servers drop what they would say on it while it is not there. Waited for once in a
        session, and not for long: many servers offer none.
        """
        if session.generation == self._tried:
            return
        self._tried = session.generation
        ear = self._attend(group, to)
        with anyio.move_on_after(READY_S):
            await ear.begun.wait()

    async def listen(
        self, group: TaskGroup, to: Handlers, on_open: Callable[[], None] | None
    ) -> None:
        """Have the stream open, and wait until it is lost.

        :param on_open: told of the stream, and again when it comes back and does not go on where
            it ended, such as in a new session, which was not asked to watch anything.
        :raises HTTPStatusError: 405: the server offers no such stream.
        :raises GatewayError: it broke, and did not come back.
        """
        ear = self._attend(group, to)
        if on_open is not None:
            ear.listeners.add(on_open)
        try:
            await ear.begun.wait()
            if ear.is_open and on_open is not None:
                on_open()
            await ear.over.wait()
        finally:
            if on_open is not None:
                ear.listeners.discard(on_open)
        error = ear.error or ServerDisconnected("the server ended its stream")
        raise error.twin()

    def close(self) -> None:
        """End the stream, if it is there."""
        if self._feed is not None:
            self._feed.close()

    def _attend(self, group: TaskGroup, to: Handlers) -> _Ear:
        ear = self._ear
        if ear is None or ear.over.is_set():
            ear = self._ear = _Ear()
            group.start_soon(self._hear, group, ear, to)
        return ear

    async def _hear(self, group: TaskGroup, ear: _Ear, to: Handlers) -> None:
        """Hand on what the server says unasked, until it wants no more of it."""
        try:
            session = await self.handshake.session(group)

            async def renew() -> None:
                nonlocal session
                session = await self.handshake.renewed(session, group, retried=False)

            source = Source(
                name="the server's stream",
                open=lambda last_id: self._open_again(session, last_id, ear),
                renew=renew,
                on_gap=ear.open,
            )
            options = ReconnectOptions(sessions=session.id is not None, idle_s=HEAR_IDLE_S)
            self._feed = Feed(source, options, self.jitter)
            await self._follow(group, self._feed, None, to, ear.open)
        except GatewayError as exc:
            ear.error = exc
        finally:
            ear.is_open = False
            ear.begun.set()
            ear.over.set()

    async def _follow(
        self,
        group: TaskGroup,
        feed: Feed,
        request_id: RequestId | None,
        to: Handlers,
        on_open: Callable[[], None] | None = None,
    ) -> Success | Failure | None:
        group.start_soon(feed.run)
        try:
            await feed.connected()
            if on_open is not None:
                on_open()
            while (event := await feed.receive()) is not None:
                answer = self.reader.take(event, request_id, to)
                if answer is not None:
                    return answer
            return None
        finally:
            feed.close()

    async def _open(
        self, session: Session, last_event_id: str | None
    ) -> tuple[Lease, ResponseHead]:
        headers = _ACCEPT + session_headers(session)
        if last_event_id is not None:
            if _SENDABLE.fullmatch(last_event_id) is None:
                raise ProtocolError("the server's last event id cannot be sent back to it")
            headers += ((b"Last-Event-ID", last_event_id.encode()),)
        return await self.wire.send(b"GET", headers, Sending(b""), stream=True)

    async def _open_again(
        self, session: Session, last_event_id: str | None, ear: _Ear
    ) -> tuple[Lease, ResponseHead]:
        lease, head = await self._open(session, last_event_id)
        if head.status == 400 and session.id is not None and ear.is_open:
            # The same request was right before, so it is the session: see denies_session.
            head = evolve(head, status=404)
        return lease, head

    def _delay_s(self, retry_ms: int | None) -> float:
        if retry_ms is None:
            return backoff(RetryConfig(), 1, self.jitter())
        return min(max(retry_ms / 1000, RETRY_S_MIN), RETRY_S_MAX)
