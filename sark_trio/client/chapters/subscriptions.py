"""Hearing of changes, and the small courtesies of a connection."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

from sark_trio.client.chapters.base import check_timeout
from sark_trio.client.chapters.offers import OfferChapter
from sark_trio.client.deciding import authorize
from sark_trio.client.requests import Wanted, nothing
from sark_trio.client.subscription import Subscription
from sark_trio.client.switches import check_on
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ConfigError, Denied, UsageError
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import (
    LISTEN,
    PING,
    RESOURCE_SUBSCRIBE,
    SET_LOG_LEVEL,
    TASK_GET,
    Query,
)
from sark_trio.mcp.changes import Interest
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.meta import LOG_LEVELS, LogLevel

__all__ = ["Subscriptions"]


class Subscriptions(OfferChapter):
    """What servers say unasked, and whether they are there at all."""

    def subscribe(
        self,
        server_name: str,
        *,
        resources: tuple[str, ...] | list[str] | str = (),
        tools_list: bool = False,
        prompts_list: bool = False,
        resources_list: bool = False,
        tasks: tuple[str, ...] | list[str] | str = (),
        principal: Principal | None = None,
    ) -> Subscription:
        """``async with`` it, then ``async for change in`` it.

        Policy is asked when it is entered: about each resource (``gateway:resource:subscribe``)
        and task (``gateway:task:get``), and about lists (``gateway:server:listen``); the answer
        is recorded. The stream comes back by itself when it breaks, with a ``gap`` among the
        changes; what the client keeps of changed lists and resources is forgotten.

        MCP 2026-07-28, "Subscriptions": ``subscriptions/listen``. Before: ``resources/subscribe``
        and the server's own stream (2025-11-25, "Listening for Messages from the Server").

        :param resources: URIs whose contents matter.
        :param tasks: ids of tasks whose status matters.
        :raises UsageError: nothing is wanted.
        :raises Denied: when entered: policy says no to one of them.
        :raises GatewayError: when entered, or later while iterating: the stream cannot be had.
        """
        try:
            interest = Interest(
                tools_list=tools_list,
                prompts_list=prompts_list,
                resources_list=resources_list,
                resources=resources,
                tasks=tasks,
            )
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
        if not interest:
            raise UsageError("say what to hear of: resources=[...], tools_list=True, ...")
        self._engine.open_tasks()
        upstream = self._engine.upstream(server_name)
        who = principal or self._principal
        return Subscription(
            upstream=upstream,
            interest=interest,
            allow=partial(self._allow, upstream, interest, who),
            jitter=random.random,
        )

    async def ping(
        self,
        server_name: str,
        *,
        principal: Principal | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Ask whether a server is there (``gateway:server:ping``).

        ``ping`` until 2025-11-25; since 2026-07-28, which has none, ``server/discover``.

        :raises GatewayError: it is not, or policy says no.
        """
        check_on(self._caller, server_name, principal or self._principal, "ping")
        agreed, timeout_s = await self._connected(server_name, timeout_s)
        method = "server/discover" if agreed.modern else "ping"
        await self._ask(server_name, self._courtesy(method, PING, {}, principal, timeout_s))

    async def set_log_level(
        self,
        server_name: str,
        level: LogLevel,
        *,
        principal: Principal | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """The least severe log message that a server shall send (``gateway:server:log``).

        ``logging/setLevel``, until 2025-11-25 ("Logging"); messages that belong to no call go to
        ``Handlers(log=...)``. Since 2026-07-28 each call asks for its own messages, with
        ``log_level`` of :meth:`invoke_tool`.

        :raises UsageError: there is no such level, or the server is of 2026-07-28.
        :raises GatewayError: as :meth:`invoke_tool`.
        """
        if level not in LOG_LEVELS:
            raise UsageError(f"log level {level!r} is none of {', '.join(LOG_LEVELS)}")
        check_on(self._caller, server_name, principal or self._principal, "logging/setLevel")
        agreed, timeout_s = await self._connected(server_name, timeout_s)
        if agreed.modern:
            raise UsageError(
                f"{server_name} speaks MCP 2026-07-28: give log_level to the call instead"
            )
        params = {"level": level}
        asked = self._courtesy("logging/setLevel", SET_LOG_LEVEL, params, principal, timeout_s)
        await self._ask(server_name, asked)

    async def _connected(
        self, server_name: str, timeout_s: float | None
    ) -> tuple[Agreed, float | None]:
        check_timeout(timeout_s)
        upstream, timeout_s = await self._reach(server_name, timeout_s)
        return await self._agree(upstream, timeout_s)

    def _courtesy(
        self,
        method: str,
        action: str,
        params: Mapping[str, Any],
        principal: Principal | None,
        timeout_s: float | None,
    ) -> Wanted[None]:
        return Wanted(
            method=method,
            action=action,
            what=method,
            params=params,
            subject=tuple(params),
            parse=nothing,
            **self._common(principal, timeout_s, None),
        )

    async def _allow(self, upstream: Upstream, interest: Interest, who: Principal) -> None:
        lists = {name: value for name, value in interest.notifications().items() if value is True}
        asked = [(RESOURCE_SUBSCRIBE, {"uri": uri}) for uri in interest.resources]
        asked += [(TASK_GET, {"taskId": task_id}) for task_id in interest.tasks]
        questions: list[tuple[str, Mapping[str, Any]]] = [*asked]
        if lists:
            questions.append((LISTEN, {"notifications": lists}))
        for action, params in questions:
            query = Query(
                principal=who,
                action=action,
                server=upstream.name,
                arguments=dict(params),
                sensitivity=upstream.server.sensitivity,
            )
            decided = await authorize(self._caller, query, labels={})
            if not decided.allow or decided.parameters != params:
                text = f"policy denies {action} to {who.id!r}"
                raise Denied(text, reason=decided.reason, server=upstream.name)
