"""Where an upstream is: a validated http(s) URL, cut into origin and request target.

Stricter than WHATWG and RFC 3986 on purpose: an operator writes this URL once, and whatever is
ambiguous in it (user information, ``http://2130706433``, a control character) is refused
instead of guessed at.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urljoin, urlsplit

from attrs import frozen

__all__ = ["Origin", "ServerURL", "parse_url", "redirect_target"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Longer ones are refused by common servers and proxies (RFC 9110, section 4.1: at least 8000).
_URL_CHARS_MAX = 8_000
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")
# WHATWG URL, "ends in a number": resolvers read such names as addresses (octal, hex, short).
_NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


@frozen
class Origin:
    """Scheme, host and port: what a connection, and a credential, belongs to (RFC 6454)."""

    #: ``http`` or ``https``.
    scheme: str
    #: A lower-case name, or an IP address without brackets.
    host: str
    port: int

    @property
    def is_tls(self) -> bool:
        """Whether bytes to this origin are encrypted."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header: the port only where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@frozen
class ServerURL:
    """An origin and the target to ask there (path and query, at least ``/``)."""

    origin: Origin
    target: str

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"


def parse_url(text: str) -> ServerURL:
    """Parse and validate an absolute ``http`` or ``https`` URL.

    :raises ValueError: anything else, or anything ambiguous; the message says what, and never
        repeats the URL, which may hold a secret.
    """
    if not _VISIBLE_ASCII.fullmatch(text) or "\\" in text:
        raise ValueError(
            "a server URL must be visible ASCII without spaces and backslashes; "
            "write other characters percent-encoded, host names in punycode"
        )
    if len(text) > _URL_CHARS_MAX:
        raise ValueError(f"a server URL must not be longer than {_URL_CHARS_MAX} characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"not a server URL: {exc}") from None
    scheme = parts.scheme.lower()
    if scheme not in {"http", "https"}:
        raise ValueError(f"a server URL must begin with http:// or https://, not {scheme!r}")
    if "@" in parts.netloc:
        raise ValueError("a server URL must not hold user information; use headers or auth")
    if "#" in text:
        raise ValueError("a server URL must not hold a fragment (#...)")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("the port of a server URL must be 1 to 65535")
    host = _host(parts.hostname or "", bracketed=parts.netloc.startswith("["))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.startswith("/"):
        raise ValueError("the path of a server URL must begin with /")
    return ServerURL(Origin(scheme, host, port or _DEFAULT_PORTS[scheme]), target)


def redirect_target(base: ServerURL, location: str) -> ServerURL:
    """Where *location* (absolute or relative), which a server named, leads to from *base*.

    :raises ValueError: as :func:`parse_url`, or another origin: credentials and request
        bodies never leave the origin that they were meant for.
    """
    if not _VISIBLE_ASCII.fullmatch(location) or "\\" in location:
        raise ValueError("it is no URL")
    there = parse_url(urljoin(str(base), location).partition("#")[0])
    if there.origin != base.origin:
        raise ValueError(f"it leads from {base.origin} to {there.origin}")
    return there


def _host(host: str, *, bracketed: bool) -> str:
    host = host.lower()
    if bracketed or _NUMERIC_END.fullmatch(host):
        try:
            # No scope ids: they name an interface of this machine, not a server.
            address = ipaddress.ip_address("invalid" if "%" in host else host)
        except ValueError:
            raise ValueError(
                f"{host!r} is no IP address in canonical form, and no host name"
            ) from None
        return str(address)
    if not _HOST_NAME.fullmatch(host) or len(host) > 253:
        raise ValueError(f"{host!r} is no host name")
    return host
