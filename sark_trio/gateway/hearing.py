"""Hearing of changes for others: what all servers tell, under the names that it has here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

import anyio
from attrs import define, field

from sark_trio import Principal
from sark_trio.errors import GatewayError
from sark_trio.gateway.refusals import INVALID_PARAMS, RpcRefused
from sark_trio.gateway.roof import Roof
from sark_trio.mcp.changes import Change, Interest
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.tasks import EXTENSION

__all__ = ["Hearing", "Say", "wanted_in"]

#: Tells a notification: its method, and its parameters.
Say = Callable[[str, Mapping[str, Any]], Awaitable[None]]

#: Before somebody is let come again who hears nothing.
AGAIN_S: Final = 30.0
_LISTS: Final = ("tools", "prompts", "resources")
_UPDATED: Final = "notifications/resources/updated"
_TASKS: Final = "notifications/tasks"


@final
@define(eq=False)
class Hearing:
    """One reader's subscription to the servers that it concerns. Run once.

    :param wanted: with URIs and ids as they are called here.
    """

    _roof: Roof
    _wanted: Interest
    _principal: Principal | None
    _say: Say
    #: What is heard, as ``subscriptions/listen`` has it, once it is known.
    heard: dict[str, Any] = field(factory=dict, init=False)
    _failure: GatewayError | None = field(default=None, init=False)
    _pending: int = field(default=0, init=False)
    _begun: anyio.Event = field(factory=anyio.Event, init=False)
    _acknowledged: anyio.Event = field(factory=anyio.Event, init=False)

    async def run(self, acknowledge: Callable[[], Awaitable[None]]) -> None:
        """Tell what changes, until one of the servers tells no more: then look at all again.

        :param acknowledge: called when :attr:`heard` is known, before anything else is said.
        :raises GatewayError: nothing of it can be heard, and why, where it could have been.
        """
        agreed = await self._roof.agreed()
        found = {server: self._of(server, one) for server, one in agreed.items()}
        interests = {server: interest for server, interest in found.items() if interest}
        self._pending = len(interests)
        async with anyio.create_task_group() as hearing:
            for server, interest in interests.items():
                hearing.start_soon(self._hear, server, interest, hearing.cancel_scope)
            if interests:
                await self._begun.wait()
            if self.heard or self._failure is None:
                await acknowledge()
                self._acknowledged.set()
                if not self.heard:
                    # Servers that could not be reached may be there when somebody comes again.
                    missing = len(agreed) < len(self._roof.servers)
                    await anyio.sleep(AGAIN_S if missing else float("inf"))
            else:
                hearing.cancel_scope.cancel()
        if self._failure is not None and not self.heard:
            raise self._failure

    def _of(self, server: str, agreed: Agreed) -> Interest:
        """As much of the wish as *server* can tell of."""
        capabilities, wanted = agreed.capabilities, self._wanted

        def can(name: str, member: str) -> bool:
            offer = capabilities.get(name)
            return isinstance(offer, Mapping) and offer.get(member) is True

        watchable = wanted.resources if can("resources", "subscribe") else ()
        uris = [found for uri in watchable if (found := self._roof.whose_uri(uri)) is not None]
        extensions = capabilities.get("extensions")
        followed = isinstance(extensions, Mapping) and EXTENSION in extensions
        mine = [one for task in wanted.tasks if (one := self._roof.own_task(server, task))]
        return Interest(
            tools_list=wanted.tools_list and can("tools", "listChanged"),
            prompts_list=wanted.prompts_list and can("prompts", "listChanged"),
            resources_list=wanted.resources_list and can("resources", "listChanged"),
            resources=[uri for owner, uri in uris if owner == server],
            tasks=mine if followed else [],
        )

    async def _hear(self, server: str, interest: Interest, all_of_it: anyio.CancelScope) -> None:
        begun = False
        try:
            async with self._roof.client.subscribe(
                server,
                resources=interest.resources,
                tools_list=interest.tools_list,
                prompts_list=interest.prompts_list,
                resources_list=interest.resources_list,
                tasks=interest.tasks,
                principal=self._principal,
            ) as changes:
                self._grant(server, interest, changes.unheard)
                begun = True
                self._one_less()
                await self._acknowledged.wait()
                async for change in changes:
                    await self._tell(server, interest, change)
        except GatewayError as exc:
            self._failure = self._failure or exc
        finally:
            if not begun:
                self._one_less()
        if begun:
            all_of_it.cancel()

    def _one_less(self) -> None:
        self._pending -= 1
        if not self._pending:
            self._begun.set()

    def _grant(self, server: str, interest: Interest, unheard: tuple[str, ...]) -> None:
        for name, value in interest.notifications().items():
            if name in unheard:
                continue
            if name == "resourceSubscriptions":
                value = [self._roof.uri(server, uri) for uri in value]
            elif name == "taskIds":
                value = [self._roof.task(server, task_id) for task_id in value]
            self.heard[name] = self.heard.get(name, []) + value if value is not True else True

    async def _tell(self, server: str, interest: Interest, change: Change) -> None:
        roof, subject = self._roof, change.subject
        plain = {key: value for key, value in change.raw.items() if key != "_meta"}
        match change.kind:
            case "resource" if subject is not None:
                await self._say(_UPDATED, {**plain, "uri": roof.uri(server, subject)})
            case "task" if subject is not None:
                await self._say(_TASKS, {**plain, "taskId": roof.task(server, subject)})
            case "gap":
                # Nobody knows what was missed: whoever hears of it looks at all of it again.
                for name in _LISTS:
                    if getattr(interest, f"{name}_list"):
                        await self._say(f"notifications/{name}/list_changed", {})
                for uri in interest.resources:
                    await self._say(_UPDATED, {"uri": roof.uri(server, uri)})
            case kind:
                await self._say(f"notifications/{kind}/list_changed", plain)


def wanted_in(params: Mapping[str, Any]) -> Interest:
    """The wish of a ``subscriptions/listen``.

    :raises RpcRefused: it is none.
    """
    wanted = params.get("notifications")
    if not isinstance(wanted, Mapping):
        raise RpcRefused(INVALID_PARAMS, "'notifications' must be an object")
    try:
        return Interest(
            tools_list=wanted.get("toolsListChanged") is True,
            prompts_list=wanted.get("promptsListChanged") is True,
            resources_list=wanted.get("resourcesListChanged") is True,
            resources=_strings(wanted, "resourceSubscriptions"),
            tasks=_strings(wanted, "taskIds"),
        )
    except ValueError as exc:
        raise RpcRefused(INVALID_PARAMS, "'notifications' names too much") from exc


def _strings(wanted: Mapping[str, Any], key: str) -> list[str]:
    names = wanted.get(key, [])
    if not isinstance(names, list) or not all(type(one) is str for one in names):
        raise RpcRefused(INVALID_PARAMS, f"'{key}' must be a list of strings")
    return list(dict.fromkeys(names))
