"""``[gateway]`` of a configuration file: where ``sark serve`` listens, and whom it lets in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from attrs import field, fields, frozen

from sark_trio.client.table import Table
from sark_trio.machines.limiter import RateOptions

__all__ = ["GatewaySettings", "read_gateway"]


@final
@frozen(kw_only=True)
class GatewaySettings:
    """``[gateway]``: where ``sark serve`` listens, and whom it lets in.

    ``keys`` holds, by the principal's name, an API key and the principal's roles.
    ``rate``, ``concurrent`` and ``streams`` are limits of each caller. With ``passthrough`` MCP
    clients see the own names of the one server that is configured.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    keys: Mapping[str, tuple[str, tuple[str, ...]]] = field(factory=dict, repr=False)
    audit_key: str | None = field(default=None, repr=False)
    rate: RateOptions = field(factory=RateOptions)
    concurrent: int = 100
    streams: int = 8
    passthrough: bool = False


def read_gateway(table: Table) -> GatewaySettings:
    """The settings in *table*.

    :raises ConfigError: a value that cannot be, or a key that nothing reads.
    """
    table.only(*(one.name for one in fields(GatewaySettings)))
    settings = GatewaySettings(
        host=table.take("host", str, "127.0.0.1"),
        port=table.take("port", int, 8080),
        hosts=table.strings("hosts", ()),
        origins=table.strings("origins", ()),
        keys={name: _key(one) for name, one in table.tables("keys").items()},
        audit_key=table.take("audit_key", str, None),
        rate=_rate(table.table("rate")),
        concurrent=table.take("concurrent", int, 100),
        streams=table.take("streams", int, 8),
        passthrough=table.take("passthrough", bool, False),
    )
    if not 0 <= settings.port <= 65_535:
        raise table.error(f"{settings.port} is no port", "port")
    for name in ("concurrent", "streams"):
        if not 1 <= getattr(settings, name) <= 100_000:
            raise table.error(f"{getattr(settings, name)} is not from 1 to 100000", name)
    return settings


def _rate(table: Table) -> RateOptions:
    table.only("per_s", "burst")
    default = RateOptions()
    per_s, burst = table.number("per_s", default.per_s), table.take("burst", int, default.burst)
    try:
        return RateOptions(per_s=per_s, burst=burst)
    except ValueError as exc:
        raise table.error(str(exc)) from exc


def _key(table: Table) -> tuple[str, tuple[str, ...]]:
    table.only("key", "roles")
    return table.take("key", str), table.strings("roles", ())
