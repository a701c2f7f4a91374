"""A server in this process: an async function that answers, and no wire at all.

For servers that an application embeds, and for tests, which it lets decide byte by byte how far
a request gets. What crosses goes through JSON, so that neither side can hold on to, or change,
what is the other's, and nothing passes here that would not pass on a real wire.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from attrs import define, field

from sark_trio import jsontext
from sark_trio.errors import (
    ClientClosed,
    Delivery,
    GatewayError,
    InvalidArguments,
    ProtocolError,
    RemoteError,
)
from sark_trio.mcp.faults import INTERNAL_ERROR
from sark_trio.mcp.messages import Agreed, Notification
from sark_trio.mcp.meta import LogLevel
from sark_trio.mcp.versions import MODERN
from sark_trio.transports.base import Outgoing, Transport, TransportStatistics

__all__ = ["Incoming", "MemoryTransport", "Serve"]

#: A server that holds on to a cancelled request is waited for this long (laws, 2.0: cleanup).
_STOP_S: Final = 1.0


@final
@define(eq=False)
class Incoming:
    """One request, as the server sees it.

    Until :meth:`receive` is called nothing has arrived: an error that is raised before it means
    that the request was not sent.
    """

    method: str
    _outgoing: Outgoing = field(repr=False)
    _announce: Callable[[Notification], None] = field(repr=False)
    #: How far it has got.
    delivery: Delivery = field(default="not_sent", init=False)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Mirrored parameters; see :class:`Outgoing`."""
        return self._outgoing.headers

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What the client offers for this request."""
        return self._outgoing.capabilities or {}

    @property
    def log_level(self) -> LogLevel | None:
        """The least severe log message that the client wants with it."""
        return self._outgoing.log_level

    def receive(self) -> dict[str, Any]:
        """Take the request: its parameters. From here on it may have had effects."""
        params = _through_json(self._outgoing.params)
        self.delivery = "unknown"
        if self._outgoing.on_sent is not None:
            self._outgoing.on_sent()
        return params

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification that belongs to this request, such as its progress."""
        if self._outgoing.on_notification is not None:
            self._outgoing.on_notification(Notification(method, _through_json(params)))

    def announce(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification that belongs to no request, such as a change of the tools."""
        self._announce(Notification(method, _through_json(params or {})))

    async def may_resend(self, reason: str) -> bool:
        """Whether the request may be put on the wire again; see :class:`Outgoing`."""
        ask = self._outgoing.may_resend
        return ask is not None and await ask(reason)


#: ``await serve(incoming)`` → the ``result`` member. An answer that is an error is raised:
#: ``RemoteError`` for a JSON-RPC error, any other :class:`GatewayError` for what a wire does.
Serve = Callable[[Incoming], Awaitable[Mapping[str, Any]]]


def _ignore(_: Notification) -> None:
    """Nobody listens."""


@final
@define(eq=False, repr=False)
class MemoryTransport(Transport):
    """Speak with *serve*, in the caller's own task: cancelling the call cancels the server's work.

    :param serve: the server.
    :param on_event: told each notification that belongs to no request.
    """

    _serve: Serve
    _on_event: Callable[[Notification], None] = field(default=_ignore, kw_only=True)
    _running: bool = field(default=False, init=False)
    _closing: anyio.Event = field(factory=anyio.Event, init=False)
    _ended: anyio.Event = field(factory=anyio.Event, init=False)
    _idle: anyio.Event = field(factory=anyio.Event, init=False)
    _scopes: set[anyio.CancelScope] = field(factory=set, init=False)
    _requests: int = field(default=0, init=False)
    _agreed: Agreed | None = field(default=None, init=False)

    kind = "memory"

    def __repr__(self) -> str:
        return f"<MemoryTransport {len(self._scopes)} requests under way>"

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """See :meth:`Transport.run`."""
        self._running = True
        task_status.started()
        try:
            await self._closing.wait()
        finally:
            self._running = False
            self._closing.set()
            for scope in self._scopes:
                scope.cancel()
            with anyio.move_on_after(_STOP_S, shield=True):
                while self._scopes:
                    self._idle = anyio.Event()
                    await self._idle.wait()
            self._ended.set()

    async def connect(self) -> Agreed:
        """See :meth:`Transport.connect`."""
        if not self._running or self._closing.is_set():
            raise _closed("not_sent")
        # There is nobody to agree with: both ends are this package.
        self._agreed = Agreed(version=MODERN, modern=True, server_info={"name": "memory"})
        return self._agreed

    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """See :meth:`Transport.request`.

        A :class:`GatewayError` that *serve* raises comes out as it is; any other exception is
        the server's own failure, and is answered as JSON-RPC servers answer it (-32603).
        """
        await self.connect()
        self._requests += 1
        incoming = Incoming(outgoing.method, outgoing, self._on_event)
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return _result(await self._serve(incoming))
            except GatewayError:
                raise
            except Exception as exc:
                kind = type(exc).__name__
                raise RemoteError(f"the server failed: {kind}", code=INTERNAL_ERROR) from exc
            finally:
                self._scopes.discard(scope)
                if not self._scopes:
                    self._idle.set()
        raise _closed(incoming.delivery)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """See :meth:`Transport.notify`: a request whose answer nobody waits for."""
        await self.request(Outgoing(method=method, params=params))

    async def aclose(self) -> None:
        """See :meth:`Transport.aclose`."""
        running = self._running
        self._closing.set()
        if running:
            await self._ended.wait()

    @property
    def agreed(self) -> Agreed | None:
        """See :attr:`Transport.agreed`."""
        return self._agreed

    def statistics(self) -> TransportStatistics:
        """See :meth:`Transport.statistics`."""
        return TransportStatistics(requests=self._requests, details={"pending": len(self._scopes)})


def _closed(delivery: Delivery) -> ClientClosed:
    return ClientClosed("the transport is closed, or was never run", delivery=delivery)


def _through_json(params: Mapping[str, Any]) -> dict[str, Any]:
    try:
        crossed: dict[str, Any] = jsontext.decode(jsontext.encode(dict(params)))
    except jsontext.JSONError as exc:
        raise InvalidArguments(str(exc)) from exc
    return crossed


def _result(answer: Mapping[str, Any]) -> dict[str, Any]:
    try:
        result = jsontext.decode(jsontext.encode(answer))
    except jsontext.JSONError as exc:
        raise ProtocolError(f"the answer is no JSON: {exc}", delivery="answered") from exc
    if not isinstance(result, dict):
        raise ProtocolError("the answer is no JSON object", delivery="answered")
    return result
