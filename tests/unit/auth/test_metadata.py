from __future__ import annotations

import json
from typing import Any

import pytest

from sark_trio.auth.failures import object_in, said
from sark_trio.auth.metadata import (
    LIST_MAX,
    default_metadata,
    resource_metadata,
    server_metadata,
)
from sark_trio.errors import AuthenticationRequired

SERVER = "https://mcp.example/mcp"
ISSUER = "https://as.example"


def resource(**members: Any) -> bytes:
    known = {"resource": SERVER, "authorization_servers": [ISSUER]}
    return json.dumps({**known, **members}).encode()


def issuer(**members: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "token_endpoint": f"{ISSUER}/t", **members}).encode()


def test_the_resource_says_who_guards_it() -> None:
    found = resource_metadata(
        resource(scopes_supported=["a", 7], dpop_bound_access_tokens_required=True), SERVER
    )
    assert found.authorization_servers == (ISSUER,)
    assert found.scopes_supported == ("a",)
    assert found.needs_dpop
    plain = resource_metadata(resource(), SERVER)
    assert (plain.scopes_supported, plain.needs_dpop) == (None, False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"resource": "https://mcp.example/mcp", "resource": "https://mcp.example/mcp"}',
        resource(resource="https://evil.example/mcp"),
        resource(resource=None),
        resource(authorization_servers=[]),
        resource(authorization_servers="https://as.example"),
        resource(authorization_servers=[7]),
        resource(authorization_servers=["x" * 5_000]),
    ],
)
def test_resource_metadata_that_is_none(body: bytes) -> None:
    with pytest.raises(AuthenticationRequired):
        resource_metadata(body, SERVER)


def test_the_authorization_server_says_what_it_can() -> None:
    found = server_metadata(
        issuer(
            authorization_endpoint="javascript:alert(1)",
            registration_endpoint=f"{ISSUER}/r",
            code_challenge_methods_supported=["S256"],
            authorization_response_iss_parameter_supported=True,
            client_id_metadata_document_supported="yes",
            scopes_supported=[str(number) for number in range(1_000)],
        ),
        ISSUER,
    )
    assert found.authorization_endpoint is None
    assert found.registration_endpoint == f"{ISSUER}/r"
    assert found.challenge_methods == ("S256",)
    assert found.says_issuer
    assert not found.takes_documents
    assert len(found.scopes_supported or ()) == LIST_MAX


@pytest.mark.parametrize(
    "body",
    [
        issuer(issuer="https://as.example/"),
        issuer(issuer="https://AS.example"),
        issuer(token_endpoint=None),
        issuer(token_endpoint="/token"),
        b"{}",
        b"null",
    ],
)
def test_server_metadata_that_is_none(body: bytes) -> None:
    with pytest.raises(AuthenticationRequired):
        server_metadata(body, ISSUER)


def test_the_defaults_of_the_first_revision() -> None:
    found = default_metadata("https://mcp.example")
    assert found.token_endpoint == "https://mcp.example/token"
    assert found.authorization_endpoint == "https://mcp.example/authorize"
    assert found.registration_endpoint == "https://mcp.example/register"
    assert found.challenge_methods == ("S256",)


def test_a_peers_words_are_bounded_and_hold_no_secret() -> None:
    answer = {"error": "x\x1b[2J", "error_description": "y" * 500}
    assert said(answer) == "x?[2J: " + "y" * 200
    assert said({"error": "bad", "error_description": "got s3cret"}, ["s3cret", ""]) == "bad"
    assert said({"error": 7}) == "it does not say why"
    assert object_in(b'{"a": 1}', "it") == {"a": 1}
