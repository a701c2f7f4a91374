"""A transport that has one connection at a time, and a new one after its end.

The first :meth:`~ReconnectingTransport.connect` or request connects, and so does the first one
after the connection was lost; the old one is gone before the new one begins. Nothing is ever
sent a second time from here: what had been sent on a lost connection is reported as it was, and
decided elsewhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final, final

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from sark_trio.errors import ClientClosed, Delivery, GatewayError, HTTPStatusError
from sark_trio.machines.checks import positive
from sark_trio.machines.correlate import Correlator
from sark_trio.mcp.era import Negotiation
from sark_trio.mcp.messages import Agreed
from sark_trio.transports.answering import Asker
from sark_trio.transports.base import Outgoing, Transport, TransportStatistics
from sark_trio.transports.conversation import Conversation
from sark_trio.transports.introduction import Introduction
from sark_trio.transports.switchboard import Calls, Listener, Tally

__all__ = ["MESSAGE_BYTES_MAX", "Attempt", "ReconnectingTransport"]

#: Largest message in either direction: base64 of a 3 MiB file.
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024


@final
@define(eq=False)
class Attempt:
    """One try to have a connection, shared by all who want one, and what came of it."""

    #: Decided: ``agreed`` or ``failure`` is set.
    done: anyio.Event = field(factory=anyio.Event)
    #: Over: nothing of its connection is left.
    buried: anyio.Event = field(factory=anyio.Event)
    talk: Conversation | None = None
    agreed: Agreed | None = None
    failure: GatewayError | None = None

    def succeed(self, agreed: Agreed) -> None:
        """There is a connection, and this was agreed on it."""
        self.agreed = agreed
        self.done.set()

    def fail(self, failure: GatewayError) -> None:
        """There is none. The first outcome stands."""
        if not self.done.is_set():
            self.failure = failure
            self.done.set()

    def is_spent(self) -> bool:
        """Whether nothing more can come of it."""
        alive = self.talk is not None and self.talk.alive
        return self.done.is_set() and not (alive and self.failure is None)


def _who(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return dict(value or {"name": "sark_trio", "version": "0"})


@define(eq=False, repr=False, kw_only=True)
class ReconnectingTransport(Transport):
    """What such transports share.

    :param client_info: who we say we are (``name``, ``version``).
    :param capabilities: what we say we can do.
    :param probe_timeout_s: after this long without an answer to ``server/discover`` a server
        is taken to be a legacy one.
    :param start_timeout_s: ... and after this long without one to ``initialize`` it has failed.
    :param message_bytes_max: longest message in either direction.
    :param on_event: told each notification that belongs to no request; synchronous, must not
        block. What it raises is counted and forgotten.
    :param on_request: answers a legacy server's requests that come with no call.
    :param pinned_version: speak this protocol version or fail.
    :raises ValueError: an option can not be right.
    """

    #: ``stdio`` stands for any stream of messages, ``http`` for requests with a status each.
    negotiates_as: ClassVar[Any] = "stdio"

    client_info: Mapping[str, Any] = field(default=None, converter=_who)
    capabilities: Mapping[str, Any] = field(factory=dict)
    probe_timeout_s: float = field(default=5.0, validator=positive)
    start_timeout_s: float = field(default=30.0, validator=positive)
    message_bytes_max: int = field(default=MESSAGE_BYTES_MAX, validator=positive)
    on_event: Listener | None = None
    on_request: Asker | None = None
    pinned_version: str | None = None

    _tasks: TaskGroup | None = field(default=None, init=False)
    _closing: anyio.Event = field(factory=anyio.Event, init=False)
    _stopped: anyio.Event = field(factory=anyio.Event, init=False)
    _attempt: Attempt | None = field(default=None, init=False)
    _calls: Calls = field(factory=Correlator, init=False)
    _tally: Tally = field(factory=Tally, init=False)
    _connections: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._negotiation()  # refuses a version that we do not speak

    def __repr__(self) -> str:
        talk = None if self._attempt is None else self._attempt.talk
        return f"<{type(self).__name__} {self._peer} {talk!r}>"

    @property
    @abstractmethod
    def _peer(self) -> str:
        """Who is at the other end, fit to print."""

    @abstractmethod
    def _conversation(self) -> Conversation:
        """A new one, not connected yet."""

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Own the connection until :meth:`aclose`, or until cancelled; see :class:`Transport`."""
        if self._tasks is not None:
            raise RuntimeError("run() of a transport is called once")
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                try:
                    await self._start(tasks)
                    task_status.started()
                    await self._closing.wait()
                finally:
                    self._close()  # while the task group still takes tasks: none comes after
                if self._attempt is not None:
                    await self._attempt.buried.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._stopped.set()

    async def _start(self, tasks: TaskGroup) -> None:
        """Start what connections need, in *tasks*. It is cancelled after the last one's end."""

    async def connect(self) -> Agreed:
        """Connect and agree on a version, unless that is done already; see :class:`Transport`.

        :raises ConnectError: no connection.
        :raises HTTPStatusError: the server refuses to have one.
        :raises ProtocolError: it speaks no version that we do, or no MCP at all.
        :raises ClientClosed: the transport is closed, or was never run.
        """
        attempt = await self._ready()
        assert attempt.agreed is not None
        return attempt.agreed

    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """Send one request and wait for its result; see :class:`Transport`.

        ``headers``, ``replay_safe`` and ``may_resend`` mean nothing here.
        """
        attempt = self._attempt
        if attempt is None or attempt.agreed is None or attempt.is_spent():
            attempt = await self._ready()
        assert attempt.talk is not None
        assert attempt.agreed is not None
        return await attempt.talk.request(outgoing, attempt.agreed)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send one notification; returns when it is queued. See :class:`Transport`."""
        attempt = await self._ready()
        assert attempt.talk is not None
        await attempt.talk.notify(method, params)

    async def wait_lost(self) -> None:
        """Wait until the present connection is gone; see :class:`Transport`."""
        attempt = self._attempt
        if attempt is not None and attempt.talk is not None:
            await attempt.talk.wait_over()

    async def aclose(self) -> None:
        """Fail what waits and close the connection, within seconds. Idempotent.

        A caller that is cancelled meanwhile stops waiting; the closing itself goes on.
        """
        self._close()
        if self._tasks is not None:
            await self._stopped.wait()

    @property
    def agreed(self) -> Agreed | None:
        """What was agreed on the present connection."""
        return None if self._attempt is None else self._attempt.agreed

    def statistics(self) -> TransportStatistics:
        """A snapshot of the counters, over all connections so far."""
        tally, calls = self._tally, self._calls.statistics()
        return TransportStatistics(
            requests=tally.requests,
            unmatched=calls.late + calls.duplicate + calls.unknown,
            garbage=tally.garbage,
            restarts=max(0, self._connections - 1),
            details={
                "pending": calls.pending,
                "notifications": tally.notifications,
                "server_requests": tally.server_requests,
                "listener_errors": tally.listener_errors,
                "dropped": tally.dropped,
            },
        )

    def _close(self) -> None:
        self._closing.set()
        attempt = self._attempt
        if attempt is not None:
            attempt.fail(self._closed("not_sent"))
            if attempt.talk is not None:
                attempt.talk.condemn(self._closed)

    def _closed(self, delivery: Delivery) -> GatewayError:
        return ClientClosed(
            f"the transport to {self._peer} is closed, or was never run", delivery=delivery
        )

    def _admit(self) -> None:
        """Whether a new attempt may begin.

        :raises GatewayError: it may not, for now.
        """

    def _negotiation(self) -> Negotiation:
        return Negotiation(self.negotiates_as, pinned_version=self.pinned_version)

    async def _ready(self) -> Attempt:
        if self._tasks is None or self._closing.is_set():
            raise self._closed("not_sent")
        attempt = self._attempt
        if attempt is None or attempt.is_spent():
            self._admit()
            previous, attempt = attempt, Attempt()
            self._attempt = attempt
            self._tasks.start_soon(self._serve, attempt, previous)
        await attempt.done.wait()
        if attempt.failure is not None:
            raise attempt.failure.twin()
        return attempt

    async def _serve(self, attempt: Attempt, previous: Attempt | None) -> None:
        """Have a connection, and keep it until it ends. A task of the transport's own."""
        negotiation = self._negotiation()
        try:
            if previous is not None:
                await previous.buried.wait()
            while not (attempt.done.is_set() or self._closing.is_set()):
                await self._live(attempt, negotiation)
        except GatewayError as exc:
            attempt.fail(_for_all(exc))
        finally:
            attempt.fail(self._closed("not_sent"))
            attempt.buried.set()

    async def _live(self, attempt: Attempt, negotiation: Negotiation) -> None:
        """Have one connection, from its beginning to its end."""
        talk = attempt.talk = self._conversation()
        self._connections += 1
        await talk.run(partial(self._settle, attempt, talk, negotiation))

    async def _settle(self, attempt: Attempt, talk: Conversation, negotiation: Negotiation) -> None:
        """Make the handshake and tell everybody how it went."""
        introduction = Introduction(
            client_info=self.client_info,
            capabilities=self.capabilities,
            probe_timeout_s=self.probe_timeout_s,
            start_timeout_s=self.start_timeout_s,
        )
        try:
            agreed = await introduction.make(talk, negotiation)
        except GatewayError as exc:
            attempt.fail(_for_all(exc))
            talk.reject(self._closed)
        else:
            if agreed is not None:
                talk.agree(agreed)
                attempt.succeed(agreed)


def _for_all(failure: GatewayError) -> GatewayError:
    """*failure* of a handshake, for those who wait for it: no call of theirs was sent."""
    if not isinstance(failure, HTTPStatusError):
        failure.delivery = "not_sent"
    return failure
