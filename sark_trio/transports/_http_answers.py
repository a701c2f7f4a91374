"""Reading what a server answers to a POST: JSON, an event stream, or a refusal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, final

import anyio
from attrs import define, field

from sark_trio.errors import (
    GatewayError,
    HTTPStatusError,
    MessageTooLarge,
    ProtocolError,
    ReadTimeout,
    ServerDisconnected,
    status_error,
)
from sark_trio.machines.sse import SSEEvent, SSEParser, TooLarge
from sark_trio.machines.streams import SEEN_MAX
from sark_trio.mcp.codec import decode, readable_id
from sark_trio.mcp.faults import remote_error
from sark_trio.mcp.messages import Failure, Message, Notification, Request, RequestId, Success
from sark_trio.mcp.progress import LOG, PROGRESS
from sark_trio.net.connection import Connection
from sark_trio.net.framing import ResponseHead
from sark_trio.net.headers import retry_after_s
from sark_trio.transports._http_auth import challenges_in

__all__ = ["AnswerReader", "Counters", "Handlers", "result_in", "status_error_for"]

#: Of an error's body. JSON-RPC errors are small; the rest is for people with browsers.
ERROR_BYTES_MAX: Final = 64 * 1024
#: Statuses that say what to do better than a JSON-RPC error in their body does.
_TYPED: Final = frozenset({401, 403, 429})


@define
class Counters:
    """What a transport counts."""

    requests: int = 0
    unmatched: int = 0
    garbage: int = 0
    restarts: int = 0
    #: Callbacks of the caller's that raised.
    callback_errors: int = 0
    #: Requests of the server's: answered in legacy revisions, ignored in modern ones.
    server_requests: int = 0


@define
class Handlers:
    """Who is told what comes before the answer."""

    on_notification: Callable[[Notification], None] | None = None
    on_request: Callable[[Request], None] | None = None
    #: Told what does not belong to the request, where anybody is.
    on_event: Callable[[Notification], None] | None = None
    #: Seconds without a byte after which the wait ends; ``None``: as the connection says.
    idle_s: float | None = None
    #: Whether the call itself answers what the server asks meanwhile.
    answers: bool = False
    #: Where the stream stood: the last event's id, and what the server asked for with ``retry``.
    last_event_id: str = ""
    retry_ms: int | None = None
    #: The ids of the events so far, if any had one: what goes on may begin too early.
    seen: deque[str] | None = None

    def note(self, event_id: str) -> None:
        """An event of that id was taken."""
        if self.seen is None:
            self.seen = deque(maxlen=SEEN_MAX)
        self.seen.append(event_id)


class Waiting(Protocol):
    """A call under way; its id is a new one when it is sent again."""

    request_id: RequestId


@final
@define(eq=False)
class AnswerReader:
    """Reads answers of one transport.

    :param message_bytes_max: largest message, as JSON body or as one event.
    """

    message_bytes_max: int
    counters: Counters = field(factory=Counters)
    #: Legacy calls under way, and who is told of each.
    waiting: dict[Waiting, Handlers] = field(factory=dict, init=False)

    async def read(
        self, connection: Connection, head: ResponseHead, request_id: RequestId, to: Handlers
    ) -> Success | Failure:
        """The answer to *request_id*; notifications before it are handed on as they come.

        :raises HTTPStatusError: the server refused.
        :raises ProtocolError: whatever came, it was not the answer.
        :raises ServerDisconnected: an event stream ended without it.
        """
        if head.status >= 400:
            return await self._read_refusal(connection, head)
        if head.status != 200:
            raise ProtocolError(f"the server answered a request with HTTP {head.status}")
        match head.content_type:
            case "application/json":
                body = await connection.read_body(self.message_bytes_max)
                return self._only_answer(body, request_id)
            case "text/event-stream":
                return await self._read_events(connection, request_id, to)
        raise ProtocolError(f"the server answered with content type {head.content_type[:80]!a}")

    def _only_answer(self, body: bytes, request_id: RequestId) -> Success | Failure:
        message = decode(body)
        if isinstance(message, Success | Failure) and _is_for(message, request_id, alone=True):
            return message
        self.counters.unmatched += 1
        raise ProtocolError("the server answered with a message that is not the answer")

    async def _read_refusal(self, connection: Connection, head: ResponseHead) -> Failure:
        try:
            body = await connection.read_body(ERROR_BYTES_MAX)
        except GatewayError:
            body = b""  # the status says enough
        if head.status < 500 and head.status not in _TYPED:
            try:
                message = decode(body)
            except ProtocolError:
                message = None
            if isinstance(message, Failure):
                return message
        raise status_error_for(head)

    async def _read_events(
        self, connection: Connection, request_id: RequestId, to: Handlers
    ) -> Success | Failure:
        parser = SSEParser(
            line_bytes_max=self.message_bytes_max, event_bytes_max=self.message_bytes_max
        )
        while piece := await self._read_piece(connection, to.idle_s):
            for event in parser.feed(piece):
                if isinstance(event, TooLarge):
                    raise MessageTooLarge(
                        f"the server sent an event {event.what} of more than "
                        f"{event.limit_bytes} bytes",
                        limit_bytes=event.limit_bytes,
                    )
                answer = self.take(event, request_id, to)
                if answer is not None:
                    return answer
                if event.id and event.data:
                    to.note(event.id)
            to.last_event_id, to.retry_ms = parser.last_event_id, parser.retry_ms
        raise ServerDisconnected("the event stream ended without the answer", delivery="unknown")

    async def _read_piece(self, connection: Connection, idle_s: float | None) -> bytes:
        if idle_s is None:
            return await connection.read_piece(self.message_bytes_max)
        with anyio.move_on_after(idle_s):
            return await connection.read_piece(self.message_bytes_max)
        raise ReadTimeout(f"the server sent nothing for {idle_s:g} s", delivery="unknown")

    def take(
        self, event: SSEEvent, request_id: RequestId | None, to: Handlers
    ) -> Success | Failure | None:
        """The answer to *request_id*, if *event* is it; else it is handed on.

        :raises ProtocolError: it was meant to be the answer, and is none.
        """
        # Priming events have no data (2025-11-25); other types are not JSON-RPC.
        if event.event != "message" or not event.data:
            self.counters.garbage += event.event != "message"
            return None
        message = self._read_event(event.data, request_id)
        if isinstance(message, Success | Failure):
            if request_id is not None and _is_for(message, request_id):
                return message
            self.counters.unmatched += 1
        elif message is not None:
            self._hand_on(message, request_id, to)
        return None

    def _read_event(self, data: bytes, request_id: RequestId | None) -> Message | None:
        try:
            return decode(data)
        except ProtocolError:
            found = readable_id(data)
            if found is not None and found == request_id and type(found) is type(request_id):
                raise  # it was meant to be the answer
            self.counters.garbage += 1
            return None

    def _hand_on(
        self, message: Request | Notification, request_id: RequestId | None, to: Handlers
    ) -> None:
        if isinstance(message, Request):
            self.counters.server_requests += 1
            host = to if request_id is not None else self._host(to)
            if host.on_request is not None:
                host.on_request(message)
            return
        listener = to.on_notification
        if to.on_event is not None and message.method not in {PROGRESS, LOG}:
            listener = to.on_event
        token = message.params.get("progressToken")
        if message.method == PROGRESS and token != request_id:
            # mcp-go tells the progress of a call on its own stream as often as on the call's.
            owners = (own for call, own in self.waiting.items() if call.request_id == token)
            listener = next((owner.on_notification for owner in owners), None)
            self.counters.unmatched += listener is None
        if listener is not None:
            try:
                listener(message)
            except Exception:  # noqa: BLE001 - a listener's fault must not cost the answer
                self.counters.callback_errors += 1

    def _host(self, to: Handlers) -> Handlers:
        """Who answers a request that came on no call's stream: the only call that can, if there
        is one only, as on stdio; else whoever answers what belongs to none.
        """
        hosts = [own for own in self.waiting.values() if own.answers]
        return hosts[0] if len(hosts) == 1 else to


def result_in(answer: Success | Failure | HTTPStatusError) -> dict[str, object]:
    """The result of *answer*.

    :raises RemoteError, HTTPStatusError: it is an error.
    """
    if isinstance(answer, Success):
        return answer.result
    if isinstance(answer, HTTPStatusError):
        raise answer
    raise remote_error(answer.code, answer.message, answer.data)


def status_error_for(head: ResponseHead) -> HTTPStatusError:
    """The :class:`HTTPStatusError` that *head* stands for."""
    asked = challenges_in(head)
    return status_error(
        head.status,
        f"the server answered HTTP {head.status}" + (f" ({asked[0][:300]!a})" if asked else ""),
        retry_after_s=retry_after_s(head),
        www_authenticate=asked,
    )


def _is_for(message: Success | Failure, request_id: RequestId, *, alone: bool = False) -> bool:
    # ``1`` is neither ``"1"`` nor ``True``. The id of an error may be null where the peer could
    # not read ours; alone in the response to our request, that error is still ours.
    if message.id is None:
        return alone
    return type(message.id) is type(request_id) and message.id == request_id
