"""A gateway's event streams: ``GET`` with ``Accept: text/event-stream``, for as long as wanted.

::

    async with streams.stream("/api/v1/events", {"tool_invoked"}) as events:
        async for event in events:
            print(event.event_id, event.json())

Each stream has a task that connects, reads and reconnects (:mod:`._events_feed`), an id to go on
from, and counters of its own. It only listens: no call of any kind travels on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Final, Self, final

import anyio
from anyio.abc import TaskGroup
from attrs import asdict, define, evolve, field

from sark_trio.errors import Overloaded, UsageError
from sark_trio.machines.checks import whole
from sark_trio.machines.reconnect import Phase, ReconnectOptions
from sark_trio.machines.retry import RetryConfig
from sark_trio.net.pool import ConnectionPool
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports._events_feed import Feed, Source
from sark_trio.transports._events_values import (
    EventStatistics,
    EventStreamStatistics,
    ServerEvent,
)
from sark_trio.transports._events_wire import EventsWire, Token, check_id

__all__ = [
    "EVENTS",
    "EventStatistics",
    "EventStream",
    "EventStreamStatistics",
    "EventStreams",
    "ServerEvent",
    "Token",
]

#: Where a gateway's events are, unless one says otherwise.
EVENTS: Final = "/api/v1/events"
#: Open streams of one client: each holds a connection that calls cannot use.
STREAMS_MAX: Final = 20
#: For the task of a stream to end once it is told to; what it then does, it does without waiting.
CLOSE_S: Final = 1.0
#: What a client as a whole is doing is what the best of its streams does.
_BEST_FIRST: Final = (Phase.CONNECTED, Phase.RECONNECTING, Phase.CONNECTING)


@define
class _Totals:
    """Of streams that have ended; and the id of the event that was taken last of all."""

    events_received: int = 0
    connections_made: int = 0
    reconnections: int = 0
    errors: int = 0
    last_event_id: str | None = None

    def add(self, one: EventStreamStatistics) -> None:
        self.events_received += one.events_received
        self.connections_made += one.connections_made
        self.reconnections += one.reconnections
        self.errors += one.errors


@final
@define(eq=False, repr=False)
class EventStream:
    """The events of one endpoint: ``async with`` it, and inside ``async for``.

    Entering waits until the gateway has begun the stream: what happens from then on is in it.
    Leaving closes the connection. Events go to one task at a time; everything else may be called
    from any.
    """

    _feed: Feed
    #: Has it driven; what is returned is set when that has ended.
    _start: Callable[[Feed], anyio.Event]
    _totals: _Totals
    _ended: anyio.Event | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        if self._ended is not None:
            raise UsageError("an event stream is entered once; open another one")
        self._ended = self._start(self._feed)
        try:
            await self._feed.connected()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerEvent:
        """The next event. The iteration ends when we close the stream, or the client.

        It also ends where the gateway ends the stream, if that is not to be reconnected.

        :raises GatewayError: the stream is lost: refused, silent, broken, or ended too often in a
            row without a new event. The error of the last connection, with ``attempts``.
        """
        event = await self._feed.receive()
        if event is None:
            raise StopAsyncIteration
        self._totals.last_event_id = event.id or self._totals.last_event_id
        return ServerEvent.of(event)

    async def aclose(self) -> None:
        """End the stream, from any task; events that came and were not taken are dropped.

        Idempotent. Returns when its connection is closed.
        """
        self._feed.close()
        if self._ended is not None:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_S):
                await self._ended.wait()

    @property
    def state(self) -> Phase:
        """``disconnected``, ``connecting``, ``connected``, ``reconnecting`` or ``closed``."""
        return self._feed.phase

    @property
    def last_event_id(self) -> str | None:
        """The id of the event that was taken last: where this stream, or another one, goes on."""
        return self.statistics().last_event_id

    def statistics(self) -> EventStreamStatistics:
        """A snapshot of state and counters."""
        return self._feed.statistics()

    def __repr__(self) -> str:
        return f"<EventStream {self.state} {self._feed.source.name}>"


@final
@define(eq=False, repr=False, kw_only=True)
class EventStreams:
    """Every event stream of one gateway.

    :param url: base URL of the gateway.
    :param pool: connections to it; somebody runs it.
    :param tasks: asked for the task group that streams live in, each time that one is opened.
        Cancelling that ends them.
    :param api_key: sent as ``X-API-Key``, to the URL's exact origin and nowhere else.
    :param streams_max: streams that may be open at once, 1 to 20.
    :param jitter: draws from [0, 1); spreads reconnections.
    :param report: told of streams that connect, and reconnect.
    :raises ValueError: a bad URL, key or limit.
    """

    url: str = field(repr=False)
    pool: ConnectionPool
    tasks: Callable[[], TaskGroup]
    api_key: str | None = None
    streams_max: int = field(default=STREAMS_MAX, validator=whole(1, STREAMS_MAX))
    jitter: Callable[[], float] = random.random
    report: Reporter | None = None
    _wire: EventsWire = field(init=False)
    #: By identity: streams of one endpoint are as many as they are.
    _open: set[Feed] = field(factory=set, init=False)
    _totals: _Totals = field(factory=_Totals, init=False)

    def __attrs_post_init__(self) -> None:
        self._wire = EventsWire.to(self.url, api_key=self.api_key, pool=self.pool)

    def stream(
        self,
        endpoint: str = EVENTS,
        event_types: Iterable[str] | None = None,
        *,
        user_token: Token | None = None,
        last_event_id: str | None = None,
        reconnects_max: int = 5,
        idle_s: float = 60.0,
        retry: RetryConfig | None = None,
    ) -> EventStream:
        """The events of *endpoint*, for ``async with``; nothing is sent before that.

        :param endpoint: a path below the gateway's URL, or a whole URL of the same origin.
        :param event_types: the types that are wanted; ``None``: all. The gateway sends all
            nonetheless.
        :param user_token: bearer token; or an async callable that is asked for one before each
            connection.
        :param last_event_id: go on after this event.
        :param reconnects_max: connections in a row without a new event, after the first; 0 never
            reconnects.
        :param idle_s: seconds without a byte, comments included, until a connection is given up.
        :param retry: the delays between connections where the gateway asks for none.
        :raises UsageError: an argument that cannot be.
        """
        url = self._wire.target(endpoint)
        if isinstance(event_types, str):
            raise UsageError("event_types is a set of types, not one: {...}")
        if last_event_id is not None:
            check_id(last_event_id)
        try:
            options = ReconnectOptions(
                reconnects_max=reconnects_max, idle_s=idle_s, schedule=retry or RetryConfig()
            )
        except (TypeError, ValueError) as exc:
            raise UsageError(str(exc)) from exc
        wanted = None if event_types is None else frozenset(event_types)
        source = Source(
            name=f"{url.origin}{url.target.partition('?')[0]}",
            open=partial(self._wire.open, url, user_token),
            wants=lambda event: wanted is None or event.event in wanted,
            authenticate=None if user_token is None or isinstance(user_token, str) else _at_hand,
            report=self.report,
        )
        feed = Feed(source, options, self.jitter, last_event_id or "")
        return EventStream(feed, self._start, self._totals)

    def statistics(self) -> EventStatistics:
        """A snapshot of all streams, those that have ended included."""
        streams = tuple(feed.statistics() for feed in self._open)
        sum_ = evolve(self._totals)
        for one in streams:
            sum_.add(one)
        states = {one.state for one in streams}
        return EventStatistics(
            state=next((each for each in _BEST_FIRST if each in states), Phase.DISCONNECTED),
            active_streams=len(streams),
            max_streams=self.streams_max,
            streams=streams,
            **asdict(sum_),
        )

    def __repr__(self) -> str:
        return f"<EventStreams {self._wire.base.origin} {len(self._open)}/{self.streams_max}>"

    def _start(self, feed: Feed) -> anyio.Event:
        tasks = self.tasks()
        if len(self._open) >= self.streams_max:
            raise Overloaded(
                f"{self._wire.base.origin}: {len(self._open)} event streams are open, which is "
                "the limit; leave one first",
                reason="streams_full",
            )
        ended = anyio.Event()
        self._open.add(feed)
        tasks.start_soon(self._drive, feed, ended, name=f"events of {feed.source.name}")
        return ended

    async def _drive(self, feed: Feed, ended: anyio.Event) -> None:
        try:
            await feed.run()
        finally:
            self._open.discard(feed)
            self._totals.add(feed.statistics())
            ended.set()


async def _at_hand() -> None:
    """The token is asked for anew before each connection anyway."""
