"""The gateway's servers: listed page by page, and made into upstreams when one is called."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast, final, get_args

import anyio
from attrs import define, field

from sark_trio.client.answers import Answer
from sark_trio.client.cached import Cache
from sark_trio.client.link import GatewayLink
from sark_trio.client.listing import Health, ServerInfo, ToolInfo
from sark_trio.client.servers import Directory, Registry, Sensitivity, Server
from sark_trio.client.upstream import Upstream
from sark_trio.errors import GatewayError, HTTPStatusError, Overloaded, UnknownServer, UsageError
from sark_trio.mcp.tools import parse_tools
from sark_trio.net.pages import Page, Pages, page_limit

__all__ = ["GatewayServers"]

#: Servers of the gateway that have an upstream at a time: each has a breaker, a budget and a list
#: of tools of its own. Beyond that the one that was not used for longest is forgotten.
UPSTREAMS_MAX: Final = 256
#: Of one page or record, retries included.
ASK_TIMEOUT_S: Final = 30.0
#: Messages and statistics call the gateway by this name. No server can have it.
NAME: Final = "(gateway)"
_LEVELS: Final[Sequence[Sensitivity]] = get_args(Sensitivity)

#: One record of a list, as JSON, and whether it is from an answer whose time is over.
Record = tuple[Mapping[str, Any], bool]


@final
@define(eq=False, kw_only=True)
class GatewayServers:
    """What the gateway offers. There is one where the client has a gateway.

    :param make: the upstream of a named server.
    :param start: runs an upstream in a task of the client's.
    """

    link: GatewayLink
    url: str
    cache: Cache
    make: Callable[[str, Server], Upstream]
    start: Callable[[Upstream], Awaitable[None]]
    #: The gateway as a whole: its lists have their own breaker and retries.
    upstream: Upstream = field(init=False)
    _made: OrderedDict[str, Upstream] = field(factory=OrderedDict, init=False)
    _making: anyio.Lock = field(factory=partial(anyio.Lock, fast_acquire=True), init=False)

    def __attrs_post_init__(self) -> None:
        whole = Directory(self.url, api_key=self.link.api_key, pool=self.link.pool)
        self.upstream = self.make(NAME, whole)

    # -- lists --------------------------------------------------------------------------------

    async def servers_page(self, page: int, page_size: int) -> tuple[ServerInfo, ...]:
        """One page of servers; pages count from 1."""
        limit = _limit(page_size)
        records, _ = await self._servers((max(page, 1) - 1) * limit, limit)
        return tuple(self.server_info(record) for record in records)

    def servers(self, page_size: int) -> Pages[Record]:
        """Every server's record, page after page."""
        limit = _limit(page_size)
        fetch = partial(self._servers, limit=limit)
        return Pages("servers of the gateway", limit, fetch, _server_key)

    async def tools_page(
        self, server: str | None, page: int, page_size: int
    ) -> tuple[Sequence[ToolInfo], bool]:
        """One page of tools, of one server or of all; and whether it is stale."""
        limit = _limit(page_size)
        records, _ = await self._tools((max(page, 1) - 1) * limit, limit, server)
        return self.tool_infos(records), any(stale for _, stale in records)

    def tools(self, server: str | None, page_size: int) -> Pages[Record]:
        """Every tool's record, of one server or of all, page after page."""
        limit = _limit(page_size)
        fetch = partial(self._tools, limit=limit, server=server)
        return Pages("tools of the gateway", limit, fetch, _tool_key)

    async def server(self, name: str) -> ServerInfo:
        """One server.

        :raises UnknownServer: the gateway has none of that name.
        """
        try:
            answer = await self._ask("servers/get", {"name": name})
        except HTTPStatusError as exc:
            if exc.status != 404:
                raise
            raise UnknownServer(
                f"no server {name!r}: neither configured here, nor known to the gateway",
                server=name,
            ) from exc
        return self.server_info((answer.value, answer.stale))

    def server_info(self, record: Record) -> ServerInfo:
        """What a record says of a server."""
        said, stale = record
        health = said["health_status"]
        return ServerInfo(
            server_name=said["server_name"],
            transport="registry",
            address=f"{self.url} {said['server_name']}",
            sensitivity_level=_stricter(said["sensitivity_level"]),
            health_status=cast(Health, health if health in get_args(Health) else "unknown"),
            protocol_version=None,
            tools_count=said["tools_count"],
            stale=stale,
        )

    def tool_infos(self, records: Sequence[Record]) -> list[ToolInfo]:
        """What records say of tools. One that no call could name is none."""
        return [
            ToolInfo(
                tool_name=tool.name,
                server_name=said["server_name"],
                description=said["description"],
                sensitivity_level=_stricter(said["sensitivity_level"]),
                sensitive_params=tuple(said["sensitive_params"]),
                definition=tool,
            )
            for said, _ in records
            for tool in parse_tools([said["definition"]], over_http=False).tools.values()
        ]

    # -- upstreams ----------------------------------------------------------------------------

    def made(self, name: str) -> Upstream | None:
        """The upstream of that server, if there is one already."""
        found = self._made.get(name)
        if found is not None:
            self._made.move_to_end(name)
        return found

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """All that there are now."""
        return self._made

    async def find(self, name: str) -> Upstream:
        """The upstream of that server, made now where there is none.

        :raises UnknownServer: the gateway has none of that name: so no name that a caller makes
            up takes up room here.
        :raises Overloaded: as many as there may be are in use.
        """
        found = self.made(name)
        if found is not None and found.state == "running":
            return found
        info = await self.server(name)
        async with self._making:
            found = self.made(name)
            if found is not None and found.state == "running":
                return found  # somebody else was first
            await self._make_room()
            server = Registry(
                self.url,
                name,
                api_key=self.link.api_key,
                pool=self.link.pool,
                sensitivity=info.sensitivity_level,
            )
            upstream = self.make(name, server)
            await self.start(upstream)
            self._made[name] = upstream
        return upstream

    async def forget(self, name: str) -> None:
        """Close that server's upstream, if there is one."""
        found = self._made.pop(name, None)
        if found is not None:
            await found.aclose()

    async def aclose(self) -> None:
        """Close all upstreams."""
        async with anyio.create_task_group() as closing:
            for upstream in (self.upstream, *self._made.values()):
                closing.start_soon(upstream.aclose)

    async def _make_room(self) -> None:
        while len(self._made) >= UPSTREAMS_MAX:
            idle = next((name for name, one in self._made.items() if one.users == 0), None)
            if idle is None:
                message = f"{UPSTREAMS_MAX} servers of the gateway are in use at once"
                raise Overloaded(message)
            await self.forget(idle)

    # -- asking -------------------------------------------------------------------------------

    async def _servers(self, offset: int, limit: int) -> Page[Record]:
        answer = await self._ask("servers/list", {"offset": offset, "limit": limit})
        return _page(answer, "servers")

    async def _tools(self, offset: int, limit: int, server: str | None) -> Page[Record]:
        params = {"offset": offset, "limit": limit, "server": server}
        return _page(await self._ask("tools/list", params), "tools")

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Answer:
        async def ask() -> dict[str, Any]:
            deadline = anyio.current_time() + ASK_TIMEOUT_S
            return await self.upstream.read(method, params, deadline)

        try:
            return await self.cache.fetch(
                self.upstream, method, params, ask, principal=None, timeout_s=ASK_TIMEOUT_S
            )
        except GatewayError as exc:
            exc.server = exc.server or self.url
            raise


def _page(answer: Answer, key: str) -> Page[Record]:
    return [(one, answer.stale) for one in answer.value[key]], answer.value["total"]


def _server_key(record: Record) -> str:
    return str(record[0]["server_id"])


def _tool_key(record: Record) -> str:
    said = record[0]
    return f"{said['server_name']}\0{said['tool_name']}"


def _limit(page_size: int) -> int:
    try:
        return page_limit(page_size)
    except ValueError as exc:
        raise UsageError(str(exc)) from None


def _stricter(said: object) -> Sensitivity:
    """What another one says of a sensitivity may make us stricter, and never less strict."""
    return "critical" if said == "critical" else "high" if said == "high" else "medium"
