from __future__ import annotations

import base64
from urllib.parse import parse_qs

from sark_trio.auth.forms import (
    client_credentials,
    code_grant,
    encode_form,
    jwt_bearer,
    proven,
    refresh_grant,
    revocation,
    secrets_in,
    token_exchange,
)
from sark_trio.auth.proofs import assertion_claims, dpop_claims
from sark_trio.auth.redirect import Pending
from sark_trio.auth.registration import AuthMethod, ClientIdentity

#: RFC 9449, section 7.1.
RFC_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
PENDING = Pending(
    url="u",
    redirect_uri="http://127.0.0.1/cb",
    issuer="i",
    says_issuer=True,
    state="s",
    verifier="v",
)


def client(method: AuthMethod, secret: str | None = "s:e cret") -> ClientIdentity:
    return ClientIdentity(issuer="i", client_id="m e", auth_method=method, client_secret=secret)


def test_every_grant_names_its_resource() -> None:
    forms = [
        code_grant(PENDING, "c", "r"),
        refresh_grant("t", "r"),
        client_credentials("r", ("a", "b")),
        jwt_bearer("j", "r", ()),
        token_exchange("id", audience="i", resource="r", scopes=("a",)),
    ]
    assert [form["resource"] for form in forms] == ["r"] * 5
    assert [form["grant_type"].rpartition(":")[2] for form in forms] == [
        "authorization_code",
        "refresh_token",
        "client_credentials",
        "jwt-bearer",
        "token-exchange",
    ]
    assert forms[0]["code_verifier"] == "v"
    assert forms[2]["scope"] == "a b"
    assert "scope" not in forms[3]
    assert forms[4]["requested_token_type"] == "urn:ietf:params:oauth:token-type:id-jag"
    assert parse_qs(encode_form(forms[2]))[b"scope"] == [b"a b"]


def test_what_is_revoked_says_what_it_is() -> None:
    assert revocation("t", "refresh_token") == {"token": "t", "token_type_hint": "refresh_token"}


def test_four_ways_to_prove_who_asks() -> None:
    form, headers = proven({"a": "b"}, client("client_secret_basic"))
    assert form == {"a": "b"}
    (name, value), *_ = headers
    assert name == "authorization"
    assert base64.b64decode(value.removeprefix("Basic ")) == b"m+e:s%3Ae+cret"
    form, headers = proven({}, client("client_secret_post"))
    assert (form, headers) == ({"client_id": "m e", "client_secret": "s:e cret"}, ())
    form, headers = proven({}, client("none", None))
    assert (form, headers) == ({"client_id": "m e"}, ())
    form, headers = proven({}, client("private_key_jwt", None), "signed")
    assert form["client_assertion"] == "signed"
    assert form["client_assertion_type"].endswith(":jwt-bearer")


def test_what_is_secret_in_a_form() -> None:
    form = {"grant_type": "g", "code": "c0de", "refresh_token": "r3f", "assertion": "a5s"}
    assert set(secrets_in(form, client("none"))) == {"c0de", "r3f", "a5s", "s:e cret"}
    assert secrets_in({}, client("none", None)) == ("",)


def test_claims_of_a_proof() -> None:
    plain = dpop_claims("POST", "https://h/a?b#c", now_wall=7.9, unique="u")
    assert plain == {"jti": "u", "htm": "POST", "htu": "https://h/a", "iat": 7}
    full = dpop_claims(
        "GET", "https://h/a", now_wall=7.0, unique="u", nonce="n", access_token=RFC_TOKEN
    )
    assert full["nonce"] == "n"
    assert full["ath"] == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def test_claims_of_an_assertion() -> None:
    claims = assertion_claims("me", "https://as.example", now_wall=7.9, unique="u")
    assert claims["iss"] == claims["sub"] == "me"
    assert claims["aud"] == "https://as.example"
    assert 0 < claims["exp"] - claims["iat"] <= 300
