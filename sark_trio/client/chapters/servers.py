"""Adding, removing, connecting and naming servers."""

from __future__ import annotations

from collections.abc import Sequence

from sark_trio.client.batches import ServerBatches
from sark_trio.client.chapters.base import Chapter
from sark_trio.client.listing import ServerInfo, server_info
from sark_trio.client.servers import Server
from sark_trio.client.switches import check_on
from sark_trio.client.walk import Walk
from sark_trio.errors import UnknownServer
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import SERVER_INFO, Query
from sark_trio.mcp.messages import Agreed
from sark_trio.net.clock import lasting_time
from sark_trio.net.pages import PAGE_SIZE

__all__ = ["Servers"]


class Servers(Chapter):
    """The servers of a client."""

    async def add_server(self, name: str, server: Server | str | Sequence[str]) -> None:
        """Add a server to the running client; it is contacted when it is first needed.

        :raises ConfigError: the name is taken or cannot be one.
        """
        await self._engine.add(name, server)
        self._caller.audit.event_nowait("server_registered", {"server": name})

    async def remove_server(self, name: str) -> None:
        """Close a server's transport and forget the server; its running calls fail."""
        upstream = await self._engine.take_out(name)
        self._caller.audit.event_nowait("server_removed", {"server": name})
        await self._leave(upstream)

    async def connect(self, name: str) -> Agreed:
        """Connect now instead of at the first call, and say what was agreed.

        A server that was disconnected, or whose transport crashed, starts afresh.

        :raises GatewayError: as the first call would.
        """
        check_on(self._caller, name, self._principal, "server/discover")
        upstream = await self._engine.restart(name)
        return await upstream.connect()

    async def disconnect(self, name: str) -> None:
        """Close a server's transport and wait until nothing of it is left; its calls fail."""
        await self._leave(self._engine.upstream(name))

    async def list_servers(
        self, page: int = 1, page_size: int = PAGE_SIZE, *, principal: Principal | None = None
    ) -> tuple[ServerInfo, ...]:
        """The configured servers, and one page of the gateway's where the client has one.

        The configured ones come with the first page, whatever its size: what is known of them
        without asking them. A page may be short, or empty, though others follow: names that are
        configured here are ours, and policy may hide some. See :meth:`list_all_servers`.

        :param page: from 1, of the gateway's list.
        :param page_size: servers of the gateway's on a page, at most 1000.
        :param principal: only those that policy lets them see (``gateway:server:list``);
            default: all.
        :raises GatewayError: the gateway could not be asked.
        :raises PolicyUnavailable: policy could not decide about one of them.
        """
        batches = self._server_batches(page_size, principal)
        own = await batches.own() if page <= 1 else ()
        return (*own, *await batches.page(page))

    async def list_all_servers(
        self, *, page_size: int = PAGE_SIZE, principal: Principal | None = None
    ) -> tuple[ServerInfo, ...]:
        """As :meth:`list_servers`, of all pages; for very many use :meth:`stream_servers`.

        :raises ProtocolError: the gateway repeats itself.
        :raises UsageError: there are more than 100,000.
        """
        return await self.stream_servers(page_size=page_size, principal=principal).collect()

    def stream_servers(
        self, *, page_size: int = PAGE_SIZE, principal: Principal | None = None
    ) -> Walk[ServerInfo]:
        """``async for``: as :meth:`list_servers`, page after page, in the memory of one."""
        return Walk(self._server_batches(page_size, principal).next_batch)

    def _server_batches(self, page_size: int, principal: Principal | None) -> ServerBatches:
        if self._engine.offered is not None:
            self._engine.open_tasks()
        return ServerBatches(
            configured=list(self._engine.upstreams.values()),
            offered=self._engine.offered,
            governor=self._caller.governor,
            principal=principal,
            page_size=page_size,
        )

    async def get_server_info(self, name: str, *, principal: Principal | None = None) -> ServerInfo:
        """One server, configured here or the gateway's.

        :param principal: who must be allowed to see it (``gateway:server:info``); default:
            nobody is asked.
        :raises UnknownServer: there is none of that name, or none that *principal* may see.
        :raises PolicyUnavailable: policy could not decide.
        """
        info = await self._info(name)
        if principal is not None:
            query = Query(
                principal=principal,
                action=SERVER_INFO,
                server=name,
                sensitivity=info.sensitivity_level,
            )
            verdict = await self._caller.governor.decide(lasting_time(), query)
            if verdict.fault is not None:
                raise verdict.denial()
            if not verdict.allow:
                raise UnknownServer(f"no server {name!r}", server=name)
        return info

    async def _info(self, name: str) -> ServerInfo:
        offered = self._engine.offered
        if name in self._engine.upstreams or offered is None:
            return server_info(self._engine.upstream(name))
        self._engine.open_tasks()
        return await offered.server(name)
