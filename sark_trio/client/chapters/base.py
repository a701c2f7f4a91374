"""What every chapter of the client may use."""

from __future__ import annotations

from sark_trio.client.caller import Caller
from sark_trio.client.engine import Engine
from sark_trio.governance.principal import Principal

__all__ = ["Chapter"]


class Chapter:
    """Some methods of a client. ``GatewayClient`` sets what they share."""

    #: Every server, and the task group that they live in.
    _engine: Engine
    #: Makes governed calls.
    _caller: Caller
    #: Who calls when a call does not say.
    _principal: Principal
