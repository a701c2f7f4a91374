from __future__ import annotations

import json
from typing import Any

import pytest

from sark_trio.auth.metadata import ServerMetadata
from sark_trio.auth.registration import (
    choose_method,
    document_identity,
    is_document_url,
    registered,
    registration_request,
)
from sark_trio.errors import AuthenticationRequired

BACK = "http://127.0.0.1:1/cb"


def server(methods: tuple[str, ...] | None = ("none",)) -> ServerMetadata:
    return ServerMetadata(
        issuer="https://as.example", token_endpoint="https://as.example/t", auth_methods=methods
    )


@pytest.mark.parametrize(
    ("supported", "secret", "key", "method"),
    [
        (None, False, False, "none"),
        (None, True, False, "client_secret_basic"),
        (("client_secret_post",), True, False, "client_secret_post"),
        (("client_secret_post", "client_secret_basic"), True, False, "client_secret_basic"),
        (("none",), True, False, "none"),
        (("tls_client_auth",), True, False, "client_secret_basic"),
        (None, False, True, "private_key_jwt"),
        (("private_key_jwt", "client_secret_basic"), True, True, "private_key_jwt"),
        (("client_secret_basic",), True, True, "client_secret_basic"),
    ],
)
def test_how_we_prove_who_we_are(
    supported: tuple[str, ...] | None, secret: bool, key: bool, method: str
) -> None:
    assert choose_method(supported, has_secret=secret, has_key=key) == method


@pytest.mark.parametrize(
    ("url", "can"),
    [
        ("https://app.example/client.json", True),
        ("https://app.example/", False),
        ("https://app.example", False),
        ("http://app.example/client.json", False),
        ("nonsense", False),
    ],
)
def test_what_can_be_a_client_id_document(url: str, can: bool) -> None:
    assert is_document_url(url) is can


def test_a_document_is_the_same_at_every_issuer() -> None:
    url = "https://app.example/client.json"
    public = document_identity(server(), url, BACK, has_key=False)
    assert (public.client_id, public.auth_method, public.issuer) == (
        url,
        "none",
        "https://as.example",
    )
    assert document_identity(server(), url, BACK, has_key=True).auth_method == "private_key_jwt"


def request(redirect_uri: str, methods: tuple[str, ...] | None, **more: Any) -> dict[str, Any]:
    options = {"client_name": "sark", "scopes": (), "dpop": False, **more}
    body = registration_request(server(methods), redirect_uri=redirect_uri, **options)
    return json.loads(body)


def test_what_we_say_when_we_register() -> None:
    native = request(BACK, ("client_secret_basic", "none"), scopes=("a", "b"), dpop=True)
    assert native["application_type"] == "native"
    assert native["token_endpoint_auth_method"] == "none"
    assert native["scope"] == "a b"
    assert native["dpop_bound_access_tokens"] is True
    assert native["grant_types"] == ["authorization_code", "refresh_token"]
    web = request("https://app.example/cb", ("none", "client_secret_basic"))
    assert web["application_type"] == "web"
    assert web["token_endpoint_auth_method"] == "client_secret_basic"
    assert "scope" not in web
    own = request("com.example.app:/cb", None)
    assert own["application_type"] == "native"
    assert own["token_endpoint_auth_method"] == "client_secret_basic"
    assert request(BACK, ("tls_client_auth",))["token_endpoint_auth_method"] == "none"


@pytest.mark.parametrize(
    ("answer", "method", "secret"),
    [
        ({"client_id": "a"}, "none", None),
        ({"client_id": "a", "client_secret": "s"}, "none", "s"),
        (
            {
                "client_id": "a",
                "client_secret": "s",
                "token_endpoint_auth_method": "client_secret_post",
            },
            "client_secret_post",
            "s",
        ),
        (
            {"client_id": "a", "client_secret": "s", "token_endpoint_auth_method": "new"},
            "none",
            "s",
        ),
        ({"client_id": "a", "token_endpoint_auth_method": "client_secret_basic"}, "none", None),
        ({"client_id": "a", "client_secret": 7}, "none", None),
    ],
)
def test_what_we_are_registered_as(answer: dict[str, Any], method: str, secret: str | None) -> None:
    identity = registered(201, json.dumps(answer).encode(), server(), BACK)
    assert (identity.client_id, identity.auth_method) == ("a", method)
    assert identity.client_secret == secret
    assert "client_secret=" not in repr(identity)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (400, b'{"error": "invalid_redirect_uri"}', "invalid_redirect_uri"),
        (403, b"<html>", "HTTP 403"),
        (201, b"[]", "JSON object"),
        (201, b"{}", "client id"),
        (201, b'{"client_id": ""}', "client id"),
        (201, b'{"client_id": "a\\u0007"}', "client id"),
        (201, b'{"client_id": "\\u00e9"}', "client id"),
    ],
)
def test_where_we_are_not_registered(status: int, body: bytes, why: str) -> None:
    with pytest.raises(AuthenticationRequired, match=why):
        registered(status, body, server(), BACK)
