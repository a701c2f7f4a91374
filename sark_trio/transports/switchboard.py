"""Who waits for which answer on a channel that many calls share.

Synchronous throughout: lines come in, calls are settled, listeners are told, answers to the
peer's own requests are queued. Nothing in here waits, so nothing in here can be cancelled
half-way. One correlator serves all processes that a transport has in its life, one epoch each:
an answer of a process can not meet a call to its successor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, ParamSpec, final

import anyio
from attrs import define, field

from sark_trio.errors import Delivery, GatewayError, Overloaded, ProtocolError, ServerDisconnected
from sark_trio.machines.correlate import Correlator, Match
from sark_trio.mcp import codec
from sark_trio.mcp.changes import LISTEN
from sark_trio.mcp.faults import METHOD_NOT_FOUND, remote_error
from sark_trio.mcp.messages import Failure, Notification, Request, RequestId, Success
from sark_trio.mcp.meta import SUBSCRIPTION_ID
from sark_trio.mcp.progress import LOG, PROGRESS
from sark_trio.transports.answering import Answering, Asker
from sark_trio.transports.outbox import Entry, Outbox

__all__ = ["Call", "Calls", "Listener", "Switchboard", "Tally", "Verdict"]

P = ParamSpec("P")
Listener = Callable[[Notification], None]
#: Makes the error of one call out of how far that call got.
Verdict = Callable[[Delivery], GatewayError]

#: Frames that are no messages, within this many seconds, after which the peer is taken to be
#: no MCP server at all (laws, 2.5).
GARBAGE_MAX: Final = 100
GARBAGE_WINDOW_S: Final = 10.0

_CANCELLED: Final = "notifications/cancelled"


@final
@define
class Tally:
    """Counters of a transport, over all of its processes."""

    requests: int = 0
    garbage: int = 0
    notifications: int = 0
    server_requests: int = 0
    listener_errors: int = 0
    dropped: int = 0
    stalls: int = 0
    survivors: int = 0


@final
@define(eq=False)
class Call:
    """One request that waits for its answer."""

    method: str
    on_notification: Listener | None = None
    #: Answers requests of the server's that come with it.
    on_request: Asker | None = None
    #: Their scopes, while they are being answered.
    asked: set[anyio.CancelScope] = field(factory=set, init=False)
    id: int = field(default=-1, init=False)
    entry: Entry | None = field(default=None, init=False)
    done: anyio.Event = field(factory=anyio.Event, init=False)
    outcome: Success | Failure | GatewayError | None = field(default=None, init=False)

    @property
    def delivery(self) -> Delivery:
        """How far the request got, while there is no answer."""
        return "unknown" if self.entry is not None and self.entry.begun else "not_sent"

    def result(self) -> dict[str, Any]:
        """The ``result`` member of the answer.

        :raises GatewayError: the answer is an error, or there is none.
        """
        outcome = self.outcome
        if isinstance(outcome, Success):
            return outcome.result
        if isinstance(outcome, Failure):
            raise remote_error(outcome.code, outcome.message, outcome.data)
        assert outcome is not None
        raise outcome

    def settle(self, outcome: Success | Failure | GatewayError) -> None:
        """End it. Whoever took it out of the table does this, so it happens once."""
        self.outcome = outcome
        self.done.set()


Calls = Correlator[Call]


@final
@define(eq=False, repr=False, kw_only=True)
class Switchboard:
    """The calls in flight with one process: from its start until :meth:`settle_all`."""

    calls: Calls
    outbox: Outbox
    tally: Tally
    on_event: Listener | None
    #: What stands after each message of ours.
    terminator: bytes = b"\n"
    #: Modern servers are never answered: they must not ask (2026-07-28, stdio).
    modern: bool = field(default=False, init=False)
    #: Answers the peer's requests; without it, and to ``ping``, we answer here.
    answering: Answering | None = field(default=None, init=False)
    #: Calls that want what comes without a name on it.
    _hosts: set[Call] = field(factory=set, init=False)
    #: Answers that somebody waited for.
    answers: int = field(default=0, init=False)
    _epoch: int = field(init=False)
    _garbage_at: deque[float] = field(factory=lambda: deque(maxlen=GARBAGE_MAX), init=False)

    def __attrs_post_init__(self) -> None:
        self._epoch = self.calls.reopen()

    def __repr__(self) -> str:
        return f"<Switchboard epoch={self._epoch} {self.calls!r}>"

    def open(self, call: Call, now: float) -> int:
        """Wait for the answer to *call* from now on; its id.

        :raises Overloaded: too many calls wait already.
        """
        opened = self.calls.open(now, call)
        if not isinstance(opened, int):
            raise Overloaded(f"too many calls wait for this server: {opened}")
        call.id = opened
        listens = call.on_notification is not None or call.on_request is not None
        if listens and call.method != LISTEN:  # which carries what names it, and nothing else
            self._hosts.add(call)
        return opened

    def post(self, call: Call, data: bytes, on_begun: Callable[[], None] | None = None) -> None:
        """Queue the bytes of *call*, for which there is room."""
        call.entry = self.outbox.put(data, on_begun, call_id=call.id)

    def abandon(self, call: Call, *, reason: str | None) -> None:
        """Nobody waits for *call* any more. A peer who may have it is told *reason*, if any.

        Bytes that did not begin to go out are taken back. A late answer is dropped.
        """
        self.release(call)
        pending = self.calls.cancel(call.id)
        if call.entry is None:
            self.outbox.call_next()  # it had room, and did not use it
        elif pending is not None and not self.outbox.withdraw(call.entry) and reason is not None:
            params = {"requestId": call.id, "reason": reason}
            self._put(codec.encode_notification(_CANCELLED, params))

    def release(self, call: Call) -> None:
        """*call* is over: whatever the peer asked for its sake is answered no more. Idempotent."""
        self._hosts.discard(call)
        for scope in call.asked:
            scope.cancel()

    def settle_all(self, verdict: Verdict) -> None:
        """End every call, each with an error of its own."""
        for pending in self.calls.close("the process is gone"):
            pending.waiter.settle(verdict(pending.waiter.delivery))

    def settle_unsent(self, verdict: Verdict) -> None:
        """End the calls whose bytes are not all out, and take back what can be."""
        for call_id in self.outbox.call_ids():
            call = self.calls.peek(call_id)
            if call is not None:
                self.abandon(call, reason="it could not be sent in time")
                call.settle(verdict(call.delivery))

    def tell(self, listener: Callable[P, None] | None, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call *listener*, if there is one. What it raises is counted: it is not our fault."""
        if listener is not None:
            try:
                listener(*args, **kwargs)
            except Exception:  # noqa: BLE001
                self.tally.listener_errors += 1

    def receive(self, line: bytes, now: float) -> bool:
        """One line of the peer's; ``False`` once there was too much garbage among them."""
        try:
            message = codec.decode(line)
        except ProtocolError as exc:
            return self._receive_garbage(line, exc, now)
        if isinstance(message, Success | Failure):
            match = self.calls.resolve(message.id, epoch=self._epoch)
            if isinstance(match, Match):
                self.answers += 1
                match.waiter.settle(message)
        elif isinstance(message, Notification):
            self._receive_notification(message)
        else:
            self._receive_request(message)
        return True

    def count_garbage(self, now: float) -> bool:
        """Count a frame that was no message; ``False`` if there were too many of late."""
        self.tally.garbage += 1
        self._garbage_at.append(now)
        too_many = len(self._garbage_at) == GARBAGE_MAX
        return not (too_many and now - self._garbage_at[0] <= GARBAGE_WINDOW_S)

    def _receive_garbage(self, line: bytes, exc: ProtocolError, now: float) -> bool:
        call = self._take(codec.readable_id(line))
        if call is not None:
            exc.delivery = call.delivery
            call.settle(exc)
        return self.count_garbage(now)

    def _receive_notification(self, notification: Notification) -> None:
        self.tally.notifications += 1
        call = self._call_of(notification)
        if call is None:
            if notification.method == _CANCELLED and self.answering is not None:
                self.answering.withdraw(notification.params.get("requestId"))
            self.tell(self.on_event, notification)
        elif notification.method == _CANCELLED:
            # The server ended a subscription (2026-07-28, "Cancellation").
            self._take(call.id)
            call.settle(ServerDisconnected("the server ended the subscription"))
        else:
            self.tell(call.on_notification, notification)

    def _call_of(self, notification: Notification) -> Call | None:
        params = notification.params
        if notification.method == PROGRESS:
            return self.calls.peek(params.get("progressToken"))
        if notification.method == LOG:
            return self._host()
        if notification.method == _CANCELLED:
            call = self.calls.peek(params.get("requestId"))
            return call if call is not None and call.method == LISTEN else None
        meta = params.get("_meta")
        return self.calls.peek(meta.get(SUBSCRIPTION_ID)) if isinstance(meta, dict) else None

    def _host(self) -> Call | None:
        """The call that is meant by what names none: the only one, if there is one only."""
        return next(iter(self._hosts)) if len(self._hosts) == 1 else None

    def _take(self, call_id: RequestId | None) -> Call | None:
        call = self.calls.peek(call_id)
        if call is not None:
            self.calls.cancel(call.id)
        return call

    def _receive_request(self, request: Request) -> None:
        self.tally.server_requests += 1
        if self.modern:
            return
        if self.answering is not None and request.method != "ping":
            host = self._host() or Call(request.method)
            self.answering.take(request, self._send, host.on_request, host.asked)
            return
        if request.method == "ping":
            answer = codec.encode_result(request.id, {})
        else:
            answer = codec.encode_error(
                request.id, METHOD_NOT_FOUND, "this client offers no such method"
            )
        self._put(answer)

    async def _send(self, message: bytes) -> None:
        self._put(message)

    def _put(self, message: bytes) -> None:
        if not self.outbox.put_extra(message + self.terminator):
            self.tally.dropped += 1
