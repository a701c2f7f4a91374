"""What a configuration file says, happens: no setting is read and left alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from sark_trio.cli.serving import make_app
from sark_trio.client.build import client_of
from sark_trio.client.config import load
from sark_trio.errors import CallTimeout, CircuitOpen, ConfigError, ConnectError
from tests.support.backends import BACKENDS
from tests.support.cli import closed_port
from tests.support.gateway import ask, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def configured(folder: Path, text: str) -> Any:
    path = folder / "sark.toml"
    path.write_text(f'[policy]\nallow_all = true\n[audit]\ndirectory = "audit"\n{text}')
    return load(path, environ={})


def down(more: str = "") -> str:
    return f'[servers.down]\nurl = "http://127.0.0.1:{closed_port()}/mcp"\n{more}'


@pytest.mark.fault(52)
async def test_attempts_and_breaker_are_those_of_the_file(tmp_path: Path) -> None:
    own = "[servers.down.retry]\nattempts = 2\ninitial_delay_s = 0.001\n"
    own += "[servers.down.breaker]\nfailures = 3\nopen_s = 200.0\n"
    async with client_of(configured(tmp_path, down(own))) as client:
        with pytest.raises(ConnectError):
            await client.list_tools("down")
        assert client.statistics().servers["down"].breaker.failures == 2
        with pytest.raises((ConnectError, CircuitOpen)):
            await client.list_tools("down")
        votes = client.statistics().servers["down"].breaker
        assert (votes.failures, votes.state) == (3, "open")
        with pytest.raises(CircuitOpen) as caught:
            await client.invoke_tool("down", "any")
        assert caught.value.retry_after_s is not None
        assert 30 < caught.value.retry_after_s <= 200


@pytest.mark.fault(52)
async def test_the_deadline_is_that_of_the_file(tmp_path: Path) -> None:
    # A listener that never accepts: its backlog takes the connection.
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        text = f'[servers.mute]\nurl = "http://127.0.0.1:{port}/mcp"\n[client]\ntimeout_s = 0.05\n'
        async with client_of(configured(tmp_path, text)) as client:
            began = time.monotonic()
            with pytest.raises(CallTimeout) as caught:
                await client.invoke_tool("mute", "any")
            assert "0.05" in caught.value.message
            assert time.monotonic() - began < 20


@pytest.mark.fault(52)
async def test_the_doors_are_those_of_the_file(tmp_path: Path) -> None:
    text = '[gateway]\nconcurrent = 7\nstreams = 3\naudit_key = "a key for reports"\n'
    text += "[gateway.rate]\nper_s = 0.01\nburst = 2\n"
    text += '[gateway.keys.robot]\nkey = "0123456789-abcdef"\n[agents]\nlab = "staging"\n'
    settings = configured(tmp_path, text)
    assert settings.agents == {"lab": "staging"}
    client = client_of(settings)
    app = make_app(client, settings)
    limits = app.turnstile._limits
    assert (limits.concurrent, limits.streams) == (7, 3)
    assert client._agents == {"lab": "staging"}
    options = {"limits": limits, "audit_key": settings.gateway.audit_key}
    async with client, serving(client, **options) as served:
        statuses = [(await ask(served.url, "GET", "/api/v1/servers")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        wrong = await ask(served.url, "POST", "/api/v1/gateway/audit", {}, X_Gateway_Api_Key="no")
        assert wrong.status == 401


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[gateway]\nenabled = false\n", "gateway.enabled"),
        ("[gateway]\nretry_attempts = 3\n", "gateway.retry_attempts"),
        ("[gateway]\ncircuit_breaker_threshold = 3\n", "gateway.circuit_breaker_threshold"),
        ("[gateway]\nstreams = 0\n", "gateway.streams"),
        ("[gateway.rate]\nper_s = 0\n", "gateway.rate"),
        ("[gateway.rate]\nper_minute = 3\n", "gateway.rate.per_minute"),
        ("[agents]\nlab = 3\n", "agents.lab"),
    ],
)
def test_a_setting_that_nothing_reads_is_an_error(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        configured(tmp_path, text)
