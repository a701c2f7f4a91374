"""Many servers under one roof: what each thing is called here, whose it is, and what there is.

With several servers names and URIs say whose a thing is. A gateway in front of one server only
can show that server's own names instead: then whoever comes sees what they would see there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, final

import anyio
from attrs import define

from sark_trio import GatewayClient
from sark_trio.client.listing import ToolInfo
from sark_trio.errors import ConfigError, GatewayError, UnknownServer
from sark_trio.gateway.names import DROPPED, candidates, definition, expose
from sark_trio.gateway.uris import exposed, exposed_in, own
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.tasks import EXTENSION

__all__ = ["Roof", "only_server"]

#: For servers that are not connected yet; those that take longer offer nothing this time.
AGREE_S: Final = 5.0
_MEMBERS: Final = ("listChanged", "subscribe")


@final
@define(eq=False)
class Roof:
    """What is offered, and under which names.

    :param only: the one server whose own names are shown; ``None``: all servers, by their names.
    """

    client: GatewayClient
    only: str | None = None

    # -- names --------------------------------------------------------------------------------

    async def whose(self, name: str) -> tuple[str, str] | None:
        """Server and own name of the tool, prompt or task *name*; ``None``: no server's."""
        if self.only is not None:
            return self.only, name
        for server, inner in candidates(name):
            try:
                await self.client.get_server_info(server)
            except UnknownServer:
                continue
            return server, inner
        return None

    def whose_uri(self, uri: str) -> tuple[str, str] | None:
        """Server and own URI of the resource, or template, *uri*; ``None``: no server's."""
        if self.only is not None:
            return self.only, uri
        found = own(uri)
        return found if found is not None and found[0] in self.client.configured else None

    def uri(self, server: str, uri: str) -> str:
        """What *uri* of *server* is called here."""
        return uri if self.only is not None else exposed(server, uri)

    def name(self, server: str, name: str) -> str | None:
        """What *name* of *server* is called here; ``None`` where that would lead elsewhere."""
        if self.only is not None:
            return name
        return expose(server, name, self.client.configured)

    def task(self, server: str, task_id: str) -> str:
        """What the task *task_id* of *server* is called here."""
        return task_id if self.only is not None else f"{server}__{task_id}"

    def own_task(self, server: str, task_id: str) -> str | None:
        """The task that *task_id* is at *server*; ``None`` if it is none of that server's."""
        if self.only is not None:
            return task_id
        prefix = f"{server}__"
        return task_id.removeprefix(prefix) if task_id.startswith(prefix) else None

    def tool(self, info: ToolInfo, servers: set[str]) -> dict[str, Any] | None:
        """*info* as an item of ``tools/list``; ``None`` where it cannot be offered."""
        if self.only is None:
            return definition(info, servers)
        return {key: value for key, value in info.definition.raw.items() if key not in DROPPED}

    def result(self, server: str, result: Mapping[str, Any]) -> dict[str, Any]:
        """*result* of *server*, with what it names as it is called here."""
        if self.only is not None:
            return dict(result)
        shown = exposed_in(result, partial(exposed, server))
        if isinstance(task_id := result.get("taskId"), str):
            shown["taskId"] = self.task(server, task_id)
        return shown

    # -- what there is ------------------------------------------------------------------------

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers whose resources and prompts are offered."""
        return self.client.configured if self.only is None else (self.only,)

    async def agreed(self) -> dict[str, Agreed]:
        """What was agreed with each server; those that cannot be had in time are not in it."""
        found: dict[str, Agreed] = {}

        async def agree(server: str) -> None:
            try:
                found[server] = await self.client.agreed(server)
            except GatewayError:
                return  # it offers nothing as long as it cannot be reached

        with anyio.move_on_after(AGREE_S):
            async with anyio.create_task_group() as asking:
                for server in self.servers:
                    asking.start_soon(agree, server)
        return {server: found[server] for server in self.servers if server in found}

    async def offering(self, capability: str) -> tuple[str, ...]:
        """The servers that offer *capability*."""
        return tuple(
            server
            for server, agreed in (await self.agreed()).items()
            if capability in agreed.capabilities
        )

    async def capabilities(self, *, modern: bool) -> dict[str, Any]:
        """What all of them offer together, as ``ServerCapabilities``."""
        all_agreed = (await self.agreed()).values()
        # Tools come from servers, too, that are another gateway's, and are not asked beforehand.
        offered: dict[str, Any] = {} if self.only is not None else {"tools": {}}
        for agreed in all_agreed:
            theirs = agreed.capabilities
            for name in ("tools", "prompts", "resources"):
                if isinstance(theirs.get(name), Mapping):
                    members = {key: True for key in _MEMBERS if theirs[name].get(key) is True}
                    offered[name] = {**offered.get(name, {}), **members}
            offered.update({name: {} for name in ("completions", "logging") if name in theirs})
            if agreed.modern and not modern:
                offered["logging"] = {}  # since 2026-07-28 each request says what it wants of it
            extensions = theirs.get("extensions")
            if modern and isinstance(extensions, Mapping) and EXTENSION in extensions:
                offered["extensions"] = {EXTENSION: extensions[EXTENSION]}
        return offered


def only_server(client: GatewayClient) -> str:
    """The one server of *client*, whose own names can be shown.

    :raises ConfigError: it has none, or several.
    """
    if len(client.configured) != 1:
        found = len(client.configured)
        raise ConfigError(f"passthrough shows the names of one server, and {found} are configured")
    return client.configured[0]
