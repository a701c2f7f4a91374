"""URLs of OAuth: where metadata is, what a resource is called, and which may be asked at all."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, final
from urllib.parse import urlsplit

from attrs import frozen

__all__ = [
    "Place",
    "canonical_resource",
    "default_endpoint",
    "is_loopback",
    "is_resource_of",
    "place_of",
    "proof_target",
    "refusal",
    "resource_metadata_urls",
    "server_metadata_urls",
]

#: As ``net.url``: longer ones are refused by common servers.
URL_CHARS_MAX: Final = 8_000
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_PORTS: Final = {"http": 80, "https": 443}
_RESOURCE: Final = "/.well-known/oauth-protected-resource"
_SERVER: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"


@final
@frozen
class Place:
    """An ``http`` or ``https`` URL in its parts; scheme and host in lower case."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def origin(self) -> str:
        """Scheme and authority, the port only where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def place_of(url: object) -> Place | None:
    """*url* in its parts; ``None`` where it is no plain web URL. Total.

    User information, fragments, backslashes and anything but visible ASCII are not plain.
    """
    if not isinstance(url, str) or len(url) > URL_CHARS_MAX or not _VISIBLE.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").lower()
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    plain = scheme in _PORTS and host and "%" not in host and port != 0
    if not plain or "@" in parts.netloc or "#" in url or "\\" in url:
        return None
    return Place(scheme, host, port or _PORTS[scheme], parts.path, parts.query)


def is_loopback(url: str) -> bool:
    """Whether *url* names this machine, by address or as ``localhost``."""
    place = place_of(url)
    if place is None:
        return False
    try:
        return ipaddress.ip_address(place.host).is_loopback
    except ValueError:
        return place.host == "localhost"


def refusal(url: str, *, loopback: bool) -> str | None:
    """Why *url*, which a peer named, must not be asked; ``None`` if it may be.

    What it resolves to is checked when it is connected to (``net.addresses``).

    :param loopback: this machine may be meant, and then plain HTTP will do: so it is where the
        MCP server that we were told to use is on this machine itself.
    """
    place = place_of(url)
    if place is None:
        return "it is no plain web URL"
    here = is_loopback(url)
    if here and not loopback:
        return "it leads to this machine"
    if place.scheme != "https" and not here:
        return "it is not https://"
    return None


def canonical_resource(url: str) -> str:
    """The resource identifier of the MCP server at *url* (RFC 8707, section 2; RFC 9728).

    The most specific one: its whole path, a slash that says nothing left out.
    """
    place = place_of(url)
    if place is None:
        return url
    path = "" if place.path == "/" else place.path
    return f"{place.origin}{path}" + (f"?{place.query}" if place.query else "")


def is_resource_of(resource: str, server: str) -> bool:
    """Whether *resource* is a name of the server at *server*: its URL, or a path above it.

    RFC 9728, section 3.3: metadata of another resource must not be used.
    """
    named, asked = place_of(resource), place_of(server)
    if named is None or asked is None or named.origin != asked.origin:
        return False
    if named.query and named.query != asked.query:
        return False
    above = named.path.rstrip("/")
    return asked.path.rstrip("/") == above or asked.path.startswith(f"{above}/") or not above


def resource_metadata_urls(server: str) -> tuple[str, ...]:
    """Where the metadata of the resource *server* may be: at its path, then at the root."""
    place = place_of(server)
    if place is None:
        return ()
    path = place.path.rstrip("/")
    query = f"?{place.query}" if place.query else ""
    own = (f"{place.origin}{_RESOURCE}{path}{query}",) if path or query else ()
    return (*own, f"{place.origin}{_RESOURCE}")


def server_metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where the metadata of the authorization server *issuer* may be, in the order to try.

    RFC 8414, section 3.1, and OpenID Connect Discovery 1.0, section 4, as MCP orders them.
    """
    place = place_of(issuer)
    if place is None or place.query:
        return ()
    path = place.path.rstrip("/")
    inserted = (f"{place.origin}{_SERVER}{path}", f"{place.origin}{_OPENID}{path}")
    return (*inserted, f"{place.origin}{path}{_OPENID}") if path else inserted


def default_endpoint(server: str, name: str) -> str:
    """MCP 2025-03-26, "Fallbacks for Servers without Metadata Discovery"."""
    place = place_of(server)
    return "" if place is None else f"{place.origin}/{name}"


def proof_target(url: str) -> str:
    """*url* as a DPoP proof names it: without query and fragment (RFC 9449, section 4.2)."""
    return url.partition("#")[0].partition("?")[0]
