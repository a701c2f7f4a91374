"""Looking after tasks that outlive the call they began as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sark_trio.client import requests
from sark_trio.client.chapters.offers import OfferChapter
from sark_trio.client.handlers import Handlers
from sark_trio.governance.principal import Principal
from sark_trio.mcp.tasks import Task

__all__ = ["Tasks"]

#: Servers refuse requests about tasks of those who do not offer to follow them.
_OFFERED = Handlers(tasks=True)


class Tasks(OfferChapter):
    """Tasks: the extension ``io.modelcontextprotocol/tasks``, and those of 2025-11-25.

    A tool call follows its task to the end by itself where ``Handlers(tasks=True)`` offers that.
    These methods are for a task whose id an application kept.
    """

    async def get_task(
        self,
        server_name: str,
        task_id: str,
        *,
        principal: Principal | None = None,
        timeout_s: float | None = None,
    ) -> Task:
        """How a task stands (``gateway:task:get``): extension, "Task Polling".

        :raises InvalidParams: the server knows no such task, or has forgotten it.
        :raises GatewayError: as :meth:`invoke_tool`.
        """
        common = self._common(principal, timeout_s, None, _OFFERED)
        return await self._ask(server_name, requests.get_task(task_id, **common))

    async def update_task(
        self,
        server_name: str,
        task_id: str,
        answers: Mapping[str, Any],
        *,
        principal: Principal | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Answer what a task waits for (``gateway:task:update``): "Task Update Requests".

        :param answers: by the keys of ``Task.input_requests``, each a result.
        :raises GatewayError: as :meth:`invoke_tool`.
        """
        common = self._common(principal, timeout_s, None, _OFFERED)
        await self._ask(server_name, requests.update_task(task_id, answers, **common))

    async def cancel_task(
        self,
        server_name: str,
        task_id: str,
        *,
        principal: Principal | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Ask a server to end a task (``gateway:task:cancel``): "Task Cancellation".

        Whether and when it does is the server's to decide.

        :raises GatewayError: as :meth:`invoke_tool`.
        """
        common = self._common(principal, timeout_s, None, _OFFERED)
        await self._ask(server_name, requests.cancel_task(task_id, **common))
