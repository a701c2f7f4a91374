"""What is posted to a token endpoint: the grants, and the proof of who asks (RFC 6749, 7523)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote_plus, urlencode

from sark_trio.auth.redirect import Pending
from sark_trio.auth.registration import ClientIdentity

__all__ = [
    "FORM_HEADERS",
    "client_credentials",
    "code_grant",
    "encode_form",
    "jwt_bearer",
    "proven",
    "refresh_grant",
    "revocation",
    "secrets_in",
    "token_exchange",
]

Form = dict[str, str]
FORM_HEADERS: Final = (
    ("content-type", "application/x-www-form-urlencoded"),
    ("accept", "application/json"),
)
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_KIND: Final = "urn:ietf:params:oauth:token-type:"
#: Fields of a form that must never be seen.
_SECRET: Final = frozenset(
    {
        "assertion",
        "client_assertion",
        "client_secret",
        "code",
        "code_verifier",
        "refresh_token",
        "subject_token",
        "token",
    }
)


def code_grant(pending: Pending, code: str, resource: str) -> Form:
    """RFC 6749, section 4.1.3, with RFC 7636 and RFC 8707."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": pending.redirect_uri,
        "code_verifier": pending.verifier,
        "resource": resource,
    }


def refresh_grant(refresh_token: str, resource: str) -> Form:
    """RFC 6749, section 6. Without ``scope``: what was granted stays granted."""
    return {"grant_type": "refresh_token", "refresh_token": refresh_token, "resource": resource}


def client_credentials(resource: str, scopes: Iterable[str]) -> Form:
    """RFC 6749, section 4.4.2."""
    return {"grant_type": "client_credentials", "resource": resource, **_scope(scopes)}


def jwt_bearer(assertion: str, resource: str, scopes: Iterable[str]) -> Form:
    """RFC 7523, section 2.1."""
    form = {"grant_type": _JWT_BEARER, "assertion": assertion, "resource": resource}
    return {**form, **_scope(scopes)}


def token_exchange(id_token: str, *, audience: str, resource: str, scopes: Iterable[str]) -> Form:
    """RFC 8693, section 2.1: an ID token for an identity assertion (ID-JAG) for *audience*."""
    form = {
        "grant_type": _EXCHANGE,
        "subject_token": id_token,
        "subject_token_type": f"{_KIND}id_token",
        "requested_token_type": f"{_KIND}id-jag",
        "audience": audience,
        "resource": resource,
    }
    return {**form, **_scope(scopes)}


def revocation(token: str, kind: str) -> Form:
    """RFC 7009, section 2.1. *kind*: ``access_token`` or ``refresh_token``."""
    return {"token": token, "token_type_hint": kind}


def proven(
    form: Mapping[str, str], client: ClientIdentity, assertion: str | None = None
) -> tuple[Form, tuple[tuple[str, str], ...]]:
    """*form* and headers that also prove that *client* asks (RFC 6749, 2.3; RFC 7523, 2.2).

    :param assertion: the signed one, for ``private_key_jwt``.
    """
    secret = client.client_secret or ""
    match client.auth_method:
        case "client_secret_basic":
            # Each form-encoded first (RFC 6749, section 2.3.1).
            pair = f"{quote_plus(client.client_id)}:{quote_plus(secret)}".encode()
            return dict(form), (("authorization", f"Basic {base64.b64encode(pair).decode()}"),)
        case "client_secret_post":
            return {**form, "client_id": client.client_id, "client_secret": secret}, ()
        case "private_key_jwt":
            proof = {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion or ""}
            return {**form, "client_id": client.client_id, **proof}, ()
    return {**form, "client_id": client.client_id}, ()


def encode_form(form: Mapping[str, str]) -> bytes:
    """*form* as it is posted."""
    return urlencode(form).encode("ascii")


def secrets_in(form: Mapping[str, str], client: ClientIdentity) -> tuple[str, ...]:
    """What an error of the endpoint must not repeat."""
    found = [value for name, value in form.items() if name in _SECRET]
    return (*found, client.client_secret or "")


def _scope(scopes: Iterable[str]) -> Form:
    scope = " ".join(scopes)
    return {"scope": scope} if scope else {}
