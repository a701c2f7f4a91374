"""The local gateway: a governed client, served over HTTP to those who speak REST or MCP. Black.

Nothing in this room decides, records or sends: it is only a client of
:class:`sark_trio.GatewayClient`, and whoever comes through it is governed as every caller is.
"""

from __future__ import annotations

from sark_trio.client.relay import callers_answer
from sark_trio.gateway.app import Gateway, create_app
from sark_trio.gateway.limits import Limits
from sark_trio.gateway.serve import serve
from sark_trio.gateway.stdio import serve_stdio

__all__ = ["Gateway", "Limits", "callers_answer", "create_app", "serve", "serve_stdio"]
