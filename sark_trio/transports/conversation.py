"""The conversation with one server, from the connection to its end, whatever carries it.

Callers only queue a message and wait for an event; tasks of the conversation's own move the
bytes. Whatever ends it calls :meth:`Conversation.condemn`, which settles every waiting call in
the same step; what follows (the farewell, closing a socket) is nobody's wait but the next
conversation's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, field

from sark_trio.errors import (
    ClientClosed,
    Delivery,
    GatewayError,
    InvalidArguments,
    ProtocolError,
    TransportError,
)
from sark_trio.mcp import codec
from sark_trio.mcp.messages import Agreed
from sark_trio.transports.answering import Answering, Asker
from sark_trio.transports.base import Outgoing
from sark_trio.transports.outbox import Outbox
from sark_trio.transports.switchboard import Call, Calls, Listener, Switchboard, Tally, Verdict

__all__ = ["Conversation"]


@define(eq=False, repr=False, kw_only=True)
class Conversation(ABC):
    """One connection to a server. Served by :meth:`run`; everything else is for any task."""

    #: What stands after each message of ours.
    terminator: ClassVar[bytes] = b""

    #: Of the server, for messages.
    name: str
    calls: Calls
    tally: Tally
    client_info: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    message_bytes_max: int
    on_event: Listener | None
    on_request: Asker | None = None
    _verdict: Verdict | None = field(default=None, init=False)
    _condemned: anyio.Event = field(factory=anyio.Event, init=False)
    #: Around what :meth:`run` does before it can be talked to.
    _opening: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _outbox: Outbox = field(factory=Outbox, init=False)
    _board: Switchboard = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._board = Switchboard(
            calls=self.calls,
            outbox=self._outbox,
            tally=self.tally,
            on_event=self.on_event,
            terminator=self.terminator,
        )

    def __repr__(self) -> str:
        state = "alive" if self.alive else "condemned"
        return f"<{type(self).__name__} {state} {self._board!r} {self._outbox!r}>"

    @abstractmethod
    async def run(self, handshake: Callable[[], Awaitable[None]]) -> None:
        """Connect, make the *handshake*, then go on until condemned.

        However this ends, when it returns nothing that it opened is left.

        :raises GatewayError: there is no connection. Nothing was asked yet.
        """

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self._verdict is None

    def why(self) -> GatewayError:
        """The error of a call that comes too late.

        :raises AssertionError: it is alive.
        """
        assert self._verdict is not None
        return self._verdict("not_sent")

    async def request(self, outgoing: Outgoing, agreed: Agreed) -> dict[str, Any]:
        """Make one request in the *agreed* version; its result. Cancelling tells the server.

        :raises RemoteError: the answer is an error.
        :raises InvalidArguments: it cannot be sent as it is.
        :raises GatewayError: no answer; ``delivery`` says how far it got.
        """
        # A deadline that has passed already sends nothing, not even to be withdrawn.
        await checkpoint_if_cancelled()
        await self._wait_room()
        call = Call(outgoing.method, outgoing.on_notification, outgoing.on_request)
        try:
            call_id = self._board.open(call, anyio.current_time())
            data = self._framed(self._encoded(call_id, outgoing, agreed))
            on_sent = outgoing.on_sent
            begun = None if on_sent is None else partial(self._board.tell, on_sent)
            self._board.post(call, data, begun)
            self.tally.requests += 1
            await call.done.wait()
        except BaseException:
            # Synchronous: there is no checkpoint in it at which it could be cut short.
            self._abandon(call, reason="the caller gave up")
            self._given_up(call, outgoing)
            raise
        self._board.release(call)
        return call.result()

    async def shake_hands(self, method: str, params: Mapping[str, Any], wait_s: float) -> Any:
        """Make one request of the handshake: *params* go out as they are.

        :raises TimeoutError: no answer within *wait_s*. The server is not told: ``initialize``
            must never be cancelled, and what a legacy server makes of a cancelled probe
            nobody knows.
        """
        call = Call(method)
        call_id = self._board.open(call, anyio.current_time())
        try:
            self._board.post(call, self._framed(codec.encode_request(call_id, method, params)))
            with anyio.fail_after(wait_s):
                await call.done.wait()
        except BaseException:
            self._abandon(call, reason=None)
            raise
        return call.result()

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Queue one notification, once there is room.

        :raises InvalidArguments: it cannot be sent as it is.
        :raises GatewayError: the conversation is over.
        """
        data = self._framed(codec.encode_notification(method, params))
        await self._wait_room()
        self._outbox.put(data)

    def condemn(self, verdict: Verdict) -> None:
        """End it: settle every call now, and let :meth:`run` clean up. The first verdict stands."""
        if self._verdict is None:
            self._verdict = verdict
            self._board.settle_all(verdict)
            self._outbox.fail_line(lambda: verdict("not_sent"))
            self._condemned.set()
            self._opening.cancel()

    def reject(self, verdict: Verdict) -> None:
        """End it because its handshake failed: as :meth:`condemn`."""
        self.condemn(verdict)

    def hung_up(self, end: GatewayError) -> bool:
        """Whether *end*, of a conversation that is over, says that the server left.

        Some servers do on a request that they do not know; a new connection may fare better.
        """
        return isinstance(end, TransportError | ProtocolError)

    def stillborn(self) -> GatewayError:
        """The error of a handshake in which the server left for good."""
        return self.why()

    async def wait_over(self) -> None:
        """Wait until it takes no more calls."""
        await self._condemned.wait()

    def answer_in(self, tasks: TaskGroup) -> None:
        """Answer the server's requests in *tasks* from now on."""
        self._board.answering = Answering(tasks, self.on_request)

    def agree(self, agreed: Agreed) -> None:
        """The handshake is over."""
        self._board.modern = agreed.modern

    def _abandon(self, call: Call, *, reason: str | None) -> None:
        """Nobody waits for *call* any more. Synchronous."""
        self._board.abandon(call, reason=reason)

    def _given_up(self, call: Call, outgoing: Outgoing) -> None:  # noqa: B027 - mostly: nothing
        """Nobody waits for *call* any more, and that may tell something of the server."""

    def _encoded(self, call_id: int, outgoing: Outgoing, agreed: Agreed) -> bytes:
        about = {"client_info": self.client_info, "capabilities": self.capabilities}
        params = outgoing.params_in(agreed.version, call_id, **about)
        return codec.encode_request(call_id, outgoing.method, params)

    async def _wait_room(self) -> None:
        if self._verdict is None and not self._outbox.has_room():
            await self._outbox.wait_room()
        if self._verdict is not None:
            raise self._verdict("not_sent")

    def _framed(self, message: bytes) -> bytes:
        if len(message) > self.message_bytes_max:
            raise InvalidArguments(
                f"the message is {len(message)} bytes long; at most {self.message_bytes_max} "
                "may go to a server at once"
            )
        return message + self.terminator

    def _stopped(self, delivery: Delivery) -> GatewayError:
        return ClientClosed(f"the connection to {self.name} is being closed", delivery=delivery)
