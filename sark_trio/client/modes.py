"""Which kinds of transport a client may use: the original system's transport modes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Final

from sark_trio.errors import TransportNotAvailableError

__all__ = ["TransportMode", "check_mode"]


@unique
class TransportMode(StrEnum):
    """What a client may reach its servers over. Whatever it may not is refused, and not sent."""

    #: Whatever an operation and its server's address ask for.
    AUTO = "auto"
    #: Servers behind URLs, the gateway's lists and its servers.
    HTTP_ONLY = "http_only"
    #: Event streams, and servers that speak MCP's old HTTP+SSE.
    SSE_ONLY = "sse_only"
    #: Programs that we start.
    STDIO_ONLY = "stdio_only"


_WEB: Final = frozenset({TransportMode.HTTP_ONLY})
#: Kind of a transport (``Transport.kind``, and ``events`` for streams of the gateway's events)
#: to the modes that let it be used beside ``AUTO``. What is not named here leaves this process
#: by no transport, so that no mode forbids it: servers in memory.
_ALLOWED: Final[Mapping[str, frozenset[TransportMode]]] = {
    "events": frozenset({TransportMode.SSE_ONLY}),
    "http": _WEB,
    "registry": _WEB,
    "sse": frozenset({TransportMode.HTTP_ONLY, TransportMode.SSE_ONLY}),
    "stdio": frozenset({TransportMode.STDIO_ONLY}),
    "websocket": _WEB,
}


def check_mode(mode: TransportMode, kind: str, operation: str) -> None:
    """Let *operation* use a transport of *kind*, or refuse.

    :param operation: for the message: what was asked for, such as ``connect_local_server``.
    :raises TransportNotAvailableError: *mode* forbids it.
    """
    if mode is TransportMode.AUTO or mode in _ALLOWED.get(kind, {mode}):
        return
    raise TransportNotAvailableError(
        f"{operation} needs the {kind} transport, and this client is "
        f"transport_mode={mode.value!r}: use 'auto', or another client"
    )
