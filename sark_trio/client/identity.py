"""Where the keys that tokens are checked with come from: a file, or the issuer's JWKS URL."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from attrs import evolve, field, frozen

from sark_trio import jsontext
from sark_trio.errors import ConfigError, ProtocolError
from sark_trio.governance.opa import Exchange
from sark_trio.net.url import parse_url

__all__ = ["JwksUrl", "read_jwks"]

_FETCH_TIMEOUT_S = 5.0


def _check_url(_: object, __: object, url: str) -> None:
    """Whoever can change the keys on their way can be anybody: TLS, or this machine."""
    try:
        origin = parse_url(url).origin
    except ValueError as exc:
        raise ConfigError(f"the URL of a key set (https://...): {exc}") from exc
    if not origin.is_tls and not _is_loopback(origin.host):
        raise ConfigError(f"{origin}: keys must come over https://, or from this machine")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@final
@frozen(eq=False)
class JwksUrl:
    """``TokenVerifier(keys=JwksUrl("https://issuer.example/jwks"), ...)``.

    Fetched over the connections of the client that the verifier is given to, when a token
    needs it; redirects are not followed.

    :raises ConfigError: keys from there could be anybody's: plain HTTP from another machine.
    """

    url: str = field(validator=_check_url)
    exchange: Exchange | None = field(default=None, repr=False, kw_only=True)

    def bind(self, exchange: Exchange) -> JwksUrl:
        """The same key set, fetched by *exchange*."""
        return evolve(self, exchange=exchange)

    async def __call__(self) -> Mapping[str, Any]:
        """The key set.

        :raises GatewayError: it could not be fetched, or is none.
        """
        if self.exchange is None:
            raise ConfigError("JwksUrl: give the verifier to a GatewayClient first")
        accept = [("accept", "application/json")]
        status, _, body = await self.exchange("GET", self.url, accept, b"", _FETCH_TIMEOUT_S)
        if status != 200:
            raise ProtocolError(f"{self.url}: status {status}, not a key set")
        return _key_set(body, self.url)


def read_jwks(path: Path) -> Mapping[str, Any]:
    """The key set in a file.

    :raises ConfigError: it cannot be read, or is none.
    """
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", source=str(path)) from exc
    try:
        return _key_set(text, str(path))
    except ProtocolError as exc:
        raise ConfigError(exc.message) from exc


def _key_set(text: bytes, source: str) -> Mapping[str, Any]:
    try:
        value = jsontext.decode_strict(text)
    except jsontext.JSONError as exc:
        raise ProtocolError(f"{source}: {exc}") from exc
    if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
        raise ProtocolError(f"{source}: not a JWK Set (RFC 7517, section 5): no list 'keys'")
    return value
