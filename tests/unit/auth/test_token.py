from __future__ import annotations

import json
from typing import Any

import pytest

from sark_trio.auth.token import (
    NonceNeeded,
    TokenRefused,
    TokenSet,
    check_revoked,
    id_jag_in,
    token_in,
)
from sark_trio.errors import AuthenticationRequired

GOOD = {"access_token": "tok", "token_type": "bearer"}


def read(answer: Any, status: int = 200, **more: Any) -> TokenSet:
    options = {"now_wall": 1_000.0, "requested": ("a",), "dpop": False, **more}
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return token_in(status, body, **options)


def test_a_token_and_what_belongs_to_it() -> None:
    tokens = read({**GOOD, "expires_in": 60, "refresh_token": "ref", "scope": "a b"})
    assert (tokens.access_token, tokens.refresh_token) == ("tok", "ref")
    assert (tokens.scheme, tokens.scopes, tokens.requested) == ("Bearer", ("a", "b"), ("a",))
    assert tokens.expires_at == 1_060.0
    assert "tok" not in repr(tokens).replace("token", "")
    assert "ref" not in repr(tokens).replace("refresh", "")
    assert tokens.is_fresh(1_029.0)
    assert not tokens.is_fresh(1_030.0)


def test_what_is_not_said() -> None:
    tokens = read(GOOD)
    assert (tokens.expires_at, tokens.refresh_token, tokens.scopes) == (None, None, ("a",))
    assert tokens.is_fresh(1e12)
    before = TokenSet(access_token="x", refresh_token="kept")
    assert read(GOOD, before=before).refresh_token == "kept"
    assert read({**GOOD, "refresh_token": "new"}, before=before).refresh_token == "new"


@pytest.mark.parametrize(
    ("said", "expires_at"),
    [
        ("60", 1_060.0),
        (-5, 1_000.0),
        (1e300, 315_361_000.0),
        (True, None),
        ("soon", None),
        (None, None),
        ("9" * 400, 315_361_000.0),
    ],
)
def test_expiry(said: Any, expires_at: float | None) -> None:
    assert read({**GOOD, "expires_in": said}).expires_at == expires_at


def test_infinite_numbers_say_nothing_about_time() -> None:
    with pytest.raises(AuthenticationRequired):
        read(b'{"access_token": "t", "token_type": "bearer", "expires_in": 1e999}')


@pytest.mark.parametrize(
    ("answer", "dpop"),
    [
        ({"access_token": "tok"}, False),
        ({**GOOD, "token_type": 7}, False),
        ({**GOOD, "token_type": "mac"}, False),
        (GOOD, True),
        ({**GOOD, "token_type": "DPoP"}, False),
        ({**GOOD, "access_token": "a b"}, False),
        ({**GOOD, "access_token": "a\r\nb"}, False),
        ({**GOOD, "access_token": ""}, False),
        ({**GOOD, "access_token": "x" * 20_000}, False),
        ({"token_type": "bearer"}, False),
        ([], False),
        (b"<html>", False),
    ],
)
def test_answers_without_a_token_that_we_can_use(answer: Any, dpop: bool) -> None:
    with pytest.raises(AuthenticationRequired):
        read(answer, dpop=dpop)


def test_a_bound_token() -> None:
    assert read({**GOOD, "token_type": "dpop"}, dpop=True).scheme == "DPoP"


@pytest.mark.parametrize("status", [200, 400, 401])
def test_errors_have_a_code(status: int) -> None:
    with pytest.raises(TokenRefused, match="invalid_grant: too old") as caught:
        read({"error": "invalid_grant", "error_description": "too old"}, status)
    assert caught.value.code == "invalid_grant"
    assert not isinstance(caught.value, NonceNeeded)


def test_errors_without_code_with_nonce_and_of_the_server() -> None:
    with pytest.raises(TokenRefused) as caught:
        read({"error": 7}, 400)
    assert caught.value.code == ""
    with pytest.raises(NonceNeeded):
        read({"error": "use_dpop_nonce"}, 400)
    with pytest.raises(AuthenticationRequired, match="503"):
        read({"error": "x"}, 503)
    with pytest.raises(TokenRefused) as hidden:
        read({"error": "x", "error_description": "was s3cret"}, 400, secrets=("s3cret",))
    assert "s3cret" not in str(hidden.value)


def test_an_identity_assertion() -> None:
    kind = "urn:ietf:params:oauth:token-type:id-jag"
    good = {"access_token": "jag", "issued_token_type": kind, "token_type": "N_A"}
    assert id_jag_in(200, json.dumps(good).encode()) == "jag"
    with pytest.raises(AuthenticationRequired, match="ID-JAG"):
        id_jag_in(200, json.dumps({**good, "issued_token_type": "other"}).encode())
    with pytest.raises(TokenRefused):
        id_jag_in(400, b'{"error": "invalid_request"}')


def test_what_a_revocation_is_answered_with() -> None:
    check_revoked(200, b"")
    check_revoked(200, b"whatever it is")
    with pytest.raises(AuthenticationRequired, match="answered HTTP 503"):
        check_revoked(503, b"")
    with pytest.raises(TokenRefused, match="unsupported_token_type") as caught:
        check_revoked(400, b'{"error": "unsupported_token_type"}')
    assert caught.value.code == "unsupported_token_type"
