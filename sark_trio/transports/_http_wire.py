"""How one HTTP request of ours gets to an MCP endpoint, and its response's head comes back.

Knows the URL, the credentials and the pool; knows no JSON-RPC.
"""

from __future__ import annotations

from typing import Final, Literal, final

from anyio.abc import TaskGroup
from attrs import define, field

from sark_trio.errors import Denied, InvalidArguments, ProtocolError
from sark_trio.net.connection import Request
from sark_trio.net.decoding import ACCEPT_ENCODING
from sark_trio.net.framing import ResponseHead
from sark_trio.net.headers import can_be_sent
from sark_trio.net.pool import ConnectionPool, Lease
from sark_trio.net.sending import send
from sark_trio.net.url import Origin, ServerURL, parse_url, redirect_target
from sark_trio.transports._http_answers import status_error_for
from sark_trio.transports._http_auth import Auth, Headers, ask, challenged_in

__all__ = ["Again", "Auth", "Headers", "RawHeaders", "Sending", "Wire", "encode_headers"]

RawHeaders = tuple[tuple[bytes, bytes], ...]
#: Why a body would be put on a connection a second time.
Again = Literal["not_sent", "stale_connection", "unauthorized", "insufficient_scope", "dpop_nonce"]
#: A server that sends us on more often is lost (RFC 9110, section 15.4, leaves it to us).
REDIRECTS_MAX: Final = 3
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
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@define(eq=False)
class Sending:
    """One request body on its way. Sent once; subclasses may allow a second time."""

    body: bytes
    #: Nobody is asked to sign in for its sake: it is only a farewell.
    courtesy: bool = field(default=False, kw_only=True)
    #: A connection was leased for it: from here on some of it may have been sent.
    begun: bool = field(default=False, init=False)

    async def again(self, reason: Again) -> bool:
        """Whether ``body`` may be sent a second time; it may be changed before."""
        return reason != "stale_connection"

    def begin(self) -> None:
        """There is a connection for it. What this raises ends the sending."""
        self.begun = True

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

    async def start(self, group: TaskGroup) -> None:
        """Let whoever gets the credentials live in *group*."""
        if self._auth is not None and not callable(self._auth):
            await group.start(self._auth.run)

    def is_held_up(self) -> bool:
        """Whether new credentials are waited for."""
        return self._auth is not None and not callable(self._auth) and self._auth.busy

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
        stream: bool = False,
    ) -> tuple[Lease, ResponseHead]:
        """Send one request: the connection, to read on and to release, and the head.

        :param moves: a redirect holds for all that follows, too.
        :param stream: the response will be held for long.
        :raises ProtocolError: a redirect that we do not follow.
        :raises Denied: there are no credentials to be had.
        :raises AuthenticationRequired: the server wants others, which are not to be had.
        """
        headers = (*self._base, *headers)
        auth = self._auth
        tried: set[str] = set()
        while True:
            lease, head, generation = await self._follow(
                method, headers, sending, moves=moves, stream=stream
            )
            if auth is None or callable(auth) or sending.courtesy:
                return lease, head
            told = challenged_in(head, generation)
            if told is None:
                if head.status < 400:
                    auth.accepted(generation)
                return lease, head
            # Signing in takes a user's time; the connection is not kept waiting.
            lease.release()
            once = told.reason not in tried
            if not (once and await auth.challenged(told) and await sending.again(told.reason)):
                raise status_error_for(head)
            tried.add(told.reason)

    async def _follow(
        self, method: bytes, headers: RawHeaders, sending: Sending, *, moves: bool, stream: bool
    ) -> tuple[Lease, ResponseHead, int]:
        """Send, and follow redirects. The number tells which credentials the last one carried."""
        auth, url, generation = self._auth, self.url, 0
        for _ in range(REDIRECTS_MAX + 1):
            carried = headers
            if auth is not None:
                # For each hop: a proof of possession names the URL that it is for.
                given, generation = await self._credentials(auth, method, url)
                carried += given
            lease, head = await self._send_once(method, url, carried, sending, stream=stream)
            nonce = head.get(b"dpop-nonce")
            if nonce is not None and auth is not None and not callable(auth):
                auth.note_nonce(str(url), nonce)
            if head.status not in _REDIRECTS:
                if moves:
                    self.url = url
                return lease, head, generation
            lease.release()
            # Not a second sending: the server says that the first one was not to it.
            url = _redirected(head, url)
        raise ProtocolError(f"the server redirects more than {REDIRECTS_MAX} times")

    async def _send_once(
        self,
        method: bytes,
        url: ServerURL,
        headers: RawHeaders,
        sending: Sending,
        *,
        stream: bool,
    ) -> tuple[Lease, ResponseHead]:
        target = url.target.encode()

        def make() -> Request:
            sending.begin()
            return Request(method, target, headers, sending.body)

        return await send(
            self._pool,
            self.origin,
            make,
            again=sending.again,
            on_sent=sending.taken,
            stream=stream,
        )

    async def _credentials(
        self, auth: Auth, method: bytes, url: ServerURL
    ) -> tuple[RawHeaders, int]:
        given = await ask(auth, method.decode(), str(url), self.origin)
        try:
            return _checked(given.headers), given.generation
        except (ValueError, InvalidArguments):
            raise Denied(
                f"{self.origin}: no credentials that can be sent", reason="no_credentials"
            ) from None


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
