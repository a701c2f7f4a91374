"""Lists of what all servers offer, as whoever asks may see them, page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, final

import anyio
from attrs import define

from sark_trio.client.walk import Walk
from sark_trio.errors import GatewayError
from sark_trio.gateway.refusals import INVALID_PARAMS, RpcRefused, no_method
from sark_trio.gateway.roof import Roof
from sark_trio.gateway.visitor import Visitor
from sark_trio.mcp.prompts import Prompt
from sark_trio.mcp.resources import Resource, ResourceTemplate

__all__ = ["Offers", "paged"]

#: Items in one answer: about 1 MiB of tools with their schemas.
PAGE_SIZE: Final = 1_000
#: How long a list may be believed: it depends on the caller's rights, which change.
LIST_TTL_MS: Final = 30_000

T = TypeVar("T", bound="_Item")


class _Item(Protocol):
    @property
    def raw(self) -> Mapping[str, Any]: ...


@final
@define(eq=False)
class Offers:
    """Tools, prompts and resources, each under the name that it has here."""

    _roof: Roof

    async def tools(self, visitor: Visitor) -> list[dict[str, Any]]:
        """Items of ``tools/list``. Servers that cannot be asked cost their own tools only.

        :raises GatewayError: the only server could not be asked.
        """
        client, only = self._roof.client, self._roof.only
        servers = {info.server_name for info in await client.list_all_servers()}
        listing = await client.list_all_tools(only, principal=visitor.principal)
        items = [self._roof.tool(info, servers) for info in listing]
        more = {"execution": {"taskSupport": "optional"}} if visitor.tasks else {}
        return [{**item, **more} for item in items if item is not None]

    async def prompts(self, visitor: Visitor) -> list[dict[str, Any]]:
        """Items of ``prompts/list``."""

        def show(server: str, prompt: Prompt) -> dict[str, Any] | None:
            name = self._roof.name(server, prompt.name)
            return None if name is None else {**prompt.raw, "name": name}

        return await self._all("prompts", visitor, self._roof.client.stream_prompts, show)

    async def resources(self, visitor: Visitor) -> list[dict[str, Any]]:
        """Items of ``resources/list``."""

        def show(server: str, resource: Resource) -> dict[str, Any]:
            return {**resource.raw, "uri": self._roof.uri(server, resource.uri)}

        return await self._all("resources", visitor, self._roof.client.stream_resources, show)

    async def templates(self, visitor: Visitor) -> list[dict[str, Any]]:
        """Items of ``resources/templates/list``."""

        def show(server: str, template: ResourceTemplate) -> dict[str, Any]:
            shown = self._roof.uri(server, template.uri_template)
            return {**template.raw, "uriTemplate": shown}

        walk = self._roof.client.stream_resource_templates
        return await self._all("resources", visitor, walk, show)

    async def _all(
        self,
        capability: str,
        visitor: Visitor,
        walk: Callable[..., Walk[T]],
        show: Callable[[str, T], dict[str, Any] | None],
    ) -> list[dict[str, Any]]:
        """The items of all servers with that capability, one server after another."""
        servers = await self._roof.offering(capability)
        if not servers:
            raise no_method()
        found: dict[str, list[dict[str, Any] | None]] = {}
        failures: list[GatewayError] = []

        async def ask(server: str) -> None:
            try:
                items = await walk(server, principal=visitor.principal).collect()
            except GatewayError as exc:
                failures.append(exc)
            else:
                found[server] = [show(server, item) for item in items]

        async with anyio.create_task_group() as asking:
            for server in servers:
                asking.start_soon(ask, server)
        if failures and not found:
            raise failures[0]
        return [item for one in servers for item in found.get(one, []) if item is not None]


def paged(params: Mapping[str, Any], key: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One page of *items*, as a result.

    :raises RpcRefused: the cursor is none of ours.
    """
    offset = _offset(params.get("cursor"))
    page = list(items[offset : offset + PAGE_SIZE])
    result: dict[str, Any] = {key: page, "ttlMs": LIST_TTL_MS, "cacheScope": "private"}
    if offset + PAGE_SIZE < len(items):
        result["nextCursor"] = str(offset + PAGE_SIZE)
    return result


def _offset(cursor: Any) -> int:
    if cursor is None:
        return 0
    if not (isinstance(cursor, str) and cursor.isascii() and cursor.isdecimal()) or len(cursor) > 9:
        raise RpcRefused(INVALID_PARAMS, "'cursor' is none of this gateway's")
    return int(cursor)
