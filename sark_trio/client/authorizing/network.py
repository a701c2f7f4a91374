"""Errands to authorization servers: every URL passes the gate, no redirect is followed.

Whoever answers us names URLs, and we ask them: that is how servers are made to attack other
servers (SSRF). What the operator named is trusted; what a server named must be ``https`` and
lead to public addresses. Only an MCP server on this machine may name others on this machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, final

import anyio
import httpcore
from anyio.abc import TaskStatus

from sark_trio.auth.failures import failed
from sark_trio.auth.urls import is_loopback, place_of, refusal
from sark_trio.errors import GatewayError
from sark_trio.net.addresses import AddressCheck, IPAddress, public_only
from sark_trio.net.exchange import Exchange
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions

__all__ = ["Answer", "Network"]

#: Status, headers with lower-case names, body.
Answer = tuple[int, Sequence[tuple[str, str]], bytes]
#: For one errand: a document, or a token.
ERRAND_S: Final = 15.0


@final
class Network:
    """Connections for the errands of one MCP server's authorization.

    :param server: URL of the MCP server, and with *server_tls* whom to trust there.
    :param named: further URLs that the operator named.
    :param private: servers may name private addresses, too.
    :param server_check: asked about each address of *server*, where its URL is not trusted.
    :param backend: where connections come from, such as a proxy's; then it is the one who
        resolves names, and only addresses that stand in URLs are checked here.
    """

    def __init__(
        self,
        server: str,
        *,
        server_tls: TLSOptions | None,
        tls: TLSOptions | None,
        named: Sequence[str | None],
        private: bool,
        server_check: AddressCheck | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._loopback = is_loopback(server)
        self._own = _origin(server)
        self._named = {_origin(url) for url in named if url is not None}
        self._checked = not private
        trusted = backend or AnyIOBackend()
        own = backend or AnyIOBackend(address_check=server_check)
        told = backend or AnyIOBackend(address_check=self._check)
        self._pools = (
            ConnectionPool(backend=own, tls=server_tls),
            ConnectionPool(backend=trusted, tls=tls),
            ConnectionPool(backend=told, tls=tls),
        )
        self._exchanges = tuple(Exchange(pool) for pool in self._pools)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the connections until cancelled."""
        async with anyio.create_task_group() as group:
            for pool in self._pools:
                await group.start(pool.run)
            task_status.started()

    async def ask(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeout_s: float = ERRAND_S,
    ) -> Answer:
        """One errand. The body of the answer is bounded.

        :raises AuthenticationRequired: the URL must not be asked, or there is no answer.
        """
        origin = _origin(url)
        own, named = origin == self._own, origin in self._named
        reason = None if own else refusal(url, loopback=self._loopback or named)
        if reason is None and not own and not named:
            reason = self._literal(url)
        if reason is not None:
            raise failed(f"a URL in the metadata is refused: {reason}")
        exchange = self._exchanges[0 if own else 1 if named else 2]
        try:
            return await exchange(method, url, headers, body, timeout_s)
        except (GatewayError, TimeoutError) as exc:
            # Of the authorization server's: not a failure of the server that the call is for.
            raise failed(f"{origin} does not answer: {type(exc).__name__}") from exc

    def _literal(self, url: str) -> str | None:
        """Why the address that stands in *url*, if one does, must not be asked."""
        place = place_of(url)
        try:
            ip = ipaddress.ip_address("" if place is None else place.host)
        except ValueError:
            return None
        try:
            self._check(ip)
        except ValueError as exc:
            return str(exc)
        return None

    def _check(self, ip: IPAddress) -> None:
        if not self._checked:
            return
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        if not (self._loopback and (mapped or ip).is_loopback):
            public_only(ip)


def _origin(url: str) -> str:
    place = place_of(url)
    return "" if place is None else place.origin
