"""From settings to a client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from sark_trio import AllowAll, AuditLog, GatewayClient, JwksUrl, Opa, Principal, Rego, load
from sark_trio.client.build import audit_of, client_of, policy_of, principal_of, verifier_of
from sark_trio.client.config import AuditSettings, IdentitySettings, PolicySettings, Settings
from sark_trio.errors import ConfigError
from tests.support.governance import POLICIES
from tests.support.tokens import AUDIENCE, ISSUER, Issuer


def settings(folder: Path, text: str) -> Settings:
    path = folder / "sark.toml"
    path.write_text(text)
    return load(path, environ={})


def test_each_policy_is_made() -> None:
    assert policy_of(PolicySettings()) is None
    assert isinstance(policy_of(PolicySettings(allow_all=True)), AllowAll)
    rego = policy_of(PolicySettings(rego=(Path("a.rego"),), query="data.x"))
    assert isinstance(rego, Rego)
    opa = policy_of(PolicySettings(opa="http://127.0.0.1:8181", opa_path="/v1/data/x"))
    assert isinstance(opa, Opa)
    assert opa.path == "/v1/data/x"
    assert isinstance(policy_of(PolicySettings(opa="http://127.0.0.1:8181")), Opa)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("{", "not JSON"), ("[]", "must be a JSON object")],
)
def test_policy_data_that_is_none_is_named(
    tmp_path: Path, content: str | None, message: str
) -> None:
    data = tmp_path / "facts.json"
    if content is not None:
        data.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        policy_of(PolicySettings(rego=(Path("a.rego"),), data=data))
    assert caught.value.source == str(data)


@pytest.mark.parametrize("text", ['opa = "ftp://x"', 'opa = "http://x"\nopa_path = "/x"'])
def test_an_opa_that_cannot_be_is_an_error_of_the_file(tmp_path: Path, text: str) -> None:
    wrong = settings(tmp_path, f'[policy]\n{text}\n[audit]\ndirectory = "a"\n')
    with pytest.raises(ConfigError, match="policy"):
        client_of(wrong)


def test_a_whole_client_is_made_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "policy.rego").write_bytes((POLICIES / "gateway.rego").read_bytes())
    (tmp_path / "keys.json").write_text(json.dumps(Issuer().jwks))
    text = f"""
[policy]
rego = "policy.rego"
[audit]
directory = "audit"
[identity]
jwks = "keys.json"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
[servers.db]
url = "https://db.example/mcp"
"""
    client = client_of(settings(tmp_path, text))
    assert isinstance(client, GatewayClient)
    assert set(client.statistics().servers) == {"db"}
    assert not (tmp_path / "audit").exists()


def test_a_policy_file_that_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    text = '[policy]\nrego = "policy.rego"\n[audit]\ndirectory = "audit"\n'
    with pytest.raises(ConfigError, match=r"policy\.rego"):
        client_of(settings(tmp_path, text))
    (tmp_path / "policy.rego").write_text("package mcp.gateway\nallow if {")
    with pytest.raises(ConfigError, match=r"policy\.rego"):
        client_of(settings(tmp_path, text))


def test_without_a_log_there_is_no_client(tmp_path: Path) -> None:
    bare = settings(tmp_path, "")
    with pytest.raises(ConfigError, match=r"no \[audit\] directory"):
        client_of(bare)
    client_of(bare, audit=tmp_path / "audit")
    client_of(bare, audit=AuditLog(tmp_path / "audit"), principal=Principal(id="ada"))


def test_a_log_that_cannot_be_is_an_error_of_the_file(tmp_path: Path) -> None:
    wrong = evolve(
        settings(tmp_path, ""),
        audit=AuditSettings(directory=tmp_path, fsync="never"),  # type: ignore[arg-type]
    )
    with pytest.raises(ConfigError, match="fsync") as caught:
        audit_of(wrong)
    assert caught.value.source == str(tmp_path / "sark.toml")


@pytest.mark.parametrize("option", ["timeout_s = 3000", "grace_s = nan", "concurrent_max = 0"])
def test_what_the_client_refuses_stands_in_the_file(tmp_path: Path, option: str) -> None:
    wrong = settings(tmp_path, f'[audit]\ndirectory = "a"\n[client]\n{option}\n')
    with pytest.raises(ConfigError, match=f"sark.toml: {option.split(maxsplit=1)[0]}: "):
        client_of(wrong)
    broken = f'[audit]\ndirectory = "a"\n[policy]\nrego = "{tmp_path}/no.rego"\n'
    with pytest.raises(ConfigError, match=r"no\.rego: can not be read: No such file") as caught:
        client_of(settings(tmp_path, broken))
    assert caught.value.source == str(tmp_path / "no.rego")


def identity(**fields: Any) -> IdentitySettings:
    return IdentitySettings(**{"issuer": ISSUER, "audience": AUDIENCE, **fields})


def test_tokens_are_checked_where_keys_are_configured(tmp_path: Path) -> None:
    assert verifier_of(IdentitySettings(), "f") is None
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(Issuer().jwks))
    local = verifier_of(identity(jwks=str(keys)), "f")
    assert local is not None
    remote = verifier_of(identity(jwks="https://issuer.example/jwks"), "f")
    assert remote is not None
    assert isinstance(remote.keys, JwksUrl)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"jwks": "https://x/", "issuer": None}, "needs 'issuer' and 'audience'"),
        ({"jwks": "https://x/", "audience": None}, "needs 'issuer' and 'audience'"),
        ({"jwks": "https://x/", "algorithms": ("none",)}, "identity: .*none"),
        ({"jwks": "http://issuer.example/jwks"}, "identity: .*https"),
    ],
)
def test_an_identity_that_cannot_be_is_an_error_of_the_file(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        verifier_of(identity(**fields), "sark.toml")
    assert caught.value.source == "sark.toml"


def test_who_the_command_line_acts_as() -> None:
    assert principal_of(IdentitySettings()) is None
    ada = principal_of(IdentitySettings(principal="ada", roles=("analyst",)))
    assert ada == Principal(id="ada", roles=("analyst",))
