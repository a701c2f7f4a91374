"""MCP over HTTP with server-sent events, as of revision 2024-11-05: what servers had before
Streamable HTTP.

A GET opens an event stream. Its first event names the address that messages are posted to, and
all that the server has to say comes on the stream.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import httpcore
from anyio.abc import TaskGroup
from attrs import asdict, define, evolve, field

from sark_trio.errors import SessionExpired
from sark_trio.machines.pool import PoolOptions
from sark_trio.mcp.versions import HTTP_SSE
from sark_trio.net.addresses import AddressCheck
from sark_trio.net.options import Timeouts
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions
from sark_trio.net.watch import DeadlineWatch
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports._http_calls import may_resend
from sark_trio.transports._http_wire import Auth, Headers, Wire
from sark_trio.transports.base import Outgoing, TransportStatistics
from sark_trio.transports.reconnecting import ReconnectingTransport
from sark_trio.transports.sse_talk import SseTalk

__all__ = ["SseTransport"]


def _pairs(value: Headers) -> tuple[tuple[str, str], ...]:
    return tuple(value)


@final
@define(eq=False, repr=False)
class SseTransport(ReconnectingTransport):
    """Speak MCP 2024-11-05 with a server behind a URL.

    :param url: of the event stream, ``http`` or ``https``.
    :param headers: sent with every request, to the URL's exact origin and nowhere else.
    :param auth: asked for further headers (credentials) before every request; an
        :class:`~sark_trio.transports._http_auth.Authorizer` is also told of refusals.
    :param tls: whom to trust.
    :param pool: limits of the connection pool.
    :param timeouts: time limits of connections and POSTs. The stream may be silent for as long
        as it likes: TCP finds a peer that is gone.
    :param backend: where network streams come from; sockets by default.
    :param address_check: asked about every address that the host resolves to, before one of
        them is connected to. Sockets only.
    :param report: told of connections.
    :raises ValueError: a bad URL, header or limit.
    """

    kind = "sse"
    negotiates_as: ClassVar[Any] = "http"

    url: str
    headers: tuple[tuple[str, str], ...] = field(
        default=(), kw_only=True, repr=False, converter=_pairs
    )
    auth: Auth | None = field(default=None, kw_only=True)
    tls: TLSOptions | None = field(default=None, kw_only=True)
    pool: PoolOptions | None = field(default=None, kw_only=True)
    timeouts: Timeouts | None = field(default=None, kw_only=True)
    backend: httpcore.AsyncNetworkBackend | None = field(default=None, kw_only=True)
    address_check: AddressCheck | None = field(default=None, kw_only=True)
    report: Reporter | None = field(default=None, kw_only=True)
    #: Servers of this transport speak its revision; later ones have another transport.
    pinned_version: str | None = field(default=HTTP_SSE, init=False)

    _watch: DeadlineWatch = field(factory=DeadlineWatch, init=False)
    _pool: ConnectionPool = field(init=False)
    _wire: Wire = field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.backend is not None and self.address_check is not None:
            raise ValueError("address_check needs the default backend")
        self._pool = ConnectionPool(
            backend=self.backend
            or AnyIOBackend(address_check=self.address_check, watch=self._watch),
            options=self.pool,
            timeouts=self.timeouts,
            tls=self.tls,
            report=self.report,
        )
        # Each connection has wires of its own, as redirects move them.
        self._wire = Wire(self.url, headers=self.headers, auth=self.auth, pool=self._pool)
        self.is_held_up = self._wire.is_held_up

    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """Send one request and wait for its result; see :class:`Transport`.

        :raises SessionExpired: the server had forgotten the session, and the request was not
            repeated in a new one, or that was forgotten as well.
        """
        try:
            return await super().request(outgoing)
        except SessionExpired:
            # The server refused before it looked at the request, so this is safe for any call.
            if not await may_resend(outgoing, "session_renewed"):
                raise
        return await super().request(outgoing)

    def statistics(self) -> TransportStatistics:
        """A snapshot of the counters, over all connections so far."""
        shared = super().statistics()
        pool = {**asdict(self._pool.statistics()), "draining": self._pool.draining}
        return evolve(shared, details={**shared.details, "pool": pool})

    @property
    def _peer(self) -> str:
        return str(self._wire.origin)  # without path and query: they may hold a secret

    async def _start(self, tasks: TaskGroup) -> None:
        await tasks.start(self._watch.run)
        await tasks.start(self._pool.run)
        await self._wire.start(tasks)

    def _conversation(self) -> SseTalk:
        return SseTalk(
            name=self._peer,
            calls=self._calls,
            tally=self._tally,
            client_info=self.client_info,
            capabilities=self.capabilities,
            message_bytes_max=self.message_bytes_max,
            on_event=self.on_event,
            on_request=self.on_request,
            url=self.url,
            headers=self.headers,
            auth=self.auth,
            pool=self._pool,
        )
