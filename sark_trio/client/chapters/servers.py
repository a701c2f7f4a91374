"""Adding, removing, connecting and naming servers."""

from __future__ import annotations

from collections.abc import Sequence

from sark_trio.client.chapters.base import Chapter
from sark_trio.client.listing import ServerInfo, server_info
from sark_trio.client.servers import Server
from sark_trio.mcp.messages import Agreed

__all__ = ["Servers"]


class Servers(Chapter):
    """The servers of a client."""

    async def add_server(self, name: str, server: Server | str | Sequence[str]) -> None:
        """Add a server to the running client; it is contacted when it is first needed.

        :raises ConfigError: the name is taken or cannot be one.
        """
        await self._engine.add(name, server)

    async def remove_server(self, name: str) -> None:
        """Close a server's transport and forget the server; its running calls fail."""
        await self._engine.remove(name)

    async def connect(self, name: str) -> Agreed:
        """Connect now instead of at the first call, and say what was agreed.

        A server that was disconnected, or whose transport crashed, starts afresh.

        :raises GatewayError: as the first call would.
        """
        upstream = await self._engine.restart(name)
        return await upstream.connect()

    async def disconnect(self, name: str) -> None:
        """Close a server's transport and wait until nothing of it is left; its calls fail."""
        await self._engine.upstream(name).aclose()

    async def list_servers(self) -> tuple[ServerInfo, ...]:
        """The configured servers, and what is known of them without asking them."""
        return tuple(server_info(upstream) for upstream in self._engine.upstreams.values())

    async def get_server_info(self, name: str) -> ServerInfo:
        """One configured server.

        :raises UnknownServer: there is none of that name.
        """
        return server_info(self._engine.upstream(name))
