"""``[client]`` of a configuration file, as far as it is about a gateway that the client uses."""

from __future__ import annotations

from typing import Final, final

from attrs import field, fields, frozen

from sark_trio.client.modes import TransportMode
from sark_trio.client.table import Table

__all__ = ["REMOTE_KEYS", "RemoteSettings", "read_remote"]


@final
@frozen(kw_only=True)
class RemoteSettings:
    """Options of :class:`~sark_trio.client.gateway.GatewayClient`, by their names there."""

    gateway_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    transport_mode: TransportMode = TransportMode.AUTO
    max_connections: int = 50
    enable_error_handling: bool = True


#: What the table may have of them.
REMOTE_KEYS: Final = tuple(one.name for one in fields(RemoteSettings))


def read_remote(table: Table) -> RemoteSettings:
    """The settings in *table*; other keys are left to others.

    :raises ConfigError: a value that cannot be.
    """
    mode = table.take("transport_mode", str, TransportMode.AUTO.value)
    if mode not in set(TransportMode):
        raise table.error(f"{mode!r} is not one of {', '.join(TransportMode)}", "transport_mode")
    connections = table.take("max_connections", int, 50)
    if connections < 1:
        raise table.error(f"{connections} is no positive number", "max_connections")
    return RemoteSettings(
        gateway_url=table.take("gateway_url", str, None),
        api_key=table.take("api_key", str, None),
        transport_mode=TransportMode(mode),
        max_connections=connections,
        enable_error_handling=table.take("enable_error_handling", bool, default=True),
    )
