"""Access tokens, and the answers of a token endpoint (RFC 6749, section 5; RFC 8693; RFC 9449)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

from attrs import field, frozen

from sark_trio.auth.failures import failed, object_in, said
from sark_trio.auth.scopes import parse_scope

__all__ = ["NonceNeeded", "TokenRefused", "TokenSet", "check_revoked", "id_jag_in", "token_in"]

#: No HTTP server takes a longer header by default.
TOKEN_CHARS_MAX: Final = 16_384
#: A token that expires within this time is renewed first: the request takes some of it.
LEEWAY_S: Final = 30.0
#: Ten years: longer is no statement about time.
LIFE_S_MAX: Final = 315_360_000.0
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"


class TokenRefused(Exception):
    """The token endpoint answered with an error: its code, and a sentence without secrets."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class NonceNeeded(TokenRefused):
    """The token endpoint wants the nonce that it sent along in our proof (RFC 9449, section 8)."""


@final
@frozen(kw_only=True)
class TokenSet:
    """One access token and what belongs to it."""

    access_token: str = field(repr=False)
    #: ``Bearer`` or ``DPoP``: the scheme that it is presented with.
    scheme: str = "Bearer"
    #: Seconds since the Unix epoch; ``None`` where the server does not say.
    expires_at: float | None = None
    refresh_token: str | None = field(default=None, repr=False)
    #: That were granted, or asked for where the server does not say.
    scopes: tuple[str, ...] = ()
    #: That were asked for.
    requested: tuple[str, ...] = ()

    def is_fresh(self, now_wall: float) -> bool:
        """Whether it can be used at *now_wall* and a little while after."""
        return self.expires_at is None or now_wall < self.expires_at - LEEWAY_S


def token_in(
    status: int,
    body: bytes,
    *,
    now_wall: float,
    requested: tuple[str, ...],
    dpop: bool,
    before: TokenSet | None = None,
    secrets: Iterable[str] = (),
) -> TokenSet:
    """The tokens in the answer of a token endpoint.

    :param before: what was refreshed; its refresh token lives on where no new one comes.
    :param secrets: that were sent; an error that repeats one is not shown.
    :raises TokenRefused: the answer is an error.
    :raises AuthenticationRequired: it is no answer, or a token that cannot be used.
    """
    answer = _answer(status, body, secrets)
    kind = answer.get("token_type")
    scheme = kind.lower() if isinstance(kind, str) else ""
    # A token that is not bound to our key is worth as much to whoever steals it (RFC 9449, 5).
    if scheme != ("dpop" if dpop else "bearer"):
        wanted = "a DPoP-bound token" if dpop else "a bearer token"
        raise failed(f"the authorization server did not issue {wanted}")
    granted = parse_scope(answer.get("scope")) if "scope" in answer else requested
    refresh = _token(answer, "refresh_token") or (before.refresh_token if before else None)
    return TokenSet(
        access_token=_access_token(answer),
        scheme="DPoP" if dpop else "Bearer",
        expires_at=_expiry(answer.get("expires_in"), now_wall),
        refresh_token=refresh,
        scopes=granted,
        requested=requested,
    )


def id_jag_in(status: int, body: bytes, *, secrets: Iterable[str] = ()) -> str:
    """The identity assertion in the answer to a token exchange (RFC 8693, section 2.2.1).

    :raises TokenRefused, AuthenticationRequired: as :func:`token_in`.
    """
    answer = _answer(status, body, secrets)
    if answer.get("issued_token_type") != _ID_JAG:
        raise failed("the identity provider did not issue an ID-JAG")
    return _access_token(answer)


def check_revoked(status: int, body: bytes, *, secrets: Iterable[str] = ()) -> None:
    """The answer of a revocation endpoint (RFC 7009, section 2.2). 200 has no more to say.

    :raises TokenRefused, AuthenticationRequired: as :func:`token_in`.
    """
    if status == 200:
        return
    if status >= 500:
        raise failed(f"the revocation endpoint answered HTTP {status}")
    answer = object_in(body, f"the revocation endpoint's answer (HTTP {status})")
    sentence = f"the revocation endpoint says {said(answer, secrets)}"
    raise TokenRefused(str(answer.get("error")), sentence)


def _answer(status: int, body: bytes, secrets: Iterable[str]) -> Mapping[str, Any]:
    if status >= 500:
        raise failed(f"the token endpoint answered HTTP {status}")
    answer = object_in(body, f"the token endpoint's answer (HTTP {status})")
    # Some servers report errors with 200.
    if status != 200 or "error" in answer:
        code = answer.get("error")
        kind = NonceNeeded if code == "use_dpop_nonce" else TokenRefused
        sentence = f"the token endpoint says {said(answer, secrets)}"
        raise kind(code if isinstance(code, str) else "", sentence)
    return answer


def _access_token(answer: Mapping[str, Any]) -> str:
    token = _token(answer, "access_token")
    if token is None:
        raise failed("the token endpoint's answer has no access token that can be sent")
    return token


def _token(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    good = isinstance(value, str) and len(value) <= TOKEN_CHARS_MAX and _VISIBLE.fullmatch(value)
    return value if good else None


def _expiry(expires_in: object, now_wall: float) -> float | None:
    """When *expires_in* seconds have passed; some servers write them as a string."""
    if isinstance(expires_in, str) and expires_in.isascii() and expires_in.isdecimal():
        expires_in = int(expires_in[:12])
    if not isinstance(expires_in, int | float) or isinstance(expires_in, bool):
        return None
    return now_wall + min(max(expires_in, 0), LIFE_S_MAX)
