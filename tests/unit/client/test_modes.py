"""Which mode lets which transport be used: the whole table."""

from __future__ import annotations

import pytest

from sark_trio.client.modes import TransportMode, check_mode
from sark_trio.client.servers import Http, Memory, Registry
from sark_trio.client.silence import silent_ttl_s
from sark_trio.errors import TransportNotAvailableError, UsageError
from sark_trio.mcp.messages import Agreed

ALLOWED = {
    "auto": {"http", "registry", "websocket", "sse", "events", "stdio", "memory"},
    "http_only": {"http", "registry", "websocket", "sse", "memory"},
    "sse_only": {"sse", "events", "memory"},
    "stdio_only": {"stdio", "memory"},
}


@pytest.mark.parametrize("mode", TransportMode)
@pytest.mark.parametrize("kind", sorted(ALLOWED["auto"]))
def test_a_mode_lets_its_own_transports_through(mode: TransportMode, kind: str) -> None:
    if kind in ALLOWED[mode.value]:
        check_mode(mode, kind, "doing it")
        return
    with pytest.raises(TransportNotAvailableError) as caught:
        check_mode(mode, kind, "doing it")
    assert isinstance(caught.value, UsageError)
    assert caught.value.delivery == "not_sent"
    assert kind in caught.value.message
    assert mode.value in caught.value.message


MODERN = Agreed(version="2026-07-28", modern=True, server_info={})
LEGACY = Agreed(version="2025-11-25", modern=False, server_info={})


@pytest.mark.parametrize(
    ("server", "agreed", "method", "seconds"),
    [
        (Http("https://x/mcp"), None, "tools/list", 0),
        (Http("https://x/mcp"), MODERN, "tools/list", 0),
        (Http("https://x/mcp"), LEGACY, "tools/list", 300),
        (Http("https://x/mcp"), LEGACY, "resources/read", 0),
        (Registry("https://x", "a"), MODERN, "tools/list", 300),
        (Registry("https://x", "a"), MODERN, "servers/get", 300),
        (Memory(len), None, "prompts/list", 300),  # type: ignore[arg-type]
        (Memory(len), MODERN, "resources/read", 0),  # type: ignore[arg-type]
    ],
)
def test_silence_is_believed_where_nothing_can_be_said(
    server: Http | Registry | Memory, agreed: Agreed | None, method: str, seconds: float
) -> None:
    assert silent_ttl_s(server, agreed, method) == seconds
