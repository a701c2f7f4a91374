"""``[gateway]`` of a configuration file."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.client.config_gateway import GatewaySettings, read_gateway
from sark_trio.client.table import Table
from sark_trio.errors import ConfigError
from sark_trio.machines.limiter import RateOptions


def read(data: dict[str, Any]) -> GatewaySettings:
    return read_gateway(Table(data, "sark.toml", ("gateway",), {"KEY": "a-secret-key-12345"}))


def test_nothing_is_the_default() -> None:
    assert read({}) == GatewaySettings()


def test_everything() -> None:
    settings = read(
        {
            "host": "::1",
            "port": 0,
            "hosts": "gateway.example",
            "origins": ["https://app.example"],
            "keys": {"robot": {"key": "${KEY}", "roles": ["analyst"]}},
            "audit_key": "${KEY}",
            "rate": {"per_s": 2.5, "burst": 7},
            "concurrent": 3,
            "streams": 1,
        }
    )
    assert (settings.host, settings.port) == ("::1", 0)
    assert (settings.hosts, settings.origins) == (("gateway.example",), ("https://app.example",))
    assert settings.keys == {"robot": ("a-secret-key-12345", ("analyst",))}
    assert settings.rate == RateOptions(per_s=2.5, burst=7)
    assert (settings.concurrent, settings.streams) == (3, 1)
    assert settings.audit_key == "a-secret-key-12345"
    assert "a-secret-key" not in repr(settings)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"port": 65_536}, "gateway.port: 65536 is no port"),
        ({"concurrent": 0}, "gateway.concurrent"),
        ({"streams": 100_001}, "gateway.streams"),
        ({"rate": {"burst": 0}}, "gateway.rate: burst must be from 1"),
        ({"rate": {"per_s": "fast"}}, "gateway.rate.per_s: expected a number"),
        ({"keys": {"robot": {}}}, "gateway.keys.robot.key: missing"),
        ({"ports": 1}, "did you mean 'port'"),
    ],
)
def test_what_cannot_be_is_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(data)
