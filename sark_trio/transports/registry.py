"""The registry dialect: servers and tools of somebody else's gateway, over plain REST.

``/api/v1/servers``, ``/servers/{name}``, ``/tools``, ``/invoke`` and ``/health``, as the
original system's clients speak it. :class:`RegistryClient` speaks all of it;
:class:`RegistryTransport` is one server of a registry, seen as an MCP upstream, and
:class:`DirectoryTransport` the registry itself: what it lists, and how it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import anyio
from anyio.abc import TaskStatus
from attrs import asdict

from sark_trio.errors import GatewayError, RemoteError, UnknownServer
from sark_trio.mcp.faults import METHOD_NOT_FOUND
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.versions import MODERN
from sark_trio.net.pages import Page
from sark_trio.transports._registry_client import RegistryClient, RegistryHealth, as_segment
from sark_trio.transports._registry_records import (
    RegistryParameter,
    RegistryServer,
    RegistryTool,
    tool_definition,
    tool_result,
)
from sark_trio.transports.base import Outgoing, Transport, TransportStatistics

__all__ = [
    "DirectoryTransport",
    "RegistryClient",
    "RegistryHealth",
    "RegistryParameter",
    "RegistryServer",
    "RegistryTool",
    "RegistryTransport",
]


class _OfRegistry(Transport):
    """What the two share: a client, whose connections are all that lives."""

    kind = "registry"
    _client: RegistryClient

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """See :meth:`Transport.run`."""
        await self._client.run(task_status=task_status)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Nothing: the dialect has no notifications, and none is owed an answer."""

    async def aclose(self) -> None:
        """See :meth:`Transport.aclose`."""
        await self._client.aclose()

    def statistics(self) -> TransportStatistics:
        """See :meth:`Transport.statistics`."""
        client = self._client
        return TransportStatistics(
            requests=client.requests, details={"pool": asdict(client.statistics())}
        )


@final
class RegistryTransport(_OfRegistry):
    """One server of a registry, as an MCP upstream: ``tools/list`` and ``tools/call``.

    The registry speaks with the server; no MCP revision is negotiated, and nothing but these two
    methods passes. Progress is not reported.

    :param url: the registry's base URL.
    :param server: the server's name in the registry.
    :param user_token: bearer token that goes with each call, and with nothing else.
    :param options: of the :class:`RegistryClient`.
    """

    def __init__(
        self, url: str, server: str, *, user_token: str | None = None, **options: Any
    ) -> None:
        self._client = RegistryClient(url, **options)
        self._server = server
        self._token = user_token
        self._agreed: Agreed | None = None
        as_segment(server)

    async def connect(self) -> Agreed:
        """Ask the registry for the server, unless that was done already.

        :raises UnknownServer: it has none of that name.
        """
        if self._agreed is None:
            try:
                found = await self._client.get_server(self._server)
            except GatewayError as exc:
                if getattr(exc, "status", None) != 404:
                    raise
                message = f"the registry has no server {self._server!r}"
                raise UnknownServer(message, server=self._server, delivery="not_sent") from exc
            about = {"name": found.server_name}
            tools: dict[str, Any] = {"tools": {}}
            self._agreed = Agreed(
                version=MODERN, modern=True, server_info=about, capabilities=tools
            )
        return self._agreed

    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """See :meth:`Transport.request`."""
        match outgoing.method:
            case "tools/list":
                return await self._list()
            case "tools/call":
                return await self._call(outgoing)
        raise RemoteError(
            f"a registry offers no {outgoing.method!a}", code=METHOD_NOT_FOUND, delivery="not_sent"
        )

    @property
    def agreed(self) -> Agreed | None:
        """See :attr:`Transport.agreed`."""
        return self._agreed

    def __repr__(self) -> str:
        return f"<RegistryTransport {self._server!r} {self._client!r}>"

    async def _list(self) -> dict[str, Any]:
        found = await self._client.list_all_tools(self._server)
        # A registry that does not know the filter gives the tools of all servers.
        own = [tool_definition(tool) for tool in found if tool.server_name == self._server]
        return {"tools": own}

    async def _call(self, outgoing: Outgoing) -> dict[str, Any]:
        params = outgoing.params
        answer = await self._client.invoke_tool(
            self._server,
            str(params["name"]),
            params.get("arguments"),
            user_token=self._token,
            on_sent=outgoing.on_sent,
            may_resend=outgoing.may_resend if outgoing.replay_safe else None,
            trace=outgoing.trace,
        )
        return tool_result(answer)


@final
class DirectoryTransport(_OfRegistry):
    """A registry itself: its lists and its health. No tool can be called through it.

    The methods are ``servers/list`` and ``tools/list`` (``offset``, ``limit``; tools also
    ``server``), ``servers/get`` (``name``) and ``health``. Records come as JSON objects; one of
    a tool has its ``definition`` as MCP's ``tools/list`` would give it.

    :param url: the registry's base URL.
    :param options: of the :class:`RegistryClient`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._client = RegistryClient(url, **options)
        self._agreed = Agreed(version=MODERN, modern=True, server_info={"name": "registry"})

    async def connect(self) -> Agreed:
        """Nothing is agreed with a registry: each request stands alone."""
        return self._agreed

    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """See :meth:`Transport.request`."""
        params = outgoing.params
        match outgoing.method:
            case "servers/list":
                servers = await self._client.servers_page(params["offset"], params["limit"])
                return _page("servers", servers)
            case "servers/get":
                return asdict(await self._client.get_server(params["name"]))
            case "tools/list":
                tools = await self._client.tools_page(
                    params["offset"], params["limit"], params.get("server")
                )
                page = _page("tools", tools)
                for record, tool in zip(page["tools"], tools[0], strict=True):
                    record["definition"] = tool_definition(tool)
                return page
            case "health":
                return asdict(await self._client.health_check())
        raise RemoteError(
            f"a registry offers no {outgoing.method!a}", code=METHOD_NOT_FOUND, delivery="not_sent"
        )

    @property
    def agreed(self) -> Agreed | None:
        """See :attr:`Transport.agreed`."""
        return self._agreed

    def __repr__(self) -> str:
        return f"<DirectoryTransport {self._client!r}>"


def _page(key: str, page: Page[Any]) -> dict[str, Any]:
    items, total = page
    return {key: [asdict(item) for item in items], "total": total}
