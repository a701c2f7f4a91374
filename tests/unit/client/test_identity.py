"""Key sets, from files and from URLs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sark_trio import JwksUrl
from sark_trio.client.identity import read_jwks
from sark_trio.errors import ConfigError, ProtocolError


def test_a_key_set_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    assert read_jwks(path) == {"keys": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "not a JWK Set"),
        ('{"keys": {}}', "not a JWK Set"),
        ('{"keys": [], "keys": []}', "twice|duplicate|JSON"),
    ],
)
def test_a_file_that_is_no_key_set_is_named(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_jwks(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/jwks",
        "http://localhost:8080/jwks",
        "http://127.0.0.1/jwks",
        "http://127.1.2.3:1/jwks",
        "http://[::1]/jwks",
    ],
)
def test_keys_may_come_over_tls_or_from_this_machine(url: str) -> None:
    assert JwksUrl(url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "http://10.0.0.1/jwks",
        "http://localhost.evil.example/jwks",
        "http://127.0.0.1.evil.example/jwks",
        "http://127.0.0.1@evil.example/jwks",
        "ftp://127.0.0.1/",
        "jwks",
        "",
    ],
)
def test_keys_may_not_come_from_where_anybody_could_swap_them(url: str) -> None:
    with pytest.raises(ConfigError, match="https"):
        JwksUrl(url)


def fetch(status: int, body: bytes) -> Any:
    asked: list[Any] = []

    async def exchange(*arguments: Any) -> tuple[int, Sequence[tuple[str, str]], bytes]:
        asked.append(arguments)
        return status, [], body

    bound = JwksUrl("https://issuer.example/jwks").bind(exchange)
    try:
        return asyncio.run(bound())  # type: ignore[arg-type]
    finally:
        ((method, url, _, sent, timeout_s),) = asked
        assert (method, url, sent, timeout_s) == ("GET", "https://issuer.example/jwks", b"", 5.0)


def test_keys_are_fetched_by_whom_they_are_bound_to() -> None:
    assert fetch(200, b'{"keys": [{"kty": "EC"}]}') == {"keys": [{"kty": "EC"}]}


@pytest.mark.parametrize(
    ("status", "body"), [(404, b'{"keys": []}'), (302, b""), (200, b"<html>"), (200, b"[]")]
)
def test_what_is_no_key_set_is_an_error(status: int, body: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"issuer\.example"):
        fetch(status, body)


def test_an_unbound_url_says_what_to_do() -> None:
    unbound = JwksUrl("https://issuer.example/jwks")
    with pytest.raises(ConfigError, match="GatewayClient"):
        asyncio.run(unbound())  # type: ignore[arg-type]
    assert "exchange" not in repr(unbound)
