"""Metadata of a protected resource (RFC 9728) and of an authorization server (RFC 8414, OIDC)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from attrs import frozen

from sark_trio.auth.failures import failed, object_in
from sark_trio.auth.urls import default_endpoint, is_resource_of, place_of

__all__ = [
    "ResourceMetadata",
    "ServerMetadata",
    "default_metadata",
    "resource_metadata",
    "server_metadata",
]

#: Of scopes, methods and servers in a document; more are not looked at.
LIST_MAX: Final = 200
#: Of one of them.
ITEM_CHARS_MAX: Final = 2_000


@final
@frozen(kw_only=True)
class ResourceMetadata:
    """What an MCP server says about who guards it."""

    #: Sent as ``resource`` exactly as it is published here.
    resource: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...] | None = None
    needs_dpop: bool = False


@final
@frozen(kw_only=True)
class ServerMetadata:
    """What an authorization server says about itself. ``None``: it does not say."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str | None = None
    registration_endpoint: str | None = None
    revocation_endpoint: str | None = None
    scopes_supported: tuple[str, ...] | None = None
    auth_methods: tuple[str, ...] | None = None
    challenge_methods: tuple[str, ...] | None = None
    #: It promises ``iss`` in authorization responses (RFC 9207).
    says_issuer: bool = False
    #: It takes the URL of a metadata document as client id.
    takes_documents: bool = False


def resource_metadata(body: bytes, server: str) -> ResourceMetadata:
    """The metadata in *body*, fetched for the MCP server at *server*.

    :raises AuthenticationRequired: it is none, or that of another resource.
    """
    document = object_in(body, "the server's resource metadata")
    resource = document.get("resource")
    if not isinstance(resource, str) or not is_resource_of(resource, server):
        raise failed("the resource metadata is not about this server (RFC 9728, section 3.3)")
    servers = _strings(document, "authorization_servers")
    if not servers:
        raise failed("the resource metadata names no authorization server")
    return ResourceMetadata(
        resource=resource,
        authorization_servers=servers,
        scopes_supported=_strings(document, "scopes_supported"),
        needs_dpop=document.get("dpop_bound_access_tokens_required") is True,
    )


def server_metadata(body: bytes, issuer: str) -> ServerMetadata:
    """The metadata in *body*, fetched from a URL that was made from *issuer*.

    :raises AuthenticationRequired: it is none, or that of another issuer: whoever can put
        somebody else's metadata there could have our codes sent to himself.
    """
    document = object_in(body, "the authorization server's metadata")
    if document.get("issuer") != issuer:
        raise failed("the authorization server's metadata is another issuer's (RFC 8414, 3.3)")
    token_endpoint = _url(document, "token_endpoint")
    if token_endpoint is None:
        raise failed("the authorization server's metadata names no token endpoint")
    return ServerMetadata(
        issuer=issuer,
        token_endpoint=token_endpoint,
        authorization_endpoint=_url(document, "authorization_endpoint"),
        registration_endpoint=_url(document, "registration_endpoint"),
        revocation_endpoint=_url(document, "revocation_endpoint"),
        scopes_supported=_strings(document, "scopes_supported"),
        auth_methods=_strings(document, "token_endpoint_auth_methods_supported"),
        challenge_methods=_strings(document, "code_challenge_methods_supported"),
        says_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        takes_documents=document.get("client_id_metadata_document_supported") is True,
    )


def default_metadata(issuer: str) -> ServerMetadata:
    """What holds for a server of 2025-03-26 that publishes no metadata: its default endpoints."""
    return ServerMetadata(
        issuer=issuer,
        token_endpoint=default_endpoint(issuer, "token"),
        authorization_endpoint=default_endpoint(issuer, "authorize"),
        registration_endpoint=default_endpoint(issuer, "register"),
        # It cannot say so, and that revision demands it ("OAuth 2.1", PKCE).
        challenge_methods=("S256",),
    )


def _url(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) and place_of(value) is not None else None


def _strings(document: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = document.get(name)
    if not isinstance(value, list):
        return None
    items = value[:LIST_MAX]
    return tuple(one for one in items if isinstance(one, str) and len(one) <= ITEM_CHARS_MAX)
