"""Who we are at an authorization server: configured, a document's URL, or registered (RFC 7591)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, final

from attrs import field, frozen

from sark_trio import jsontext
from sark_trio.auth.failures import failed, object_in, said
from sark_trio.auth.metadata import ServerMetadata
from sark_trio.auth.urls import is_loopback, place_of
from sark_trio.errors import AuthenticationRequired

__all__ = [
    "AuthMethod",
    "ClientIdentity",
    "choose_method",
    "document_identity",
    "is_document_url",
    "registered",
    "registration_request",
]

AuthMethod = Literal["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
#: In the order of our liking.
_WITH_SECRET: Final[tuple[AuthMethod, ...]] = (
    "client_secret_basic",
    "client_secret_post",
    "none",
)
#: Where an authorization server does not say what it takes (RFC 8414, section 2).
_DEFAULT_METHODS: Final = ("client_secret_basic",)
#: Of an id or a secret.
TEXT_CHARS_MAX: Final = 4_000


@final
@frozen(kw_only=True)
class ClientIdentity:
    """What we are known as at one issuer, and how we prove it at its token endpoint."""

    issuer: str
    client_id: str
    auth_method: AuthMethod
    client_secret: str | None = field(default=None, repr=False)
    #: That were registered; a registration is of no use for another one.
    redirect_uri: str | None = None


def choose_method(
    supported: tuple[str, ...] | None, *, has_secret: bool, has_key: bool
) -> AuthMethod:
    """How to prove who we are with what we have, as the authorization server takes it."""
    offered = _DEFAULT_METHODS if supported is None else supported
    if has_key and ("private_key_jwt" in offered or not has_secret):
        return "private_key_jwt"
    if not has_secret:
        return "none"
    # Where nothing of ours is offered: RFC 6749, section 2.3.1, lets everybody take this one.
    return next((one for one in _WITH_SECRET if one in offered), _WITH_SECRET[0])


def is_document_url(url: str) -> bool:
    """Whether *url* can be a client id: ``https`` and with a path ("Client ID Metadata")."""
    place = place_of(url)
    return place is not None and place.scheme == "https" and place.path not in {"", "/"}


def document_identity(
    server: ServerMetadata, url: str, redirect_uri: str, *, has_key: bool
) -> ClientIdentity:
    """Our identity where a document of ours says who we are. It is the same at every issuer."""
    return ClientIdentity(
        issuer=server.issuer,
        client_id=url,
        auth_method="private_key_jwt" if has_key else "none",
        redirect_uri=redirect_uri,
    )


def registration_request(
    server: ServerMetadata,
    *,
    client_name: str,
    redirect_uri: str,
    scopes: tuple[str, ...],
    dpop: bool,
) -> bytes:
    """The body of a registration request (RFC 7591, section 2)."""
    native = is_loopback(redirect_uri) or place_of(redirect_uri) is None
    offered = _DEFAULT_METHODS if server.auth_methods is None else server.auth_methods
    # An application on somebody's machine cannot keep a secret (RFC 8252, section 8.4).
    ranked = ("none", "client_secret_basic", "client_secret_post")
    ranked = ranked if native else (*ranked[1:], ranked[0])
    body: dict[str, Any] = {
        "client_name": client_name,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": next((one for one in ranked if one in offered), "none"),
        # Omitted it would mean "web", and then loopback redirects are refused (OIDC).
        "application_type": "native" if native else "web",
    }
    if scopes:
        body["scope"] = " ".join(scopes)
    if dpop:
        body["dpop_bound_access_tokens"] = True
    return jsontext.encode(body)


def registered(
    status: int, body: bytes, server: ServerMetadata, redirect_uri: str
) -> ClientIdentity:
    """Our identity in the answer to a registration (RFC 7591, section 3.2).

    :raises AuthenticationRequired: we were not registered.
    """
    if status not in {200, 201}:
        try:
            why = said(object_in(body, "its answer"))
        except AuthenticationRequired:
            why = f"HTTP {status}"  # and a page for people
        raise failed(f"the authorization server did not register us: {why}")
    answer = object_in(body, "the answer to our registration")
    client_id, secret = _text(answer, "client_id"), _text(answer, "client_secret")
    if client_id is None:
        raise failed("the authorization server registered us without a client id")
    # What it says that it registered, else what it takes of what we have.
    said_method = answer.get("token_endpoint_auth_method")
    offered = (said_method,) if said_method in _WITH_SECRET else server.auth_methods
    return ClientIdentity(
        issuer=server.issuer,
        client_id=client_id,
        client_secret=secret,
        auth_method=choose_method(offered, has_secret=secret is not None, has_key=False),
        redirect_uri=redirect_uri,
    )


def _text(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_CHARS_MAX:
        return None
    return value if value.isascii() and value.isprintable() else None
