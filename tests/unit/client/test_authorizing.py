"""Options, settings and keys of signing in: what can be said, and what each mistake says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jws

from sark_trio import (
    Auth,
    ClientCredentials,
    EnterpriseManaged,
    FileTokens,
    Http,
    KeyringTokens,
    MemoryTokens,
    OAuth,
    TLSOptions,
    WorkloadIdentity,
    load,
)
from sark_trio.client.authorizing.keys import Proofs, SigningKey
from sark_trio.client.authorizing.settings import default_directory
from sark_trio.errors import ConfigError

PEM = jwk.ECKey.generate_key("P-256").as_pem(private=True).decode()


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        (OAuth, {"scopes": ["a b"]}, None),
        (OAuth, {"scopes": ['a"']}, "scopes"),
        (OAuth, {"issuer": "http://as.example"}, "issuer"),
        (OAuth, {"issuer": "http://127.0.0.1:1"}, None),
        (OAuth, {"client_secret": "s"}, "client_secret"),
        (OAuth, {"client_id": ""}, "client_id"),
        (OAuth, {"client_id": "a", "client_secret": "s", "private_key": "p"}, "private_key"),
        (OAuth, {"algorithm": "HS256"}, "algorithm"),
        (OAuth, {"client_metadata_url": "https://app.example"}, "client_metadata_url"),
        (OAuth, {"login_timeout_s": 0}, "login_timeout_s"),
        (OAuth, {"login_timeout_s": float("inf")}, "login_timeout_s"),
        (ClientCredentials, {"client_id": "a"}, "auth"),
        (ClientCredentials, {"client_id": "a", "client_secret": "s"}, None),
        (WorkloadIdentity, {"assertion": ""}, "assertion"),
        (WorkloadIdentity, {"assertion": "jwt"}, None),
        (
            EnterpriseManaged,
            {"id_token": "x", "idp_token_endpoint": "https://i.example/t", "idp_client_id": "i"},
            "auth",
        ),
        (
            EnterpriseManaged,
            {"id_token": "x", "idp_token_endpoint": "http://i.example/t", "idp_client_id": "i"},
            "idp_token_endpoint",
        ),
    ],
)
def test_options_are_checked(kind: Any, options: dict[str, Any], why: str | None) -> None:
    if why is None:
        assert isinstance(kind(**options), Auth)
        return
    with pytest.raises(ConfigError) as caught:
        kind(**options)
    assert caught.value.source == why


def test_secrets_are_not_shown() -> None:
    shown = repr(ClientCredentials(client_id="a", client_secret="s3cret"))
    shown += repr(OAuth(client_id="a", private_key="s3cret"))
    shown += repr(WorkloadIdentity(assertion="s3cret"))
    assert "s3cret" not in shown


def configured(tmp_path: Path, auth: str) -> Http:
    path = tmp_path / "sark.toml"
    path.write_text(f'[servers.db]\nurl = "https://db.example/mcp"\n{auth}\n')
    server = load(path, environ={"SECRET": "s3cret"}).servers["db"]
    assert isinstance(server, Http)
    return server


def test_a_user_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    auth = configured(tmp_path, 'auth = { scopes = "a b", login_timeout_s = 9 }').auth
    assert isinstance(auth, OAuth)
    assert (auth.scopes, auth.login_timeout_s, auth.redirects) == (("a", "b"), 9.0, None)
    assert isinstance(auth.store, FileTokens)
    assert auth.store.directory == default_directory() == tmp_path / "sark_trio" / "tokens"


def test_each_kind_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM)
    (tmp_path / "jwt").write_text("a.b.c\n")
    client = configured(
        tmp_path, 'auth = { kind = "client", client_id = "c", client_secret = "${SECRET}" }'
    ).auth
    assert isinstance(client, ClientCredentials)
    assert client.client_secret == "s3cret"
    assert isinstance(client.store, MemoryTokens)
    key = configured(
        tmp_path, 'auth = { kind = "client", client_id = "c", private_key_file = "key.pem" }'
    ).auth
    assert isinstance(key, ClientCredentials)
    assert key.private_key == PEM
    enterprise = configured(
        tmp_path,
        'auth = { kind = "enterprise", client_id = "c", id_token_file = "jwt", store = "keyring", '
        'idp_client_id = "i", idp_token_endpoint = "https://idp.example/t" }',
    ).auth
    assert isinstance(enterprise, EnterpriseManaged)
    assert isinstance(enterprise.store, KeyringTokens)
    workload = configured(
        tmp_path,
        'auth = { kind = "workload", assertion_file = "jwt", store = "here", dpop = true }',
    ).auth
    assert isinstance(workload, WorkloadIdentity)
    assert workload.dpop
    assert isinstance(workload.store, FileTokens)
    assert workload.store.directory == tmp_path / "here"


@pytest.mark.anyio
async def test_assertions_are_read_anew_each_time(tmp_path: Path) -> None:
    server = configured(tmp_path, 'auth = { kind = "workload", assertion_file = "jwt" }')
    assert isinstance(server.auth, WorkloadIdentity)
    assert callable(server.auth.assertion)
    with pytest.raises(ConfigError, match="cannot be read"):
        await server.auth.assertion()
    for text in ("one", "two"):
        (tmp_path / "jwt").write_text(text)
        assert await server.auth.assertion() == text


def test_pins_and_certificates_are_for_the_server_alone(tmp_path: Path) -> None:
    pin = "ab" * 32
    text = f'tls = {{ pins_sha256 = ["{pin}"], ca_file = "ca.pem" }}\nauth = {{}}'
    server = configured(tmp_path, text)
    assert server.auth is not None
    assert server.auth.tls == TLSOptions(ca_file=str(tmp_path / "ca.pem"))
    assert server.tls is not None
    assert server.tls.pins_sha256 == (pin,)


@pytest.mark.parametrize(
    ("auth", "why"),
    [
        ('auth = { kind = "magic" }', "auth.kind: 'magic' is not one of user"),
        ('auth = { clientid = "x" }', "did you mean 'client_id'"),
        ('auth = { kind = "client" }', "needs client_id"),
        ('auth = { kind = "workload" }', "assertion_file: missing"),
        ('auth = { kind = "enterprise", id_token_file = "x" }', "idp_"),
        ('auth = { issuer = "http://as.example" }', "issuer"),
        ('auth = { private_key_file = "none.pem" }', "cannot be read"),
        ("auth = 7", "expected a table"),
    ],
)
def test_mistakes_are_named_and_placed(tmp_path: Path, auth: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, auth)
    assert why in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_key_signs_and_is_checked() -> None:
    key = SigningKey.from_pem(PEM, "ES256", "k1")
    token = key.sign({}, {"iss": "me"})
    read = jws.deserialize_compact(token, jwk.import_key(PEM, "EC"))
    assert read.headers() == {"alg": "ES256", "kid": "k1", "typ": "JWT"}
    assert json.loads(read.payload) == {"iss": "me"}
    assert "PRIVATE" not in repr(key)
    public = jwk.ECKey.generate_key("P-256").as_pem(private=False).decode()
    for text, algorithm in ((public, "ES256"), (PEM, "RS256"), (PEM, "ES384"), ("x", "ES256")):
        with pytest.raises(ConfigError, match="private key"):
            SigningKey.from_pem(text, algorithm)


def test_a_generated_key_can_be_kept() -> None:
    key = SigningKey.generate()
    again = SigningKey.from_jwk(key.private)
    assert again.thumbprint == key.thumbprint
    assert "d" not in key.public
    assert key.private["d"] not in repr(key)
    with pytest.raises(ConfigError, match="sign in again"):
        SigningKey.from_jwk({"kty": "EC"})


def test_proofs_carry_the_nonce_of_their_server() -> None:
    proofs = Proofs(SigningKey.generate())

    def claims(url: str) -> dict[str, Any]:
        proof = proofs.make("POST", url, now_wall=7.0, unique="u")
        token = jws.extract_compact(proof.encode())
        assert token.headers()["typ"] == "dpop+jwt"
        assert set(token.headers()["jwk"]) == {"kty", "crv", "x", "y"}
        value: dict[str, Any] = json.loads(token.payload)
        return value

    proofs.note("https://a.example/x", "n1")
    proofs.note("https://a.example/x", None)
    proofs.note("https://b.example/x", "n" * 2_000)
    proofs.note("nonsense", "n")
    assert claims("https://a.example/y")["nonce"] == "n1"
    assert "nonce" not in claims("https://b.example/x")
    for number in range(20):
        proofs.note(f"https://h{number}.example/", "n")
    assert "nonce" not in claims("https://a.example/y")
