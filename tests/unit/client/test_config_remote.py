"""``[client]``: a gateway that the client uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sark_trio.client.build import client_of
from sark_trio.client.config import load
from sark_trio.client.modes import TransportMode
from sark_trio.errors import ConfigError


def read(folder: Path, text: str, **environ: str) -> Any:
    (folder / "sark.toml").write_text(text)
    return load(folder / "sark.toml", environ=environ)


@pytest.mark.fault(52)
def test_every_key_is_in_force(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
[audit]
directory = "audit"
[client]
gateway_url = "https://gateway.example/"
api_key = "${KEY}"
transport_mode = "http_only"
max_connections = 7
enable_error_handling = false
[servers.db]
url = "https://db.example/mcp"
cache_public = true
[servers.db.tools.query]
cache_ttl_s = 60
""",
        KEY="s3cret",
    )
    assert "s3cret" not in repr(settings)
    client = client_of(settings)
    link = client._gateway
    assert (link.url, link.api_key) == ("https://gateway.example", "s3cret")
    assert link.mode is TransportMode.HTTP_ONLY
    assert client.get_metrics().error_handler is None
    server = client._engine.upstream("db").server
    assert server.cache_public
    assert server.rule("query").cache_ttl_s == 60


def test_nothing_said_is_no_gateway(tmp_path: Path) -> None:
    remote = read(tmp_path, "").remote
    assert (remote.gateway_url, remote.api_key) == (None, None)
    assert (remote.transport_mode, remote.max_connections) == (TransportMode.AUTO, 50)
    assert remote.enable_error_handling


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('transport_mode = "pigeon"', "client.transport_mode: 'pigeon' is not one of auto"),
        ("max_connections = 0", "client.max_connections"),
        ('max_connections = "many"', "client.max_connections"),
        ("gateway_url = 1", "client.gateway_url"),
        ('gateway = "https://x"', "did you mean 'gateway_url'"),
    ],
)
def test_a_mistake_is_named_and_placed(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(tmp_path, f"[client]\n{line}\n")
