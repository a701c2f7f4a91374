"""Claims that we sign: DPoP proofs (RFC 9449) and client assertions (RFC 7523)."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sark_trio.auth.redirect import url_text
from sark_trio.auth.urls import proof_target

__all__ = ["assertion_claims", "dpop_claims"]

#: Seconds that a client assertion lives: it is used at once.
ASSERTION_S: Final = 120


def dpop_claims(
    method: str,
    url: str,
    *,
    now_wall: float,
    unique: str,
    nonce: str | None = None,
    access_token: str | None = None,
) -> dict[str, Any]:
    """The claims of a proof for one request (RFC 9449, section 4.2).

    :param unique: a new one for every proof.
    :param access_token: that the request carries; none at a token endpoint.
    """
    claims: dict[str, Any] = {
        "jti": unique,
        "htm": method,
        "htu": proof_target(url),
        "iat": int(now_wall),
    }
    if access_token is not None:
        claims["ath"] = url_text(hashlib.sha256(access_token.encode("ascii")).digest())
    if nonce is not None:
        claims["nonce"] = nonce
    return claims


def assertion_claims(
    client_id: str, issuer: str, *, now_wall: float, unique: str
) -> dict[str, Any]:
    """The claims that prove that *client_id* asks *issuer* (RFC 7523, section 3).

    The audience is the issuer alone: with a token endpoint in it another server could use it.
    """
    now = int(now_wall)
    return {
        "iss": client_id,
        "sub": client_id,
        "aud": issuer,
        "iat": now,
        "exp": now + ASSERTION_S,
        "jti": unique,
    }
