"""Where the keys that tokens are checked with come from: a file, or the issuer's JWKS URL."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import anyio
from attrs import define, evolve, field, frozen

from sark_trio import jsontext
from sark_trio.errors import ConfigError, GatewayError, ProtocolError
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
@define(eq=False)
class _Fetch:
    """One fetch under way, and what came of it."""

    done: anyio.Event = field(factory=anyio.Event)
    keys: Mapping[str, Any] | None = None
    error: GatewayError | None = None


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
    #: At most one: a hundred tokens at once are one fetch.
    _under_way: list[_Fetch] = field(factory=list, init=False, repr=False)

    def bind(self, exchange: Exchange) -> JwksUrl:
        """The same key set, fetched by *exchange*."""
        return evolve(self, exchange=exchange)

    async def __call__(self) -> Mapping[str, Any]:
        """The key set.

        :raises GatewayError: it could not be fetched, or is none.
        """
        if self.exchange is None:
            raise ConfigError("JwksUrl: give the verifier to a GatewayClient first")
        while self._under_way:
            fetch = self._under_way[0]
            await fetch.done.wait()
            if fetch.error is not None:
                raise fetch.error.twin()
            if fetch.keys is not None:
                return fetch.keys
            # Whoever fetched was cancelled: another one does it.
        return await self._lead(self.exchange)

    async def _lead(self, exchange: Exchange) -> Mapping[str, Any]:
        fetch = _Fetch()
        self._under_way.append(fetch)
        try:
            fetch.keys = await self._fetch(exchange)
        except GatewayError as exc:
            fetch.error = exc
            raise
        finally:
            self._under_way.clear()
            fetch.done.set()
        return fetch.keys

    async def _fetch(self, exchange: Exchange) -> Mapping[str, Any]:
        accept = [("accept", "application/json")]
        status, _, body = await exchange("GET", self.url, accept, b"", _FETCH_TIMEOUT_S)
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
