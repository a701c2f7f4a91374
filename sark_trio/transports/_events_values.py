"""What event streams hand out: events, and snapshots of how streams are doing."""

from __future__ import annotations

from typing import Any, final

from attrs import field, frozen

from sark_trio import jsontext
from sark_trio.errors import ProtocolError
from sark_trio.machines.reconnect import Phase
from sark_trio.machines.sse import SSEEvent

__all__ = ["EventStatistics", "EventStreamStatistics", "ServerEvent"]


@final
@frozen
class ServerEvent:
    """One event of a stream."""

    #: Its type; ``message`` where the server named none.
    event_type: str
    #: Its data lines, joined by line feeds.
    data: str
    #: The id to go on from after this event; ``None`` where the server gives none.
    event_id: str | None = None
    #: How long the server asks to wait before a reconnection, milliseconds; ``None``: never said.
    retry: int | None = None

    @classmethod
    def of(cls, event: SSEEvent) -> ServerEvent:
        """The event that a parser found."""
        return cls(event.event, event.text, event.id or None, event.retry_ms)

    def json(self) -> Any:
        """The value of ``data``, which is JSON.

        :raises ProtocolError: it is not.
        """
        try:
            return jsontext.decode(self.data)
        except jsontext.JSONError as exc:
            raise ProtocolError(f"event {self.event_type!a}: {exc}", delivery="answered") from exc


@final
@frozen(kw_only=True)
class EventStreamStatistics:
    """A snapshot of one stream."""

    state: Phase
    #: Of the last event that its reader took: where a reconnection goes on.
    last_event_id: str | None
    #: Handed to the reader.
    events_received: int
    #: Had come before, and were dropped.
    duplicates: int
    #: Of types that the reader does not want, or without a word.
    filtered: int
    #: Came, and wait for the reader.
    waiting: int
    #: Connections on which the server began a stream.
    connections_made: int
    #: Times that a connection was lost, or was not to be had, and asked for again.
    reconnections: int
    #: Connections that broke, fell silent or were refused.
    errors: int


@final
@frozen(kw_only=True)
class EventStatistics:
    """A snapshot of all event streams of a client, those that have ended included."""

    #: Of the open stream that does best; ``disconnected`` where none is open.
    state: Phase
    events_received: int
    connections_made: int
    reconnections: int
    errors: int
    active_streams: int
    max_streams: int
    #: Of the event that a reader took last, in whatever stream. Each stream keeps its own.
    last_event_id: str | None
    #: The open ones.
    streams: tuple[EventStreamStatistics, ...] = field(repr=False)
