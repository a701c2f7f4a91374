"""One registry, and all that its REST dialect offers: see :mod:`sark_trio.transports.registry`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, final
from urllib.parse import quote, urlencode

import anyio
import httpcore
from anyio.abc import TaskStatus
from attrs import field, frozen

from sark_trio import jsontext
from sark_trio.errors import (
    ClientClosed,
    GatewayError,
    InvalidArguments,
    ProtocolError,
    TransportError,
)
from sark_trio.machines.pool import PoolOptions, PoolStatistics
from sark_trio.net.addresses import AddressCheck
from sark_trio.net.options import Timeouts
from sark_trio.net.pages import PAGE_SIZE, Page, Pages, page_limit
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports._registry_records import (
    RegistryServer,
    RegistryTool,
    Table,
    items_of,
    read_server,
    read_tool,
)
from sark_trio.transports._registry_wire import Errand, RegistryWire

__all__ = ["RegistryClient", "RegistryHealth", "as_segment"]

#: A thousand tools with their descriptions and schemas come to about 1 MiB.
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
#: Of a whole exchange, and the longest silence in it (the dialect's own default).
TIMEOUTS: Final = Timeouts(read_s=30.0, exchange_s=30.0)
_API: Final = "/api/v1"


@final
@frozen(kw_only=True)
class RegistryHealth:
    """How a registry says it is; ``error`` where it did not say."""

    healthy: bool
    details: Mapping[str, Any] = field(factory=dict)
    error: str | None = None


@final
class RegistryClient:
    """Speaks with one registry; :meth:`run` must be running meanwhile.

    :param url: base URL; ``/api/v1/...`` and ``/health`` are below it.
    :param api_key: sent as ``X-API-Key`` with every request, to the URL's exact origin.
    :param headers: further headers of every request.
    :param answer_bytes_max: largest answer that the registry may send.
    :param backend: where network streams come from; sockets by default.
    :param address_check: asked about each address before it is connected to. Sockets only.
    :param connections: a pool that somebody else runs, shared with others; then *tls*, *pool*,
        *timeouts* and *backend* are its own.
    :param report: told of connections.
    :raises ValueError: a bad URL, key, header or limit.
    """

    __slots__ = ("_closing", "_ended", "_owns_pool", "_pool", "_running", "_wire", "requests")

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        tls: TLSOptions | None = None,
        pool: PoolOptions | None = None,
        timeouts: Timeouts = TIMEOUTS,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        backend: httpcore.AsyncNetworkBackend | None = None,
        address_check: AddressCheck | None = None,
        connections: ConnectionPool | None = None,
        report: Reporter | None = None,
    ) -> None:
        if answer_bytes_max < 1:
            raise ValueError("answer_bytes_max must be positive")
        if backend is not None and address_check is not None:
            raise ValueError("address_check needs the default backend")
        self._owns_pool = connections is None
        self._pool = connections or ConnectionPool(
            backend=backend or AnyIOBackend(address_check=address_check),
            options=pool,
            timeouts=timeouts,
            tls=tls,
            report=report,
        )
        self._wire = RegistryWire.to(
            url,
            api_key=api_key,
            headers=headers,
            pool=self._pool,
            answer_bytes_max=answer_bytes_max,
        )
        #: Requests made.
        self.requests = 0
        self._running = False
        self._closing = anyio.Event()
        self._ended = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the connections until :meth:`aclose`, or cancelled."""
        if self._running or self._closing.is_set():
            raise ClientClosed("a registry client runs once")
        self._running = True
        try:
            async with anyio.create_task_group() as group:
                if self._owns_pool:
                    await group.start(self._pool.run)
                task_status.started()
                await self._closing.wait()
                if self._owns_pool:
                    self._pool.shutdown()  # and its task ends when all is given back
        finally:
            self._closing.set()
            self._ended.set()

    async def aclose(self) -> None:
        """Close; requests under way get the pool's grace. Idempotent, from any task."""
        self._closing.set()
        if self._running:
            await self._ended.wait()

    # Servers.

    async def list_servers(
        self, page: int = 1, page_size: int = PAGE_SIZE
    ) -> tuple[RegistryServer, ...]:
        """One page of servers; pages count from 1 and hold at most 1000."""
        limit = page_limit(page_size)
        items, _ = await self.servers_page((max(page, 1) - 1) * limit, limit)
        return tuple(items)

    async def servers_page(self, offset: int, limit: int) -> Page[RegistryServer]:
        """*limit* servers from *offset* on, and how many there are where the registry says so."""
        errand = _page_of("servers", offset, limit)
        return items_of(await self._ask(errand), str(errand), "servers", read_server)

    def servers(self, page_size: int = PAGE_SIZE) -> Pages[RegistryServer]:
        """``async for``: every server, page after page, in the memory of one page.

        :raises ProtocolError: while iterating, where the registry repeats itself.
        """
        limit = page_limit(page_size)
        fetch = partial(self.servers_page, limit=limit)
        return Pages(f"GET {_API}/servers", limit, fetch, lambda one: one.server_id)

    async def list_all_servers(self, page_size: int = PAGE_SIZE) -> tuple[RegistryServer, ...]:
        """Every server; at most 100,000 are collected."""
        return await self.servers(page_size).collect()

    async def get_server(self, name: str) -> RegistryServer:
        """One server.

        :raises HTTPStatusError: ``status`` is 404 where there is none of that name.
        :raises ProtocolError: the registry says of another one: policies go by names, so that an
            alias would be a way around them.
        """
        errand = Errand(path=f"{_API}/servers/{as_segment(name)}")
        found = read_server(Table.of(await self._ask(errand), str(errand)))
        if found.server_name != name:
            said = ascii(found.server_name)[:100]
            raise ProtocolError(f"{errand}: the registry answered of {said}", delivery="answered")
        return found

    # Tools.

    async def list_tools(
        self, server_name: str | None = None, page: int = 1, page_size: int = PAGE_SIZE
    ) -> tuple[RegistryTool, ...]:
        """One page of tools, of one server or of all; pages count from 1."""
        limit = page_limit(page_size)
        items, _ = await self.tools_page((max(page, 1) - 1) * limit, limit, server_name)
        return tuple(items)

    async def tools_page(
        self, offset: int, limit: int, server_name: str | None
    ) -> Page[RegistryTool]:
        """As :meth:`servers_page`, for the tools of one server or of all."""
        errand = _page_of("tools", offset, limit, server_name)
        return items_of(await self._ask(errand), str(errand), "tools", read_tool)

    def tools(
        self, server_name: str | None = None, page_size: int = PAGE_SIZE
    ) -> Pages[RegistryTool]:
        """``async for``: every tool, of one server or of all. As :meth:`servers`."""
        limit = page_limit(page_size)
        fetch = partial(self.tools_page, limit=limit, server_name=server_name)
        return Pages(f"GET {_API}/tools", limit, fetch, _tool_key)

    async def list_all_tools(
        self, server_name: str | None = None, page_size: int = PAGE_SIZE
    ) -> tuple[RegistryTool, ...]:
        """Every tool, of one server or of all; at most 100,000 are collected."""
        return await self.tools(server_name, page_size).collect()

    async def invoke_tool(
        self,
        server_name: str,
        tool_name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        user_token: str | None = None,
        on_sent: Callable[[], None] | None = None,
        may_resend: Callable[[str], Awaitable[bool]] | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Call a tool: the registry's answer, as it came.

        :param user_token: bearer token of the user; sent with this request alone.
        :param on_sent: told when the kernel has taken the first byte.
        :param may_resend: asked before it is sent again although it may have arrived; absent,
            it never is.
        :param trace: W3C trace context, as headers.
        :raises InvalidArguments: the parameters are no JSON, or the token is no header.
        """
        call = {"server": server_name, "tool": tool_name, "parameters": dict(parameters or {})}
        try:
            jsontext.check_bounds(call)  # the encoder alone would make null of NaN
            body = jsontext.encode(call)
        except jsontext.JSONError as exc:
            raise InvalidArguments(str(exc), delivery="not_sent") from exc
        errand = Errand(
            path=f"{_API}/invoke",
            body=body,
            token=user_token,
            on_sent=on_sent,
            may_resend=may_resend,
            trace=trace or {},
        )
        return dict(Table.of(await self._ask(errand), str(errand)).data)

    async def health_check(self) -> RegistryHealth:
        """Ask the registry how it is. Never raises for a registry that is not well."""
        errand = Errand(path="/health")
        try:
            details = Table.of(await self._ask(errand), str(errand)).data
        except GatewayError as exc:
            return RegistryHealth(healthy=False, error=str(exc))
        return RegistryHealth(healthy=details.get("status") == "healthy", details=details)

    def statistics(self) -> PoolStatistics:
        """A snapshot of the connections."""
        return self._pool.statistics()

    def __repr__(self) -> str:
        return f"<RegistryClient {self._wire.base.origin} requests={self.requests}>"

    async def _ask(self, errand: Errand) -> Any:
        if not self._running or self._closing.is_set():
            raise ClientClosed("the registry client is closed, or not running")
        self.requests += 1
        try:
            return await self._wire.ask(errand)
        except TransportError as exc:
            if self._closing.is_set():
                message = "the registry client was closed"
                raise ClientClosed(message, delivery=exc.delivery) from exc
            raise


def _tool_key(tool: RegistryTool) -> str:
    return f"{tool.server_name}\0{tool.tool_name}"


def _page_of(what: str, offset: int, limit: int, server_name: str | None = None) -> Errand:
    query = {"offset": offset, "limit": limit}
    server = {} if server_name is None else {"server": server_name}
    return Errand(path=f"{_API}/{what}?{urlencode({**query, **server}, quote_via=quote)}")


def as_segment(name: str) -> str:
    """*name* as one segment of a path, whatever it holds.

    :raises InvalidArguments: no name, or one that proxies take for a way up (RFC 3986, 5.2.4).
    """
    if name in {"", ".", ".."}:
        raise InvalidArguments(f"{name!r} names no server", delivery="not_sent")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise InvalidArguments("a server's name holds a lone surrogate") from None
