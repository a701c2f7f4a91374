from __future__ import annotations

import pytest

from sark_trio.auth.urls import (
    Place,
    canonical_resource,
    default_endpoint,
    is_loopback,
    is_resource_of,
    place_of,
    proof_target,
    refusal,
    resource_metadata_urls,
    server_metadata_urls,
)

WELL = "https://h.example/.well-known"


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "h.example",
        "ftp://h.example",
        "javascript:alert(1)",
        "https://",
        "https://h.example#x",
        "https://h.example#",
        "https://me@h.example",
        "https://h.example\\x",
        "https://h.example:0",
        "https://h.example:99999",
        "https://h.exam ple",
        "https://[::1",
        "https://[fe80::1%25eth0]/",
        "https://h.example/" + "x" * 9_000,
        "https://b\u00fccher.example",
    ],
)
def test_what_is_no_plain_web_url(url: object) -> None:
    assert place_of(url) is None


def test_a_place_has_an_origin() -> None:
    place = place_of("HTTPS://H.Example:443/A?b")
    assert place == Place("https", "h.example", 443, "/A", "b")
    assert place.origin == "https://h.example"
    six = place_of("http://[::1]:81/")
    assert six is not None
    assert six.origin == "http://[::1]:81"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/", True),
        ("http://127.9.9.9/", True),
        ("http://[::1]/", True),
        ("http://localhost:3000", True),
        ("http://localhost.example", False),
        ("https://10.0.0.1/", False),
        ("nonsense", False),
    ],
)
def test_loopback(url: str, here: bool) -> None:
    assert is_loopback(url) is here


@pytest.mark.security(10)
@pytest.mark.parametrize(
    ("url", "loopback", "reason"),
    [
        ("https://as.example/x", False, None),
        ("http://as.example/x", True, "it is not https://"),
        ("http://127.0.0.1/x", True, None),
        ("http://127.0.0.1/x", False, "it leads to this machine"),
        ("https://localhost/x", False, "it leads to this machine"),
        ("file:///etc/passwd", True, "it is no plain web URL"),
    ],
)
def test_the_gate(url: str, loopback: bool, reason: str | None) -> None:
    assert refusal(url, loopback=loopback) == reason


@pytest.mark.security(5)
@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://H.Example/", "https://h.example"),
        ("https://h.example", "https://h.example"),
        ("https://h.example:8443/mcp", "https://h.example:8443/mcp"),
        ("https://h.example/mcp/?a=b", "https://h.example/mcp/?a=b"),
        ("nonsense", "nonsense"),
    ],
)
def test_resources_have_one_name(url: str, name: str) -> None:
    assert canonical_resource(url) == name


@pytest.mark.parametrize(
    ("resource", "server", "its"),
    [
        ("https://h.example/mcp", "https://h.example/mcp", True),
        ("https://h.example", "https://h.example/mcp", True),
        ("https://h.example/", "https://h.example/mcp", True),
        ("https://h.example/mcp/", "https://h.example/mcp", True),
        ("https://h.example/a", "https://h.example/a/mcp", True),
        ("https://h.example/a", "https://h.example/ab", False),
        ("https://h.example/other", "https://h.example/mcp", False),
        ("https://h.example/mcp?t=1", "https://h.example/mcp?t=1", True),
        ("https://h.example/mcp?t=1", "https://h.example/mcp?t=2", False),
        ("https://evil.example/mcp", "https://h.example/mcp", False),
        ("http://h.example/mcp", "https://h.example/mcp", False),
        ("nonsense", "https://h.example/mcp", False),
        ("https://h.example", "nonsense", False),
    ],
)
def test_metadata_is_of_its_resource(resource: str, server: str, its: bool) -> None:
    assert is_resource_of(resource, server) is its


def test_where_resource_metadata_is() -> None:
    root = f"{WELL}/oauth-protected-resource"
    assert resource_metadata_urls("https://h.example/a/mcp") == (f"{root}/a/mcp", root)
    assert resource_metadata_urls("https://h.example/") == (root,)
    assert resource_metadata_urls("https://h.example/?t=1") == (f"{root}?t=1", root)
    assert resource_metadata_urls("nonsense") == ()


def test_where_server_metadata_is_in_the_order_to_try() -> None:
    assert server_metadata_urls("https://h.example/t1") == (
        f"{WELL}/oauth-authorization-server/t1",
        f"{WELL}/openid-configuration/t1",
        "https://h.example/t1/.well-known/openid-configuration",
    )
    assert server_metadata_urls("https://h.example/") == (
        f"{WELL}/oauth-authorization-server",
        f"{WELL}/openid-configuration",
    )
    assert server_metadata_urls("https://h.example?x=1") == ()
    assert server_metadata_urls("nonsense") == ()


def test_default_endpoints_and_proof_targets() -> None:
    assert default_endpoint("https://h.example/v1/mcp", "token") == "https://h.example/token"
    assert default_endpoint("nonsense", "token") == ""
    assert proof_target("https://h.example/a?b#c") == "https://h.example/a"
