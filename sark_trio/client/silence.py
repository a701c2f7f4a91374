"""How long an answer is believed that does not say for how long it may be."""

from __future__ import annotations

from typing import Final

from sark_trio.client.servers import Directory, Memory, Registry, Server
from sark_trio.mcp.messages import Agreed

__all__ = ["LIST_TTL_S", "silent_ttl_s"]

#: Lists of servers that cannot say: the original system's cache time.
LIST_TTL_S: Final = 300.0


def silent_ttl_s(server: Server, agreed: Agreed | None, method: str) -> float:
    """Seconds for which *server*'s answer to *method* is fresh if it has no ``ttlMs``.

    MCP 2026-07-28 ("Caching"): 0. Where no answer can say (earlier revisions, a registry, a
    server in this process), a list is believed for five minutes.
    """
    mute = isinstance(server, Directory | Memory | Registry)
    if not mute and (agreed is None or agreed.modern):
        return 0.0
    return LIST_TTL_S if method.endswith(("/list", "servers/get")) else 0.0
