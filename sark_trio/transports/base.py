"""What every transport is: one contract, one file for each body.

A transport carries JSON-RPC to one upstream and knows the protocol's two eras. It never asks
whether it may: whoever calls it has already decided (see ``client/call.py``).

Life: :meth:`Transport.run` is started once in the upstream's task group and owns everything
that the transport opens (connections, processes, reader tasks). Everything else may be called
from any task, in any order, until :meth:`Transport.aclose` has returned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from anyio.abc import TaskStatus
from attrs import field, frozen

from sark_trio.errors import ServerDisconnected
from sark_trio.machines.supervise import SupervisorStatistics
from sark_trio.mcp.messages import Agreed, Notification, Request, RequestId
from sark_trio.mcp.meta import LogLevel, request_meta, with_meta

__all__ = ["Outgoing", "Transport", "TransportStatistics"]


@frozen(kw_only=True)
class Outgoing:
    """One request, as the layer above wants it made."""

    #: JSON-RPC method, such as ``tools/call``.
    method: str
    #: Its parameters, complete but for the ``_meta`` members that the agreed era adds.
    params: Mapping[str, Any] = field(factory=dict)
    #: Header name and plain value of mirrored parameters (``Mcp-Param-*``; HTTP only).
    headers: tuple[tuple[str, str], ...] = ()
    #: Handed each notification that belongs to *this* request; synchronous, must not block.
    on_notification: Callable[[Notification], None] | None = None
    #: Answers a request of the server's that comes with *this* one (until 2025-11-25): its
    #: ``result`` member; see :class:`~sark_trio.transports.answering.Answering`.
    on_request: Callable[[Request], Awaitable[Mapping[str, Any]]] | None = None
    #: What we offer to the server for this request (since 2026-07-28); ``None``: what the
    #: transport was made with.
    capabilities: Mapping[str, Any] | None = None
    #: Least severe log message that the server may send with it (since 2026-07-28).
    log_level: LogLevel | None = None
    #: Called when the first byte of this request was accepted by the kernel or the pipe, and
    #: again if it is sent again: from then on a timeout or a cancellation leaves the outcome
    #: unknown.
    on_sent: Callable[[], None] | None = None
    #: When its caller is cancelled: whether that is because the time is up that the server was
    #: given, and not because nobody wants the answer any more.
    timed_out: Callable[[], bool] | None = None
    #: Safe to send again although the first sending may have arrived (laws, 2.2).
    replay_safe: bool = False
    #: Asked, with a one-word reason (``stale_connection``, ``session_renewed``,
    #: ``version_changed``), before this request is put on a wire a second time. It pays the
    #: retry budget and writes the audit record; ``None`` or ``False`` forbids.
    may_resend: Callable[[str], Awaitable[bool]] | None = None
    #: Trace context of the request: ``traceparent``, ``tracestate``, ``baggage``. It stands in
    #: the ``_meta`` of *params*, for the server; HTTP has it in headers, too, for what is between.
    trace: Mapping[str, str] | None = None

    def params_in(
        self,
        version: str,
        request_id: RequestId,
        *,
        client_info: Mapping[str, Any],
        capabilities: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The parameters with the ``_meta`` that *version* wants.

        :param capabilities: what the transport was made with.
        :raises InvalidArguments: the caller's own ``_meta`` has a reserved key.
        """
        meta = request_meta(
            version,
            client_info=client_info,
            client_capabilities=capabilities if self.capabilities is None else self.capabilities,
            own=self.params.get("_meta"),
            log_level=self.log_level,
            progress_token=None if self.on_notification is None else request_id,
            trace=self.trace,
        )
        return with_meta(self.params, meta)


@frozen(kw_only=True)
class TransportStatistics:
    """A snapshot of a transport's counters."""

    requests: int = 0
    #: Answers with an id that nobody waits for: late, duplicate or foreign. Never delivered.
    unmatched: int = 0
    #: Frames that were not messages and were dropped.
    garbage: int = 0
    #: Times a session or process had to be made anew.
    restarts: int = 0
    #: How often its process may yet be started, where it has one.
    supervision: SupervisorStatistics | None = None
    #: Transport-specific facts, fit for JSON.
    details: Mapping[str, Any] = field(factory=dict)


class Transport(ABC):
    """The wire to one upstream."""

    #: ``http``, ``stdio``, ... : fit for a metric label.
    kind: str
    #: Whether requests wait for somebody else than the server, such as a user who signs in:
    #: then the time that passes says nothing about the server.
    is_held_up: Callable[[], bool] = staticmethod(lambda: False)

    @abstractmethod
    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Own the transport's tasks and resources until it is closed or cancelled.

        Reports started before any I/O. Returns after :meth:`aclose`; when it returns or is
        cancelled, nothing that it opened is left.
        """

    @abstractmethod
    async def connect(self) -> Agreed:
        """Connect and agree on an era, unless that is done already; many callers share one try.

        :raises ConnectError, ProcessStartError: nothing was sent.
        :raises ProtocolError: no common protocol version, or a peer that is not MCP.
        :raises ClientClosed: the transport is closed.
        """

    @abstractmethod
    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """Send one request and return the ``result`` member of its answer.

        Connects first where needed. Cancellation is the caller's way to give up: the server
        is told as the protocol revision says, within one shielded second.

        :raises RemoteError: the answer is a JSON-RPC error.
        :raises HTTPStatusError: the answer is an HTTP error.
        :raises TransportError, ProtocolError: no answer; ``delivery`` says how far it got.
        :raises ClientClosed: the transport is closed.
        """

    async def listen(self, outgoing: Outgoing) -> None:
        """Hear of changes until the server ends that, or the wire breaks; see ``mcp.changes``.

        :param outgoing: ``subscriptions/listen``. Until 2025-11-25 there is no such request:
            then the stream is opened that there is instead, ``on_sent`` is called when it is,
            and ``on_notification`` is told what comes on it; on a channel that all messages
            share, the transport's own listener is.
        :raises GatewayError: as :meth:`request`.
        """
        if (await self.connect()).modern:
            await self.request(outgoing)
            return
        if outgoing.on_sent is not None:
            outgoing.on_sent()
        await self.wait_lost()
        raise ServerDisconnected("the connection that changes were told on is gone")

    async def wait_lost(self) -> None:
        """Wait until the present connection or process is gone, and all that it knew of us."""
        await anyio.sleep_forever()

    @abstractmethod
    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send one notification. The same errors as :meth:`request`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Stop taking requests, fail those that wait, and release everything. Idempotent.

        Bounded: 6.5 s at most (see laws, 2.5), then what survives is killed and reported.
        """

    @property
    @abstractmethod
    def agreed(self) -> Agreed | None:
        """What was agreed with the server, once it was."""

    @abstractmethod
    def statistics(self) -> TransportStatistics:
        """A snapshot of the counters."""
