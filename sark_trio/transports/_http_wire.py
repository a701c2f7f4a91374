"""How one HTTP request of ours gets to an MCP endpoint, and its response's head comes back.

Knows the URL, the credentials and the pool; knows no JSON-RPC.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal, final

import anyio
from attrs import define, field

from sark_trio.errors import (
    Denied,
    GatewayError,
    InvalidArguments,
    ProtocolError,
    ServerDisconnected,
)
from sark_trio.net.connection import Request
from sark_trio.net.decoding import ACCEPT_ENCODING
from sark_trio.net.framing import ResponseHead
from sark_trio.net.headers import can_be_sent
from sark_trio.net.pool import ConnectionPool, Lease
from sark_trio.net.url import Origin, ServerURL, parse_url, redirect_target

__all__ = ["Auth", "Headers", "RawHeaders", "Sending", "Wire", "encode_headers"]

Headers = Iterable[tuple[str, str]]
RawHeaders = tuple[tuple[bytes, bytes], ...]
#: Asked for credentials before each request: header names and values.
Auth = Callable[[], Awaitable[Headers]]
#: A server that sends us on more often is lost (RFC 9110, section 15.4, leaves it to us).
REDIRECTS_MAX: Final = 3
#: For the callable that provides credentials: it may refresh a token over the network.
AUTH_S: Final = 30.0
_REDIRECTS: Final = frozenset({300, 301, 302, 303, 304, 305, 307, 308})
#: Headers that this transport sets itself: a second one would contradict it.
_OWN: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@define(eq=False)
class Sending:
    """One request body on its way. Sent once; subclasses may allow a second time."""

    body: bytes
    #: A connection was leased for it: from here on some of it may have been sent.
    begun: bool = field(default=False, init=False)

    async def again(self, reason: Literal["not_sent", "stale_connection"]) -> bool:
        """Whether ``body`` may be put on a fresh connection; it may be changed before."""
        return reason == "not_sent"

    def taken(self) -> None:
        """The kernel has taken some of it. Maybe called more than once."""


@final
class Wire:
    """One MCP endpoint.

    :param url: of the endpoint, ``http`` or ``https``.
    :param headers: sent with every request.
    :raises ValueError: a bad URL, or a header that cannot be sent or is ours to set.
    """

    __slots__ = ("_auth", "_base", "_pool", "url")

    def __init__(
        self, url: str, *, headers: Headers, auth: Auth | None, pool: ConnectionPool
    ) -> None:
        #: Where requests go; a redirect of the handshake moves it within its origin.
        self.url: ServerURL = parse_url(url)
        self._auth = auth
        self._pool = pool
        self._base = (
            (b"Host", self.url.origin.authority.encode()),
            (b"Accept-Encoding", ACCEPT_ENCODING),
            *_checked(headers),
        )

    @property
    def origin(self) -> Origin:
        """The only origin that anything is ever sent to."""
        return self.url.origin

    async def send(
        self,
        method: bytes,
        headers: RawHeaders,
        sending: Sending,
        *,
        moves: bool = False,
    ) -> tuple[Lease, ResponseHead]:
        """Send one request: the connection, to read on and to release, and the head.

        :param moves: a redirect holds for all that follows, too.
        :raises ProtocolError: a redirect that we do not follow.
        :raises Denied: there are no credentials to be had.
        """
        headers = (*self._base, *headers)
        if self._auth is not None:
            headers += await self._credentials(self._auth)
        url = self.url
        for _ in range(REDIRECTS_MAX + 1):
            lease, head = await self._send_once(method, url, headers, sending)
            if head.status not in _REDIRECTS:
                if moves:
                    self.url = url
                return lease, head
            lease.release()
            # Not a second sending: the server says that the first one was not to it.
            url = _redirected(head, url)
        raise ProtocolError(f"the server redirects more than {REDIRECTS_MAX} times")

    async def _send_once(
        self, method: bytes, url: ServerURL, headers: RawHeaders, sending: Sending
    ) -> tuple[Lease, ResponseHead]:
        target = url.target.encode()
        lease = self._pool.lease_nowait(self.origin) or await self._pool.lease(self.origin)
        sending.begun = True
        try:
            request = Request(method, target, headers, sending.body)
            return lease, await lease.connection.send(request, sending.taken)
        except ServerDisconnected as exc:
            lease.discard()
            connection = lease.connection
            if connection.exchanges < 2 or connection.answered:
                raise
            # Kept alive by us, closed by the server in the meantime (RFC 9112, section 9.3.1).
            not_sent = exc.delivery == "not_sent"
            if not await sending.again("not_sent" if not_sent else "stale_connection"):
                raise
        except BaseException:
            lease.discard()
            raise
        lease = await self._pool.lease(self.origin, fresh=True)
        try:
            request = Request(method, target, headers, sending.body)
            return lease, await lease.connection.send(request, sending.taken)
        except BaseException:
            lease.discard()
            raise

    async def _credentials(self, auth: Auth) -> RawHeaders:
        try:
            with anyio.fail_after(AUTH_S):
                return _checked(await auth())
        except GatewayError:
            raise
        except Exception as exc:
            # Whatever it was, nothing is sent without them. Its text may hold a secret.
            raise Denied(
                f"{self.origin}: no credentials: {type(exc).__name__}", reason="no_credentials"
            ) from exc


def _redirected(head: ResponseHead, url: ServerURL) -> ServerURL:
    location = head.get(b"location")
    # 301, 302 and 303 would turn our POST into a GET (RFC 9110, section 15.4).
    if head.status not in {307, 308} or location is None:
        raise ProtocolError(f"the server answered HTTP {head.status}, which is not followed")
    try:
        return redirect_target(url, location)
    except ValueError as exc:
        raise ProtocolError(f"redirect not followed: {exc}") from None


def encode_headers(headers: Headers) -> RawHeaders:
    """Headers as the wire has them; whether it can have them is checked when they are sent.

    :raises InvalidArguments: not ASCII.
    """
    try:
        return tuple([(name.encode("ascii"), value.encode("ascii")) for name, value in headers])
    except UnicodeEncodeError:
        raise InvalidArguments("a header is not ASCII") from None


def _checked(headers: Headers) -> RawHeaders:
    headers = tuple(headers)
    for name, value in headers:
        if name.lower() in _OWN or name.lower().startswith("mcp-param-"):
            raise ValueError(f"header {name!r} is set by the transport itself")
        if not can_be_sent(name, value):
            raise ValueError(f"header {name[:80]!a} cannot be sent as it is")
    return encode_headers(headers)
