"""What every chapter of the client may use."""

from __future__ import annotations

from sark_trio.client.cached import Cache
from sark_trio.client.caller import Caller
from sark_trio.client.engine import Engine
from sark_trio.client.link import GatewayLink
from sark_trio.client.pins import PinKeeper
from sark_trio.governance.principal import Principal

__all__ = ["Chapter"]


class Chapter:
    """Some methods of a client. ``GatewayClient`` sets what they share.

    Where an operation uses the gateway, or a transport that a mode can forbid, it begins with
    the link's checks: ``self._gateway.check("stdio", "connect_local_server")``, and
    ``self._gateway.base_url("stream_events")`` for the URL. A server that somebody names is
    ``await self._engine.find(name)``: configured, or one of the gateway's.
    """

    #: Every server, and the task group that they live in.
    _engine: Engine
    #: Makes governed calls.
    _caller: Caller
    #: Who calls when a call does not say.
    _principal: Principal
    #: The way to the gateway: URL, key, transport mode, and connections that lead there.
    _gateway: GatewayLink
    #: Answers to lists and reads: ``await self._cache.fetch(upstream, method, params, ask,
    #: principal=who)``, after policy has let *who* ask, and before the answer is redacted.
    _cache: Cache
    #: What is known of tools that were approved; ``None`` where nothing is pinned.
    _pins: PinKeeper | None
