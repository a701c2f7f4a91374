"""Which transport a server's description stands for.

They are made here and used in ``client/upstream.py``, by which alone this is imported: no other
file of the client can get hold of a wire.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Final

from sark_trio.client.authorizing.authorizer import authorizer_of
from sark_trio.client.fallback import FallbackTransport
from sark_trio.client.modes import TransportMode
from sark_trio.client.reach import check_of
from sark_trio.client.servers import Directory, Http, Memory, Registry, Server, Stdio, WebSocket
from sark_trio.errors import ConfigError
from sark_trio.machines.supervision import SuperviseOptions
from sark_trio.mcp.messages import Notification
from sark_trio.mcp.versions import HTTP_SSE
from sark_trio.net.streams import AnyIOBackend
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports.answering import Asker
from sark_trio.transports.base import Transport
from sark_trio.transports.http import HttpTransport
from sark_trio.transports.memory import MemoryTransport
from sark_trio.transports.process import ChildProcess
from sark_trio.transports.registry import DirectoryTransport, RegistryTransport
from sark_trio.transports.sse import SseTransport
from sark_trio.transports.stdio import StdioTransport
from sark_trio.transports.websocket import WebSocketTransport

__all__ = ["wire_of"]

#: Who we say we are (MCP 2026-07-28, "clientInfo"): for display, never for decisions.
CLIENT_INFO: Final = {"name": "sark_trio", "version": version("sark_trio")}


def wire_of(
    server: Server,
    *,
    on_event: Callable[[Notification], None],
    on_request: Asker | None = None,
    capabilities: Mapping[str, Any] | None = None,
    report: Reporter | None = None,
    mode: TransportMode = TransportMode.AUTO,
    jitter: Callable[[], float] = random.random,
) -> Transport:
    """The transport to *server*, not running yet.

    :param on_event: told each notification that belongs to no request.
    :param on_request: answers requests of a legacy server's that come with no call.
    :param capabilities: what we say we can do.
    :param mode: decides between two transports where a server may have either.
    :param jitter: draws from [0, 1), for the delays between restarts.
    :raises ValueError: an option that this transport does not have, or refuses.
    """
    offers: dict[str, Any] = {"on_request": on_request, "capabilities": capabilities or {}}
    if isinstance(server, Http):
        return _behind_url(server, on_event, report, mode, offers)
    if isinstance(server, WebSocket):
        return WebSocketTransport(
            server.url,
            headers=server.headers.items(),
            tls=server.tls,
            client_info=CLIENT_INFO,
            pinned_version=server.protocol_version,
            on_event=on_event,
            backend=server.network or AnyIOBackend(address_check=check_of(server.addresses)),
            **offers,
        )
    if isinstance(server, Stdio):
        return StdioTransport(
            server.command,
            cwd=None if server.cwd is None else str(server.cwd),
            env=server.env,
            limits=server.limits,
            supervision=server.supervision or SuperviseOptions(),
            die_with_parent=server.die_with_parent,
            sha256=server.sha256,
            spawn=server.spawn or ChildProcess.spawn,
            jitter=jitter,
            client_info=CLIENT_INFO,
            pinned_version=server.protocol_version,
            on_event=on_event,
            report=report,
            **offers,
        )
    if server.protocol_version is not None:
        raise ValueError("protocol_version: only what speaks MCP itself can be held to a revision")
    if isinstance(server, Registry):
        return RegistryTransport(
            server.url,
            server.server,
            api_key=server.api_key,
            tls=server.tls,
            connections=server.pool,
            address_check=check_of(server.addresses),
            report=report,
        )
    if isinstance(server, Directory):
        return DirectoryTransport(server.url, api_key=server.api_key, connections=server.pool)
    if isinstance(server, Memory):
        return MemoryTransport(server.serve, on_event=on_event)
    raise ConfigError(f"{type(server).__name__} is no server that can be reached")


def _behind_url(
    server: Http,
    on_event: Callable[[Notification], None],
    report: Reporter | None,
    mode: TransportMode,
    offers: Mapping[str, Any],
) -> Transport:
    def older() -> SseTransport:
        return SseTransport(
            server.url,
            headers=server.headers.items(),
            auth=authorizer_of(server),
            tls=server.tls,
            client_info=CLIENT_INFO,
            on_event=on_event,
            report=report,
            backend=server.network,
            address_check=check_of(server.addresses),
            **offers,
        )

    if server.protocol_version == HTTP_SSE or mode is TransportMode.SSE_ONLY:
        return older()
    newer = HttpTransport(
        server.url,
        headers=tuple(server.headers.items()),
        auth=authorizer_of(server),
        tls=server.tls,
        client_info=CLIENT_INFO,
        pinned_version=server.protocol_version,
        on_event=on_event,
        backend=server.network,
        address_check=check_of(server.addresses),
        report=report,
        **offers,
    )
    if server.protocol_version is not None:
        return newer
    return FallbackTransport(newer, older, lambda: newer.try_sse)
