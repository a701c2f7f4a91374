"""One event stream across all its connections: the driver of :mod:`sark_trio.machines.reconnect`.

Theory of operation. :meth:`Feed.run` connects, reads, and connects again when and as often as
the machine says. The events of one read wait in a buffer; its head is *offered*, and with the
reader's taking it (:meth:`Feed.receive`) its id is committed. Nothing more is read, and no new
connection made, before the buffer is empty: what bounds it is the size of one read, and a reader
that is slow slows the server through the kernel's own buffers.

Knows neither URLs nor credentials nor what events mean: its :class:`Source` does. So the streams
of a gateway's events and of an MCP server's own messages (2025-03-26 to 2025-11-25, "Listening
for Messages from the Server") are both driven from here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal, final

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from attrs import define, field, frozen

from sark_trio.errors import ClientClosed, GatewayError, UsageError
from sark_trio.machines.reconnect import (
    Authenticate,
    Connect,
    Deliver,
    End,
    Phase,
    ReconnectOptions,
    Reconnector,
    RenewSession,
    Stop,
    Wait,
    judge,
)
from sark_trio.machines.sse import SSEEvent, SSEParser, TooLarge
from sark_trio.net.connection import Connection
from sark_trio.net.framing import ResponseHead
from sark_trio.net.pool import Lease
from sark_trio.telemetry.events import StreamConnected, StreamReconnecting
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports._events_ends import (
    Lost,
    broken,
    ended,
    not_opened,
    not_opened_in,
    refused,
    silent,
    too_large,
)
from sark_trio.transports._events_values import EventStreamStatistics

__all__ = ["Feed", "Source"]

#: For a connection, credentials and the head of the response together.
OPEN_S: Final = 30.0
#: Of one read, decoded. We ask for no content coding; where there is one, a read may grow.
PIECE_BYTES_MAX: Final = 1024 * 1024

_Kind = Literal["message", "filtered", "priming"]


@final
@frozen(kw_only=True)
class Source:
    """Where the events of a feed come from."""

    #: For messages; holds no secret.
    name: str
    #: Sends a request for the stream, after the event of that id if there is one: the connection
    #: that is now the feed's, and the response's head, whatever it says.
    open: Callable[[str | None], Awaitable[tuple[Lease, ResponseHead]]]
    #: Whether the reader wants an event. The others are dropped, and their ids counted.
    wants: Callable[[SSEEvent], bool] = lambda _event: True
    #: Makes a new session where the server has forgotten the old one (404).
    renew: Callable[[], Awaitable[None]] | None = None
    #: Has new credentials at hand when it returns (401).
    authenticate: Callable[[], Awaitable[None]] | None = None
    #: Told of a connection that does not go on where the one before it ended: nobody knows what
    #: was said in between.
    on_gap: Callable[[], None] | None = None
    #: Told of connections that begin, and of waits for the next one.
    report: Reporter | None = None


@final
@define(eq=False, repr=False)
class Feed:
    """The events of one *source*: :meth:`run` in a task of their owner's, :meth:`receive` in any.

    :param options: how it reconnects.
    :param jitter: draws from [0, 1).
    :param last_event_id: where to begin; ``""``: wherever the server does.
    :param seen: ids of events that were there before, which are not told again.
    """

    source: Source
    options: ReconnectOptions = field(factory=ReconnectOptions)
    jitter: Callable[[], float] = random.random
    last_event_id: str = ""
    seen: Iterable[str] = ()
    _machine: Reconnector = field(init=False)
    #: What came and was not taken. The machine has said "deliver" of the first of them.
    _waiting: deque[tuple[SSEEvent, _Kind]] = field(factory=deque, init=False)
    _opened: int = field(default=0, init=False)
    _errors: int = field(default=0, init=False)
    #: Why it is over, until somebody was told.
    _failure: Exception | None = field(default=None, init=False)
    _scope: anyio.CancelScope | None = field(default=None, init=False)
    #: For :meth:`connected`: it was, once, or is over.
    _begun: anyio.Event = field(factory=anyio.Event, init=False)
    #: For the reader: there is something for it. ``None``: nobody waits.
    _news: anyio.Event | None = field(default=None, init=False)
    #: For the driver: all has been taken.
    _taken: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._machine = Reconnector(self.options, last_event_id=self.last_event_id, seen=self.seen)

    # The reader's side.

    @property
    def phase(self) -> Phase:
        """Where the stream stands; ``closed`` for good."""
        return self._machine.phase

    async def connected(self) -> None:
        """Wait until the server has begun the stream, or it is closed before that.

        :raises GatewayError: it never will begin.
        """
        await self._begun.wait()
        if not self._opened:  # else it is for whoever reads to hear how it went on
            self._raise()

    async def receive(self) -> SSEEvent | None:
        """The next event; from now on the reader has it. ``None``: the stream is over.

        Cancelled, nothing was taken.

        :raises GatewayError: the stream failed; once, then it is over.
        :raises UsageError: another task waits here already.
        """
        await checkpoint()
        while not self._waiting:
            if self.phase is Phase.CLOSED:
                self._raise()
                return None
            if self._news is not None:
                raise UsageError("two tasks wait for the events of one stream")
            self._news = anyio.Event()
            try:
                await self._news.wait()
            finally:
                self._news = None
        event, _ = self._waiting.popleft()
        self._machine.on_handed_over(anyio.current_time(), event.id)
        self._offer()
        return event

    def close(self) -> None:
        """End it, from any task; what waits is dropped. Idempotent.

        :meth:`run` returns, and closes its connection, as soon as it is scheduled.
        """
        self._machine.stop(anyio.current_time())
        self._waiting.clear()
        if self._scope is not None:
            self._scope.cancel()
        self._announce()

    def statistics(self) -> EventStreamStatistics:
        """A snapshot of state and counters."""
        machine = self._machine.statistics()
        return EventStreamStatistics(
            state=machine.phase,
            last_event_id=machine.last_event_id,
            events_received=machine.delivered,
            duplicates=machine.duplicates,
            filtered=machine.skipped,
            waiting=len(self._waiting),
            connections_made=self._opened,
            reconnections=machine.reconnects,
            errors=self._errors,
        )

    def __repr__(self) -> str:
        return f"<Feed {self.source.name} {self.phase} waiting={len(self._waiting)}>"

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _announce(self) -> None:
        if self._news is not None:
            self._news.set()
        if self.phase is Phase.CLOSED:
            self._begun.set()

    # The driver's side.

    async def run(self) -> None:
        """Drive the stream until it is over. Raises nothing: a failure is its reader's to hear."""
        try:
            with anyio.CancelScope() as self._scope:
                await self._keep_connected()
        except Exception as exc:  # noqa: BLE001 - whatever it was, no other stream shall end by it
            self._failure = exc
        finally:
            self.close()

    async def _keep_connected(self) -> None:
        machine = self._machine
        while True:
            step = machine.begin(anyio.current_time())
            if isinstance(step, Wait):
                self._tell_wait(step.seconds)
                await anyio.sleep(step.seconds)
                continue
            if not isinstance(step, Connect):
                return None  # closed before it began
            lost = await self._connection(step.last_event_id)
            self._errors += lost.end is not End.EOF
            match machine.on_closed(
                anyio.current_time(), lost.end, self.jitter(), lost.retry_after_s
            ):
                case RenewSession():
                    await self._mend(self.source.renew, lost)
                case Authenticate():
                    await self._mend(self.source.authenticate, lost)
                case Stop() as stop:
                    return self._give_up(stop, lost)

    def _tell_wait(self, wait_s: float) -> None:
        if (report := self.source.report) is not None:
            count = self._machine.statistics().reconnects
            report.emit(StreamReconnecting(server=report.server, attempt=count, wait_s=wait_s))

    async def _mend(self, how: Callable[[], Awaitable[None]] | None, lost: Lost) -> None:
        if how is None:
            raise lost.error
        await how()

    def _give_up(self, stop: Stop, lost: Lost) -> None:
        if isinstance(lost.error, ClientClosed):
            return
        if stop.reason == "exhausted":
            if lost.end is End.EOF and self.options.reconnects_max == 0:
                return  # it ended as a stream does, and nobody asked for more
            # The last error tells most; how many came before it is in its fields.
            lost.error.attempts = self._machine.statistics().fruitless + 1
            lost.error.add_note(f"given up after {lost.error.attempts} without a new event")
        raise lost.error

    # One connection.

    async def _connection(self, last_event_id: str | None) -> Lost:
        name = self.source.name
        try:
            with anyio.fail_after(OPEN_S):
                lease, head = await self.source.open(last_event_id)
        except GatewayError as exc:
            return not_opened(exc)
        except TimeoutError:
            return not_opened_in(OPEN_S, name)
        try:
            end = judge(head.status, head.get(b"content-type"))
            if end is not None:
                return refused(end, head, name)
            return await self._listen(lease.connection, resumes=last_event_id is not None)
        finally:
            # Now, and not when the pool has tried to drain it: one connection lives at a time.
            lease.discard()

    async def _listen(self, connection: Connection, *, resumes: bool) -> Lost:
        name, machine, parser = self.source.name, self._machine, SSEParser()
        connection.listen()  # how long silence may last is the machine's to say
        machine.on_connected(anyio.current_time())
        if (report := self.source.report) is not None:
            report.emit(StreamConnected(server=report.server, resumed=self._opened > 0))
        self._opened += 1
        self._begun.set()
        if self._opened > 1 and not resumes and self.source.on_gap is not None:
            self.source.on_gap()
        while True:
            # A read that need not wait cannot be cancelled, and there may always be more to read.
            await checkpoint_if_cancelled()
            silence_ends = machine.next_deadline()
            assert silence_ends is not None, "an event is in the reader's hands"
            piece: bytes | None = None
            try:
                with anyio.CancelScope(deadline=silence_ends):
                    piece = await connection.read_piece(PIECE_BYTES_MAX)
            except GatewayError as exc:
                return broken(exc)
            if piece is None:
                return silent(self.options.idle_s, name)
            if not piece:
                return ended(name)
            machine.on_bytes(anyio.current_time())
            excess = self._take_in(parser, piece)
            await self._all_taken()
            if excess is not None:
                return too_large(excess, name)

    def _take_in(self, parser: SSEParser, piece: bytes) -> TooLarge | None:
        """Line up the events that *piece* completes."""
        position, excess = parser.last_event_id, None
        for event in parser.feed(piece):
            if isinstance(event, TooLarge):
                excess = event
            else:
                position = event.id
                self._waiting.append((event, self._kind(event)))
        if parser.last_event_id != position:
            # A block with an id and no data is no event, but moves the position all the same.
            moved = SSEEvent("message", b"", parser.last_event_id, None)
            self._waiting.append((moved, "priming"))
        self._machine.on_retry_field(parser.retry_ms)
        self._offer()
        return excess

    def _kind(self, event: SSEEvent) -> _Kind:
        # Of no type and without data it says nothing: it only gives an id to resume from.
        if not event.data and event.event == "message":
            return "priming"
        return "message" if self.source.wants(event) else "filtered"

    def _offer(self) -> None:
        """Go on to the next event that is the reader's; what is not is dealt with right here."""
        while self._waiting:
            event, kind = self._waiting[0]
            step = self._machine.on_event(anyio.current_time(), event.id, kind)
            if isinstance(step, Deliver):
                self._announce()
                return
            self._waiting.popleft()
        self._taken.set()

    async def _all_taken(self) -> None:
        while self._waiting:
            self._taken = anyio.Event()
            await self._taken.wait()
