"""What a walk through a list goes over: what is configured here, then the gateway's pages.

Policy is asked about a batch at a time, so that a list of any length costs the memory of a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from attrs import define, field

from sark_trio.client.directory import GatewayServers, Record
from sark_trio.client.discovery import servers_seen_by, tools_of_all, tools_seen_by
from sark_trio.client.listing import ServerInfo, ToolInfo, server_info
from sark_trio.client.pins import PinKeeper
from sark_trio.client.upstream import Upstream
from sark_trio.errors import GatewayError
from sark_trio.governance.pipeline import Governor
from sark_trio.governance.principal import Principal
from sark_trio.net.pages import Pages

__all__ = ["ServerBatches", "ToolBatches"]


@final
@define(eq=False, kw_only=True)
class ServerBatches:
    """Servers that *principal* may see; ``None``: all.

    :param configured: those that are configured here, whose names hide the gateway's.
    """

    configured: Sequence[Upstream]
    offered: GatewayServers | None
    governor: Governor
    principal: Principal | None
    page_size: int
    _pages: Pages[Record] | None = field(default=None, init=False)
    _began: bool = field(default=False, init=False)

    async def next_batch(self) -> Sequence[ServerInfo] | None:
        """The next ones, perhaps none of a page; ``None``: there are no more."""
        if not self._began:
            self._began = True
            if self.offered is not None:
                self._pages = self.offered.servers(self.page_size)
            return await self.own()
        records = () if self._pages is None else await self._pages.next_page()
        if not records or self.offered is None:
            return None
        return await self._sieve([self.offered.server_info(record) for record in records])

    async def own(self) -> Sequence[ServerInfo]:
        """The servers that are configured here."""
        infos = [server_info(upstream) for upstream in self.configured]
        return await servers_seen_by(self.principal, infos, self.governor)

    async def page(self, page: int) -> Sequence[ServerInfo]:
        """One page of the gateway's servers."""
        if self.offered is None:
            return ()
        return await self._sieve(await self.offered.servers_page(page, self.page_size))

    async def _sieve(self, infos: Sequence[ServerInfo]) -> Sequence[ServerInfo]:
        own_names = {upstream.name for upstream in self.configured}
        foreign = [info for info in infos if info.server_name not in own_names]
        return await servers_seen_by(self.principal, foreign, self.governor)


@final
@define(eq=False, kw_only=True)
class ToolBatches:
    """Tools that *principal* may see, of all servers or of one.

    :param configured: servers that are configured here; their names hide the gateway's.
    :param server: the one that is asked for: what goes wrong with it is raised, then.
    :param failures: filled meanwhile: who could not be asked.
    """

    configured: Sequence[Upstream]
    offered: GatewayServers | None
    governor: Governor
    principal: Principal
    page_size: int
    timeout_s: float
    #: What is known of tools that were approved.
    pins: PinKeeper | None = None
    server: str | None = None
    failures: dict[str, GatewayError] = field(factory=dict)
    stale: bool = field(default=False, init=False)
    _pages: Pages[Record] | None = field(default=None, init=False)
    _began: bool = field(default=False, init=False)

    async def next_batch(self) -> Sequence[ToolInfo] | None:
        """As :meth:`ServerBatches.next_batch`."""
        if not self._began:
            self._began = True
            if self.offered is not None:
                self._pages = self.offered.tools(self.server, self.page_size)
            return await self.own()
        if self._pages is None or self.offered is None:
            return None
        try:
            records = await self._pages.next_page()
        except GatewayError as exc:
            self._pages = None
            self._failed(self.offered, exc)
            return None
        if not records:
            return None
        self.stale = self.stale or any(stale for _, stale in records)
        return await self._sieve(self.offered.tool_infos(records))

    async def own(self) -> Sequence[ToolInfo]:
        """The tools of the servers that are configured here, all of them asked at once.

        :raises GatewayError: the one server that is asked for cannot be asked, or is unknown.
        """
        if self.server is not None and self.offered is not None:
            await self.offered.server(self.server)
        listing = await tools_of_all(
            self.configured, self.principal, self.governor, timeout_s=self.timeout_s
        )
        self.failures.update(listing.failures)
        if self.server is not None and self.server in self.failures:
            raise self.failures[self.server]
        return listing.tools

    async def page(self, page: int) -> Sequence[ToolInfo]:
        """One page of the gateway's tools."""
        if self.offered is None:
            return ()
        try:
            infos, self.stale = await self.offered.tools_page(self.server, page, self.page_size)
        except GatewayError as exc:
            self._failed(self.offered, exc)
            return ()
        return await self._sieve(infos)

    def _failed(self, offered: GatewayServers, error: GatewayError) -> None:
        """Keep the gateway's failure with the others'; where nobody else was asked, raise it."""
        if not self.configured:
            raise error
        self.failures[offered.url] = error

    async def _sieve(self, infos: Sequence[ToolInfo]) -> Sequence[ToolInfo]:
        own_names = {upstream.name for upstream in self.configured}
        foreign = [info for info in infos if info.server_name not in own_names]
        if self.server is not None:  # a registry that knows no filter gives those of all servers
            foreign = [info for info in foreign if info.server_name == self.server]
        if self.pins is not None:
            known = [(info.server_name, info.definition) for info in foreign]
            withheld = await self.pins.withheld_of(known)
            foreign = [i for i in foreign if (i.server_name, i.tool_name) not in withheld]
        return await tools_seen_by(self.principal, foreign, self.governor)
