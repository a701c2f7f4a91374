"""The event stream of the old HTTP+SSE transport (2024-11-05): an address, then messages.

Pure: bytes in, messages out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from attrs import define, field

from sark_trio.errors import MessageTooLarge, ProtocolError
from sark_trio.machines.sse import SSEEvent, SSEParser, TooLarge
from sark_trio.net.url import ServerURL, redirect_target

__all__ = ["EventReader"]


@final
@define(eq=False, repr=False)
class EventReader:
    """Reads one stream.

    :param url: where it came from.
    :param message_bytes_max: largest message.
    """

    url: ServerURL
    message_bytes_max: int
    #: Where messages are to be posted to: what the first event says.
    endpoint: ServerURL | None = field(default=None, init=False)
    #: Events that were no messages, and were dropped.
    strangers: int = field(default=0, init=False)
    _parser: SSEParser = field(init=False)

    def __attrs_post_init__(self) -> None:
        limit = self.message_bytes_max
        self._parser = SSEParser(line_bytes_max=limit, event_bytes_max=limit)

    def __repr__(self) -> str:
        return f"<EventReader {'open' if self.endpoint else 'waiting'} {self._parser!r}>"

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Take *piece*; the messages that it completes, each handed out before the next is read.

        :raises ProtocolError: the first event is no ``endpoint``, it leads to another origin,
            or there is a second one. Nothing may be sent on such a server's word.
        :raises MessageTooLarge: more than the limit.
        """
        for event in self._parser.feed(piece):
            if isinstance(event, TooLarge):
                raise MessageTooLarge(
                    f"the server sent an event {event.what} of more than {event.limit_bytes} bytes",
                    limit_bytes=event.limit_bytes,
                )
            if self.endpoint is None or event.event == "endpoint":
                self._take_endpoint(event)
            elif event.event != "message":
                self.strangers += 1
            elif event.data:
                yield event.data

    def _take_endpoint(self, event: SSEEvent) -> None:
        if event.event != "endpoint":
            kind = event.event[:80]
            raise ProtocolError(f"the event stream begins with {kind!a}, not with 'endpoint'")
        if self.endpoint is not None:
            raise ProtocolError("the server sent a second endpoint event")
        try:
            self.endpoint = redirect_target(self.url, event.text)
        except ValueError as exc:
            raise ProtocolError(f"endpoint event refused: {exc}") from None
