"""What an application gets wrong is named when it is said, in errors of ours, without secrets."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio import AuditLog, ConfigError, GatewayClient, Http
from sark_trio.errors import UsageError
from tests.support.audit_disk import MemoryDisk
from tests.support.client import desk, open_client

SECRET = "canary-7f3a"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"servers": ["https://db.example/mcp"]}, "servers: expected servers by their names"),
        ({"servers": {5: "https://db.example/mcp"}}, "server name 5"),
        ({"servers": {"db": Http("https://db.example/mcp", auth=SECRET)}}, "auth: expected OAuth"),
        ({"audit": 5}, "audit: expected an AuditLog"),
        ({"timeout_s": "3"}, "timeout_s: '3' is no number"),
        ({"grace_s": None}, "grace_s: None is no number"),
        ({"principal": "alice"}, "principal: expected Principal, got str"),
        ({"identity": SECRET}, "identity: expected TokenVerifier, got str"),
        ({"breaker": 5}, "breaker: expected BreakerOptions, got int"),
        ({"retry": 3}, "retry: expected RetryConfig, got int"),
        ({"handlers": {"elicit": print}}, "handlers: expected Handlers, got dict"),
        ({"tls": False}, "tls: expected TLSOptions, got bool"),
        ({"cache": True}, "cache: expected CacheOptions, got bool"),
    ],
)
def test_an_option_that_cannot_be_is_named_before_anything_is_started(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        GatewayClient(**{"audit": AuditLog("log", files=MemoryDisk()), **options})
    assert SECRET not in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"principal": "alice"}, "principal: expected Principal, got str"),
        ({"handlers": {}}, "handlers: expected Handlers, got dict"),
        ({"timeout_s": "5"}, "timeout_s='5' is no number of seconds"),
        ({"timeout_s": float("nan")}, "timeout_s=nan is no number of seconds"),
    ],
)
async def test_an_option_of_a_call_that_cannot_be_is_named(
    options: dict[str, Any], words: str
) -> None:
    server = desk()
    async with open_client(server) as client:
        with pytest.raises(UsageError, match=words) as caught:
            await client.invoke_tool("desk", "echo", **options)
        assert caught.value.delivery == "not_sent"
    assert server.lists == 0
