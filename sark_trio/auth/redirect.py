"""The authorization code flow up to the code: PKCE (RFC 7636), ``state`` and ``iss`` (RFC 9207)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final, final
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import field, frozen

from sark_trio.auth.failures import failed, said
from sark_trio.auth.metadata import ServerMetadata

__all__ = ["Pending", "begin", "code_challenge", "code_in", "url_text"]

#: Of a redirect: code, state and issuer take far less.
REDIRECT_CHARS_MAX: Final = 16_384
_ONCE: Final = frozenset({"code", "state", "iss", "error"})


@final
@frozen(kw_only=True)
class Pending:
    """One authorization request under way, and what its answer is held against."""

    url: str
    redirect_uri: str
    issuer: str
    says_issuer: bool
    state: str = field(repr=False)
    verifier: str = field(repr=False)


def url_text(octets: bytes) -> str:
    """*octets* in base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def code_challenge(verifier: str) -> str:
    """The S256 challenge of *verifier* (RFC 7636, section 4.2)."""
    return url_text(hashlib.sha256(verifier.encode("ascii")).digest())


def begin(
    server: ServerMetadata,
    *,
    client_id: str,
    redirect_uri: str,
    resource: str,
    scopes: Iterable[str],
    chance: bytes,
    key_thumbprint: str | None = None,
) -> Pending:
    """The authorization request for *resource*.

    :param chance: 64 random octets, from which state and code verifier are made.
    :param key_thumbprint: of the DPoP key: the code is then of no use without it
        (RFC 9449, section 10).
    :raises AuthenticationRequired: the server has no such flow, or not PKCE with S256.
    """
    if server.authorization_endpoint is None:
        raise failed("the authorization server has no authorization endpoint")
    if "S256" not in (server.challenge_methods or ()):
        raise failed("the authorization server does not say that it supports PKCE with S256")
    state, verifier = url_text(chance[:32]), url_text(chance[32:])
    scope = " ".join(scopes)
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": code_challenge(verifier),
        "code_challenge_method": "S256",
        "resource": resource,
        **({"scope": scope} if scope else {}),
        **({"dpop_jkt": key_thumbprint} if key_thumbprint else {}),
    }
    # Its query, if any, is kept (RFC 6749, section 3.1).
    joint = "&" if "?" in server.authorization_endpoint else "?"
    return Pending(
        url=f"{server.authorization_endpoint}{joint}{urlencode(query)}",
        redirect_uri=redirect_uri,
        issuer=server.issuer,
        says_issuer=server.says_issuer,
        state=state,
        verifier=verifier,
    )


def code_in(redirect: str, pending: Pending) -> str:
    """The authorization code in *redirect*: the URL that the user was sent back to.

    :raises AuthenticationRequired: the response is not to our request, not from the server that
        we asked, or says no. Nothing of a response that is not from it is repeated.
    """
    fields = _fields(redirect)
    issuer = fields.get("iss")
    if issuer is None and pending.says_issuer:
        raise failed("the authorization response does not say its issuer, though it should")
    # Compared as strings, without any normalization (RFC 9207, section 2.4).
    if issuer is not None and issuer != pending.issuer:
        raise failed("the authorization response is from another issuer (RFC 9207)")
    if not hmac.compare_digest(fields.get("state", "").encode(), pending.state.encode()):
        raise failed("the authorization response is not to our request: its state is not ours")
    if "error" in fields:
        raise failed(f"the authorization server says {said(fields)}")
    if not fields.get("code"):
        raise failed("the authorization response has no code")
    return fields["code"]


def _fields(redirect: object) -> dict[str, str]:
    if not isinstance(redirect, str) or len(redirect) > REDIRECT_CHARS_MAX:
        raise failed("the authorization response is no URL")
    try:
        pairs = parse_qsl(urlsplit(redirect).query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise failed("the authorization response is no URL") from None
    names = [name for name, _ in pairs if name in _ONCE]
    if len(names) != len(set(names)):
        raise failed("the authorization response says something twice")
    return dict(pairs)
