"""How one request gets to a registry, and its JSON answer comes back. Knows no servers or tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, final

from attrs import define, field, frozen

from sark_trio import jsontext
from sark_trio.errors import ProtocolError, status_error
from sark_trio.net.connection import Request
from sark_trio.net.decoding import ACCEPT_ENCODING
from sark_trio.net.framing import ResponseHead
from sark_trio.net.headers import api_key_header, bearer_header, can_be_sent, retry_after_s
from sark_trio.net.pool import ConnectionPool, Lease
from sark_trio.net.sending import Reason, send
from sark_trio.net.url import ServerURL, parse_url, redirect_target

__all__ = ["Errand", "RegistryWire"]

#: A registry that sends us on more often is lost.
REDIRECTS_MAX: Final = 3
#: A 301, 302 or 303 makes a GET out of a POST (RFC 9110, section 15.4): not with ours.
_KEEPS_METHOD: Final = frozenset({307, 308})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Headers that are ours to set: a second one would contradict the first.
_OWN: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
        "x-api-key",
    }
)
_JSON: Final = ((b"Accept", b"application/json"), (b"Accept-Encoding", ACCEPT_ENCODING))


@final
@frozen(kw_only=True)
class Errand:
    """One request.

    :param path: below the base URL, quoted, with its query.
    :param body: ``None`` makes it a GET, anything else a POST.
    :param token: the user's bearer token.
    :param on_sent: told when the kernel has taken the first bytes, maybe more than once.
    :param may_resend: asked before a POST, some of which may have arrived, is sent again;
        ``None``: it never is.
    :param trace: W3C trace context, as headers.
    """

    path: str
    body: bytes | None = None
    token: str | None = None
    on_sent: Callable[[], None] | None = None
    may_resend: Callable[[str], Awaitable[bool]] | None = None
    trace: Mapping[str, str] = field(factory=dict)

    @property
    def method(self) -> str:
        """``GET`` or ``POST``."""
        return "GET" if self.body is None else "POST"

    def __str__(self) -> str:
        # Without the query: it is long, and says nothing that the caller does not know.
        return f"{self.method} {self.path.partition('?')[0]}"

    async def again(self, reason: Reason) -> bool:
        """Whether it may be sent again. Unless *reason* is ``not_sent``, it may have arrived."""
        if reason == "not_sent" or self.body is None:
            return True
        return self.may_resend is not None and await self.may_resend(reason)


@final
@define(eq=False)
class RegistryWire:
    """One registry: its URL, its credentials, and the pool that leads there.

    Credentials go to the URL's own origin and nowhere else.
    """

    base: ServerURL
    _pool: ConnectionPool
    _headers: tuple[tuple[bytes, bytes], ...]
    _answer_bytes_max: int

    @classmethod
    def to(
        cls,
        url: str,
        *,
        api_key: str | None,
        headers: Iterable[tuple[str, str]],
        pool: ConnectionPool,
        answer_bytes_max: int,
    ) -> RegistryWire:
        """The wire to the registry at *url*.

        :raises ValueError: a bad URL, or a key or header that cannot be sent.
        """
        base = parse_url(url.rstrip("/"))
        if "?" in base.target:
            raise ValueError("a registry's base URL must not hold a query")
        host = (b"Host", base.origin.authority.encode())
        return cls(base, pool, (host, *_JSON, *_checked(headers, api_key)), answer_bytes_max)

    async def ask(self, errand: Errand) -> Any:
        """The JSON that the registry answers.

        :raises HTTPStatusError: it refused.
        :raises ProtocolError: what it answered is no JSON, or a redirect that is not followed.
        :raises TransportError: it did not answer.
        """
        lease, head = await self._follow(errand)
        with lease:
            if head.status >= 400:
                raise status_error(
                    head.status,
                    f"{errand}: the registry answered HTTP {head.status}",
                    retry_after_s=retry_after_s(head),
                )
            if not 200 <= head.status < 300:
                raise _answered(f"{errand}: the registry answered HTTP {head.status}")
            body = await lease.connection.read_body(self._answer_bytes_max)
        try:
            return jsontext.decode(body)
        except jsontext.JSONError as exc:
            kind = head.content_type[:80] or "none"
            raise _answered(f"{errand}: {exc} (content type: {kind!a})") from None

    async def _follow(self, errand: Errand) -> tuple[Lease, ResponseHead]:
        headers = self._headers
        if errand.body is not None:
            headers += ((b"Content-Type", b"application/json"),)
        if errand.token is not None:
            headers += (bearer_header(errand.token),)
        headers += tuple((name.encode(), value.encode()) for name, value in errand.trace.items())
        prefix = self.base.target.rstrip("/")
        url = ServerURL(self.base.origin, f"{prefix}{errand.path}")
        for _ in range(REDIRECTS_MAX + 1):
            target, body = url.target.encode(), errand.body or b""
            make = partial(Request, errand.method.encode(), target, headers, body)
            lease, head = await send(
                self._pool, url.origin, make, again=errand.again, on_sent=errand.on_sent
            )
            if head.status not in _REDIRECTS:
                return lease, head
            lease.release()
            url = _redirected(errand, head, url)
        raise _answered(f"{errand}: more than {REDIRECTS_MAX} redirects")


def _redirected(errand: Errand, head: ResponseHead, url: ServerURL) -> ServerURL:
    location = head.get(b"location")
    followed = errand.body is None or head.status in _KEEPS_METHOD
    if location is None or not followed:
        raise _answered(f"{errand}: HTTP {head.status} is not followed")
    try:
        return redirect_target(url, location)
    except ValueError as exc:
        raise _answered(f"{errand}: redirect not followed: {exc}") from None


def _checked(
    headers: Iterable[tuple[str, str]], api_key: str | None
) -> tuple[tuple[bytes, bytes], ...]:
    checked: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name.lower() in _OWN:
            raise ValueError(f"header {name!r} is set by the client itself")
        if not value or not can_be_sent(name, value):
            raise ValueError(f"header {name[:80]!a} cannot be sent as it is")
        checked.append((name.encode(), value.encode()))
    if api_key is not None:
        checked.append(api_key_header(api_key))
    return tuple(checked)


def _answered(message: str) -> ProtocolError:
    return ProtocolError(message, delivery="answered")
