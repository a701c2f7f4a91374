"""How a request for a gateway's events gets there, with credentials that go nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final
from urllib.parse import unquote

from attrs import field, frozen

from sark_trio.errors import Denied, GatewayError, InvalidArguments, ProtocolError
from sark_trio.net.connection import Request
from sark_trio.net.framing import ResponseHead
from sark_trio.net.headers import api_key_header, bearer_header, can_be_sent
from sark_trio.net.pool import ConnectionPool, Lease
from sark_trio.net.sending import send
from sark_trio.net.url import ServerURL, parse_url, redirect_target

__all__ = ["EventsWire", "Token", "check_id"]

#: A bearer token, or where to get one before each connection: tokens expire, streams do not.
Token = str | Callable[[], Awaitable[str]]

#: A gateway that sends us on more often is lost.
REDIRECTS_MAX: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@final
@frozen
class EventsWire:
    """The way to the event streams of the gateway at *base*."""

    base: ServerURL
    _pool: ConnectionPool = field(repr=False)
    _headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)

    @classmethod
    def to(cls, url: str, *, api_key: str | None, pool: ConnectionPool) -> EventsWire:
        """The wire to the gateway at *url*.

        :raises ValueError: a bad URL, or a key that cannot be sent.
        """
        base = parse_url(url.rstrip("/"))
        if "?" in base.target:
            raise ValueError("a gateway's base URL must not hold a query")
        headers = [
            (b"Host", base.origin.authority.encode()),
            (b"Accept", b"text/event-stream"),
            (b"Cache-Control", b"no-cache"),
        ]
        if api_key is not None:
            headers.append(api_key_header(api_key))
        return cls(base, pool, tuple(headers))

    def target(self, endpoint: str) -> ServerURL:
        """Where *endpoint* is: a path below the base URL, or a whole URL of the same origin.

        :raises InvalidArguments: it is neither, or climbs out of the base.
        """
        try:
            if endpoint.startswith("/"):
                prefix = self.base.target.rstrip("/")
                url = parse_url(f"{self.base.origin}{prefix}{endpoint}")
            else:
                url = parse_url(endpoint)
        except ValueError as exc:
            raise InvalidArguments(f"endpoint: {exc}") from None
        if url.origin != self.base.origin:
            raise InvalidArguments(
                f"endpoint: {url.origin} is not the gateway, {self.base.origin}, and gets no "
                "credentials of its"
            )
        # Proxies resolve them (RFC 3986, 5.2.4), encoded or not: a name must not lead elsewhere.
        path = url.target.partition("?")[0]
        if any(unquote(segment) in {".", ".."} for segment in path.split("/")):
            raise InvalidArguments("endpoint: a path with . or .. in it")
        return url

    async def open(
        self, url: ServerURL, token: Token | None, last_event_id: str | None
    ) -> tuple[Lease, ResponseHead]:
        """Ask for the stream at *url*: the connection, now the caller's, and the response's head.

        :raises ProtocolError: a redirect that is not followed, or an id that cannot be sent.
        :raises Denied: there is no token to be had.
        :raises GatewayError: no response; see ``ConnectionPool.lease`` and ``Connection.send``.
        """
        headers = self._headers
        if token is not None:
            headers += (bearer_header(await _told(token)),)
        if last_event_id is not None:
            headers += ((b"Last-Event-ID", _sendable(last_event_id)),)
        for _ in range(REDIRECTS_MAX + 1):
            make = partial(Request, b"GET", url.target.encode(), headers)
            lease, head = await send(self._pool, url.origin, make, again=_again, stream=True)
            if head.status not in _REDIRECTS:
                return lease, head
            lease.discard()
            url = _redirected(url, head)
        raise ProtocolError(f"the gateway redirects more than {REDIRECTS_MAX} times")


async def _again(_reason: str) -> bool:
    return True  # asking for a stream twice does nothing twice


def _redirected(url: ServerURL, head: ResponseHead) -> ServerURL:
    location = head.get(b"location")
    if location is None:
        raise ProtocolError(f"HTTP {head.status} without a Location", delivery="answered")
    try:
        return redirect_target(url, location)
    except ValueError as exc:
        raise ProtocolError(f"redirect not followed: {exc}", delivery="answered") from None


async def _told(token: Token) -> str:
    if isinstance(token, str):
        return token
    try:
        return await token()
    except GatewayError:
        raise
    except Exception as exc:
        # Its text may hold a secret.
        text = f"no token for the gateway: {type(exc).__name__}"
        raise Denied(text, reason="no_credentials") from exc


def check_id(last_event_id: str) -> None:
    """Refuse an id that no header can carry.

    :raises InvalidArguments: it is not visible ASCII.
    """
    if not last_event_id or not can_be_sent("Last-Event-ID", last_event_id):
        raise InvalidArguments("last_event_id must be visible ASCII")


def _sendable(last_event_id: str) -> bytes:
    if not can_be_sent("Last-Event-ID", last_event_id):
        # Left out, the stream would go on from somewhere else, and nobody would notice.
        text = "the id of the last event is not visible ASCII: it cannot be sent back"
        raise ProtocolError(text, delivery="not_sent")
    return last_event_id.encode("ascii")
