"""Paths and their templates."""

from __future__ import annotations

import pytest

from sark_trio.gateway.routing import METHODS, STREAMS, route_of


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/mcp", "/mcp"),
        ("/health", "/health"),
        ("/api/v1/servers", "/api/v1/servers"),
        ("/api/v1/servers/db", "/api/v1/servers/{name}"),
        ("/api/v1/servers/db/stream", "/api/v1/servers/{name}/stream"),
        ("/api/v1/gateway/authorize-a2a", "/api/v1/gateway/authorize-a2a"),
        ("/api/v1/servers/db/other", "unknown"),
        ("/api/v1/servers/db/stream/more", "unknown"),
        ("/api/v1/servers/", "unknown"),
        ("/api/v1/servers//stream", "unknown"),
        ("/api/v1/servers/{name}", "/api/v1/servers/{name}"),
        ("/", "unknown"),
        ("/mcp/", "unknown"),
        ("/api/v1", "unknown"),
    ],
)
def test_a_path_has_one_template(path: str, route: str) -> None:
    assert route_of(tuple(path.split("/")[1:])) == route


def test_streams_are_routes() -> None:
    assert set(METHODS) >= STREAMS
