"""Agreeing on an era and, in a legacy one, on a session: each once, for all who wait.

The requests of a handshake run in the transport's own task group. A caller only waits for
them, so cancelling one caller costs the others nothing, and a handshake that nobody waits for
any more still ends in a state that the next caller can use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field, frozen

from sark_trio.errors import (
    ClientClosed,
    GatewayError,
    ProtocolError,
    ReadTimeout,
    SessionExpired,
    status_error,
)
from sark_trio.mcp.era import Discover, Done, Failed, Initialize, Negotiation
from sark_trio.mcp.headers import check_session_id
from sark_trio.mcp.messages import Agreed, Failure, Fault, Success
from sark_trio.mcp.session import GiveUp, Join, Renew, Session, SessionLifecycle, Use
from sark_trio.telemetry.events import SessionRenewed
from sark_trio.telemetry.hooks import Reporter

__all__ = ["Handshake", "Peer", "Reply", "StatusReply"]

#: A handshake is a few small requests; this bounds it even where the server trickles bytes.
HANDSHAKE_S: Final = 60.0


@frozen
class Reply:
    """A JSON-RPC answer to a step, and the session id that came with it."""

    answer: Success | Failure
    session_id: str | None


@frozen
class StatusReply:
    """An HTTP refusal of a step."""

    status: int
    body: bytes
    retry_after_s: float | None
    #: What it says in ``WWW-Authenticate``.
    challenges: tuple[str, ...] = ()


@define(eq=False)
class _Flight:
    """One handshake under way."""

    scope: anyio.CancelScope
    done: anyio.Event = field(factory=anyio.Event)
    error: GatewayError | None = None


class Peer(Protocol):
    """Who sends what a handshake consists of."""

    async def shake(self, version: str, *, discover: bool) -> Reply | StatusReply:
        """Send ``server/discover`` or ``initialize`` in *version*."""

    async def announce(self, session: Session) -> None:
        """Send ``notifications/initialized``."""


@final
@define(eq=False, repr=False)
class Handshake:
    """What is agreed with one server, and how it comes to that."""

    _peer: Peer
    _pinned_version: str | None = None
    _report: Reporter | None = None
    agreed: Agreed | None = field(default=None, init=False)
    sessions: SessionLifecycle = field(factory=SessionLifecycle, init=False)
    #: The last try ended such that the server may speak the old HTTP+SSE transport instead.
    try_sse: bool = field(default=False, init=False)
    _flight: _Flight | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    async def connect(self, group: TaskGroup) -> Agreed:
        """What is agreed, after agreeing on it where that is still to be done.

        :raises GatewayError: it cannot be done; all who wait get the same error.
        """
        while self.agreed is None:
            await self._join(self._flight or self._begin(group, self._negotiate))
        return self.agreed

    async def session(self, group: TaskGroup) -> Session:
        """The legacy session to send with, made anew where it was lost."""
        while True:
            step = self.sessions.acquire()
            if isinstance(step, Use):
                return step.session
            await self._pursue(step, group)

    async def renewed(self, lost: Session, group: TaskGroup, *, retried: bool) -> Session:
        """The session to try once more with, after a 404 in *lost*.

        :raises SessionExpired: the call has lost two sessions.
        :raises HTTPStatusError: the 404 is about something else.
        """
        step = self.sessions.on_404(lost.generation, retried=retried)
        if isinstance(step, Use):
            return step.session
        await self._pursue(step, group)
        return await self.session(group)

    def close(self) -> Session | None:
        """End a handshake under way; the session to end with DELETE, if there is one.

        None begins from here on: the task group that they run in is about to end.
        """
        self._closed = True
        if self._flight is not None:
            self._flight.scope.cancel()
        return self.sessions.on_close()

    def forget(self, agreed: Agreed) -> None:
        """*agreed* does not hold any more: the next caller agrees anew."""
        if self.agreed is agreed:
            self.agreed = None

    async def _pursue(self, step: Renew | Join | GiveUp | Fault, group: TaskGroup) -> None:
        match step:
            case Renew(generation=generation):
                await self._join(self._begin(group, self._renew, generation))
            case Join():
                # No flight: it has landed, and whoever asks again will see.
                if self._flight is not None:
                    await self._join(self._flight)
                else:
                    await checkpoint()
            case GiveUp(reason="retried"):
                raise SessionExpired("the server ended our session twice", status=404)
            case GiveUp(reason="closed"):
                raise ClientClosed("the transport is closed")
            case _:
                raise status_error(404, "the server answered HTTP 404")

    async def _join(self, flight: _Flight) -> None:
        await flight.done.wait()
        if flight.error is not None:
            raise flight.error.twin()

    def _begin(self, group: TaskGroup, work: Callable[..., Awaitable[None]], *args: int) -> _Flight:
        if self._closed:
            raise ClientClosed("the transport is closed")
        flight = self._flight = _Flight(anyio.CancelScope())
        group.start_soon(self._fly, flight, work, *args)
        return flight

    async def _fly(self, flight: _Flight, work: Callable[..., Awaitable[None]], *args: int) -> None:
        # What those who wait get when the transport is closed under this task.
        closed = flight.error = ClientClosed("the transport was closed while connecting")
        flight.scope.deadline = anyio.current_time() + HANDSHAKE_S
        try:
            with flight.scope:
                await work(*args)
                flight.error = None
            late = anyio.current_time() >= flight.scope.deadline
            if flight.error is closed and late:
                text = f"no handshake within {HANDSHAKE_S:g} s"
                flight.error = ReadTimeout(text, delivery="not_sent")
        except GatewayError as exc:
            flight.error = exc
            if exc.delivery == "unknown":
                # Of the handshake. The requests of those who wait for it were not sent.
                exc.delivery = "not_sent"
        finally:
            self._flight = None
            flight.done.set()

    async def _negotiate(self) -> None:
        negotiation = Negotiation("http", pinned_version=self._pinned_version)
        session_id: str | None = None
        while True:
            step: object = negotiation.next()
            match step:
                case Discover(version=version):
                    reply = await self._peer.shake(version, discover=True)
                case Initialize(version=version):
                    reply = await self._peer.shake(version, discover=False)
                case Done(agreed=agreed):
                    if not agreed.modern:
                        await self._open_session(agreed.version, session_id)
                    self.agreed = agreed
                    return
                case Failed() as failed:
                    self.try_sse = failed.try_sse
                    raise _failure(failed, reply)
                case _:
                    raise AssertionError(f"negotiation went astray: {step}")
            session_id = reply.session_id if isinstance(reply, Reply) else None
            _report(negotiation, reply)

    async def _open_session(self, version: str, session_id: str | None) -> None:
        step = self.sessions.acquire()
        if isinstance(step, Renew):
            with self._leading(step.generation):
                await self._take_session(step.generation, version, session_id)

    async def _renew(self, generation: int) -> None:
        with self._leading(generation):
            agreed = self.agreed
            if agreed is None:  # and whoever asks next will agree anew
                raise ProtocolError("the server changed while our session was renewed")
            reply = await self._peer.shake(agreed.version, discover=False)
            if isinstance(reply, StatusReply):
                if reply.status < 500:  # no sessions are made here any more, as it seems
                    self.forget(agreed)
                message = f"the server answered initialize with HTTP {reply.status}"
                raise status_error(reply.status, message, retry_after_s=reply.retry_after_s)
            negotiation = Negotiation("http", pinned_version=agreed.version)
            _report(negotiation, reply)
            outcome = negotiation.next()
            if not isinstance(outcome, Done):
                # It speaks something else now (an upgrade?): let the next caller find out.
                self.forget(agreed)
                raise ProtocolError("the server does not renew our session in its version")
            await self._take_session(generation, agreed.version, reply.session_id)
            self.agreed = outcome.agreed
            if self._report is not None:
                self._report.emit(SessionRenewed(server=self._report.server))

    @contextmanager
    def _leading(self, generation: int) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.sessions.on_failed(generation)
            raise

    async def _take_session(self, generation: int, version: str, session_id: str | None) -> None:
        if session_id is not None:
            check_session_id(session_id)
        # Announced first: calls that wait must not overtake the announcement.
        await self._peer.announce(Session(generation, session_id, version))
        if not isinstance(self.sessions.on_ready(generation, session_id, version), Use):
            raise ClientClosed("the transport was closed while connecting")


def _report(negotiation: Negotiation, reply: Reply | StatusReply) -> None:
    match reply:
        case StatusReply(status=status, body=body):
            negotiation.on_http_status(status, body)
        case Reply(answer=Success(result=result)):
            negotiation.on_result(result)
        case Reply(answer=Failure() as failure):
            negotiation.on_error(failure.code, failure.message, failure.data)


def _failure(failed: Failed, reply: Reply | StatusReply) -> GatewayError:
    # A status about credentials or load is that, also during a handshake.
    if isinstance(reply, StatusReply) and failed.status is not None:
        return status_error(
            reply.status,
            failed.message,
            retry_after_s=reply.retry_after_s,
            www_authenticate=reply.challenges,
        )
    return ProtocolError(failed.message, delivery="answered")
