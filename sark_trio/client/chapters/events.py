"""What happens at the gateway, as it happens: its event streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from anyio.abc import TaskGroup

from sark_trio.client.chapters.base import Chapter
from sark_trio.client.link import GatewayLink
from sark_trio.machines.reconnect import Phase
from sark_trio.machines.retry import RetryConfig
from sark_trio.telemetry.events import GATEWAY
from sark_trio.telemetry.hooks import Emitter, Reporter
from sark_trio.transports.events import (
    EVENTS,
    EventStatistics,
    EventStream,
    EventStreams,
    EventStreamStatistics,
    ServerEvent,
    Token,
)

__all__ = [
    "EventStatistics",
    "EventStream",
    "EventStreamStatistics",
    "Events",
    "Phase",
    "ServerEvent",
    "event_streams",
]


class Events(Chapter):
    """The gateway's event streams. They only listen: no call of a tool travels on them."""

    #: ``None``: the client has no gateway.
    _events: EventStreams | None

    def stream_events(
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
        """The events of one endpoint of the gateway: ``async with``, and inside ``async for``.

        Entering waits until the gateway has begun the stream, so that nothing which happens
        afterwards is missed. A connection that is lost is replaced, and the stream goes on after
        the last event that was taken; no event is handed out twice. The iteration ends when the
        block is left, the stream or the client closed.

        :param endpoint: a path below the gateway's URL, or a whole URL of the same origin.
        :param event_types: the types that are wanted; default: all.
        :param user_token: bearer token; or an async callable that is asked for one before each
            connection. Like the client's ``api_key`` it goes to the gateway's exact origin.
        :param last_event_id: go on after this event, such as the last one of an earlier run.
        :param reconnects_max: connections in a row without a new event, after the first, until
            the stream is given up; 0 never reconnects, and ends where the gateway ends it.
        :param idle_s: seconds without a byte, comments included, until a connection is given up.
        :param retry: delays between connections where the gateway asks for none; default: 1 s,
            doubling up to 30 s, with jitter. What the gateway asks for is kept to 0.1-30 s.
        :return: entering it and iterating raise :class:`~sark_trio.errors.GatewayError`:
            ``HTTPStatusError`` where the gateway refuses, ``ProtocolError`` where what it sends
            is no event stream, ``Overloaded`` where too many streams are open, otherwise the
            error of the last connection, with ``attempts``.
        :raises UsageError: an argument that cannot be, no gateway, or a client that is not open.
        :raises TransportNotAvailableError: the transport mode forbids it.
        """
        self._engine.open_tasks()
        self._gateway.check("events", "stream_events")
        self._gateway.base_url("stream_events")  # raises where there is none
        assert self._events is not None
        return self._events.stream(
            endpoint,
            event_types,
            user_token=user_token,
            last_event_id=last_event_id,
            reconnects_max=reconnects_max,
            idle_s=idle_s,
            retry=retry,
        )

    def event_statistics(self) -> EventStatistics | None:
        """A snapshot of all event streams; ``None``: the client has no gateway."""
        return None if self._events is None else self._events.statistics()


def event_streams(
    link: GatewayLink,
    tasks: Callable[[], TaskGroup],
    jitter: Callable[[], float],
    emitter: Emitter | None = None,
) -> EventStreams | None:
    """The event streams of the gateway that *link* leads to, living in the group of *tasks*."""
    if link.url is None:
        return None
    return EventStreams(
        url=link.url,
        pool=link.pool,
        tasks=tasks,
        api_key=link.api_key,
        jitter=jitter,
        report=None if emitter is None else Reporter(GATEWAY, emitter.emit),
    )
