"""What the page about signing in shows is read by the program, and runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sark_trio import (
    ClientCredentials,
    EnterpriseManaged,
    Http,
    KeyringTokens,
    OAuth,
    WorkloadIdentity,
    load,
)
from tests.tidy.source import ROOT

PAGE = (ROOT / "docs" / "howto" / "sign-in.md").read_text()
KINDS = {
    "crm": OAuth,
    "reports": ClientCredentials,
    "ledger": ClientCredentials,
    "jobs": WorkloadIdentity,
    "wiki": EnterpriseManaged,
    "vault": OAuth,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("a key")
    path = tmp_path / "sark.toml"
    path.write_text("\n".join(blocks("toml")))
    servers = load(path, environ={"CLIENT_SECRET": "s3cret"}).servers
    assert set(servers) == set(KINDS)
    for name, kind in KINDS.items():
        server = servers[name]
        assert isinstance(server, Http)
        assert type(server.auth) is kind
    vault = servers["vault"]
    assert isinstance(vault, Http)
    assert vault.auth is not None
    assert (vault.auth.dpop, vault.auth.scopes) == (True, ("secrets:read",))
    assert isinstance(vault.auth.store, KeyringTokens)


@pytest.mark.parametrize("text", blocks("python"))
def test_every_program_runs(text: str) -> None:
    names: dict[str, object] = {}
    exec(compile(text, "sign-in.md", "exec"), names)
    assert isinstance(names["desktop"], Http)
    assert isinstance(names["web"], Http)
