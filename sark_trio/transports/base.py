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

from anyio.abc import TaskStatus
from attrs import field, frozen

from sark_trio.mcp.messages import Agreed, Notification

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
    #: Called when the first byte of this request was accepted by the kernel or the pipe, and
    #: again if it is sent again: from then on a timeout or a cancellation leaves the outcome
    #: unknown.
    on_sent: Callable[[], None] | None = None
    #: Safe to send again although the first sending may have arrived (laws, 2.2).
    replay_safe: bool = False
    #: Asked, with a one-word reason (``stale_connection``, ``session_renewed``,
    #: ``version_changed``), before this request is put on a wire a second time. It pays the
    #: retry budget and writes the audit record; ``None`` or ``False`` forbids.
    may_resend: Callable[[str], Awaitable[bool]] | None = None


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
    #: Transport-specific facts, fit for JSON.
    details: Mapping[str, Any] = field(factory=dict)


class Transport(ABC):
    """The wire to one upstream."""

    #: ``http``, ``stdio``, ... : fit for a metric label.
    kind: str

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
