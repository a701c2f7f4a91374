"""Who may speak with the gateway at all: by which name, from which page, with which credential."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, final

from attrs import define, field, frozen

from sark_trio import Principal
from sark_trio.errors import Denied
from sark_trio.gateway.asgi import Request
from sark_trio.gateway.faults import Refused

__all__ = ["LOOPBACK", "Access", "Names", "Verify", "unauthenticated"]

Verify = Callable[[str], Awaitable[Principal]]

#: The names of this machine, for itself.
LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
#: Shorter keys can be guessed; ``secrets.token_urlsafe()`` gives 43 characters.
KEY_CHARS_MIN: Final = 16
#: Comparing takes the same time for each; more belong into tokens.
KEYS_MAX: Final = 1_000
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
#: Denials that say that we cannot check, not that the token is bad.
_OURS: Final = frozenset({"keys_unavailable"})


def _lower(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value.lower() for value in ((values,) if isinstance(values, str) else values))


@final
@frozen(kw_only=True)
class Names:
    """Names that this gateway answers to: the defence against DNS rebinding.

    A page of a stranger can make a browser resolve the stranger's own name to this machine; it
    cannot make the browser say another name than that one.

    :param hosts: values of ``Host``; without a port they stand for any.
    :param origins: values of ``Origin`` besides the gateway's own.
    :raises ValueError: a host or origin that can be none.
    """

    hosts: frozenset[str] = field(default=LOOPBACK, converter=_lower)
    origins: frozenset[str] = field(default=(), converter=_lower)

    def __attrs_post_init__(self) -> None:
        for host in self.hosts:
            if _HOST.fullmatch(host) is None:
                raise ValueError(f"{host!r} is no host, such as gateway.example or [::1]:8080")
        for origin in self.origins:
            if _ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"{origin!r} is no origin, such as https://app.example")

    def check(self, request: Request) -> str | None:
        """Let *request* through; the origin of the page that asks, if it is another one.

        :raises Refused: 403, it was meant for another name, or comes from a stranger's page.
        """
        host = request.headers.get("host", "").lower()
        match = _HOST.fullmatch(host)
        if match is None or not {host, match[1]} & self.hosts:
            raise Refused(403, "forbidden", "this is not the host that was asked for")
        origin = request.headers.get("origin")
        if origin is None or origin.lower() == f"{request.scheme}://{host}":
            return None
        if origin.lower() not in self.origins:
            raise Refused(403, "forbidden", "pages of that origin may not ask")
        return origin


@final
@define(eq=False)
class Access:
    """Turns credentials into principals.

    Keys are kept as hashes only, and compared in constant time with every one of them.

    :param keys: API keys, and who holds them.
    :param verify: the principal that a bearer token proves; raises ``Denied``.
    :raises ValueError: a key that can be guessed, or cannot be sent.
    """

    _principals: tuple[tuple[bytes, Principal], ...]
    _verify: Verify | None

    @classmethod
    def of(cls, keys: Mapping[str, Principal], verify: Verify | None) -> Access:
        """Access for the holders of *keys*, and of tokens that *verify* accepts."""
        if len(keys) > KEYS_MAX:
            raise ValueError(f"more than {KEYS_MAX} API keys")
        for key in keys:
            if len(key) < KEY_CHARS_MIN or _VISIBLE.fullmatch(key) is None:
                raise ValueError(
                    f"an API key must be at least {KEY_CHARS_MIN} visible ASCII characters"
                )
        hashed = tuple((_digest(key), principal) for key, principal in keys.items())
        return cls(hashed, verify)

    @property
    def open(self) -> bool:
        """Whether nobody is asked for anything."""
        return not self._principals and self._verify is None

    async def principal(self, request: Request) -> Principal | None:
        """Who asks; ``None`` where nobody is asked. A token outranks the key beside it.

        :raises Refused: 401, a credential is missing or wrong; 503, it cannot be checked.
        """
        if self.open:
            return None
        key, authorization = (request.headers.get(n) for n in ("x-api-key", "authorization"))
        if key is None and authorization is None:
            raise unauthenticated("credentials_missing")
        holder = None if key is None else self._holder(key)
        if key is not None and holder is None:
            raise unauthenticated("key_invalid")
        return holder if authorization is None else await self._bearer(authorization)

    def _holder(self, key: str) -> Principal | None:
        offered, found = _digest(key), None
        for digest, principal in self._principals:
            if hmac.compare_digest(digest, offered):
                found = principal
        return found

    async def _bearer(self, authorization: str) -> Principal:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or self._verify is None:
            raise unauthenticated("scheme_unsupported")
        try:
            return await self._verify(token.strip())
        except Denied as exc:
            if exc.reason in _OURS:
                message = "the token cannot be checked now"
                raise Refused(503, "unavailable", message, reason=exc.reason) from exc
            raise unauthenticated(exc.reason) from exc


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def unauthenticated(reason: str) -> Refused:
    """401: *reason*, one word, says what is wrong with the credential."""
    challenge = 'Bearer error="invalid_token"' if reason.startswith("token_") else "Bearer"
    return Refused(
        401,
        "unauthenticated",
        "a valid credential is needed",
        reason=reason,
        headers=(("www-authenticate", challenge),),
    )
