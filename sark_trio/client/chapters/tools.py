"""Listing tools, calling them, and asking beforehand what policy would say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sark_trio.client.asked import ToolCall
from sark_trio.client.batches import ToolBatches
from sark_trio.client.chapters.base import Chapter, check_timeout
from sark_trio.client.handlers import Handlers
from sark_trio.client.listing import ToolInfo, ToolListing
from sark_trio.client.walk import Walk
from sark_trio.errors import UsageError
from sark_trio.governance.pipeline import Verdict
from sark_trio.governance.principal import Principal
from sark_trio.mcp.meta import LogLevel
from sark_trio.mcp.progress import LogMessage, Progress
from sark_trio.mcp.results import ToolResult
from sark_trio.net.pages import PAGE_SIZE

__all__ = ["Tools"]


class Tools(Chapter):
    """The tools of a client's servers."""

    async def list_tools(
        self,
        server_name: str | None = None,
        page: int = 1,
        page_size: int = PAGE_SIZE,
        *,
        principal: Principal | None = None,
    ) -> ToolListing:
        """The tools that *principal* may see, of one server or of all.

        Those of servers that are configured here come with the first page, whatever its size;
        a page of the gateway's tools follows where the client has a gateway. A page may be short,
        or empty, though others follow: see :meth:`list_all_tools`.

        :param page: from 1, of the gateway's list.
        :param page_size: tools of the gateway's on a page, at most 1000.
        :raises UnknownServer: there is no server of that name.
        :raises GatewayError: the server could not be asked; where several are asked, those that
            could not be are named in ``failures`` instead.
        """
        batches = self._tool_batches(server_name, page_size, principal)
        own = await batches.own() if page <= 1 else ()
        tools = (*own, *await batches.page(page))
        return ToolListing(tools=tools, failures=batches.failures, stale=batches.stale)

    async def list_all_tools(
        self,
        server_name: str | None = None,
        *,
        page_size: int = PAGE_SIZE,
        principal: Principal | None = None,
    ) -> ToolListing:
        """As :meth:`list_tools`, of all pages; for very many use :meth:`stream_tools`.

        :raises ProtocolError: the gateway repeats itself.
        :raises UsageError: there are more than 100,000.
        """
        batches = self._tool_batches(server_name, page_size, principal)
        tools = await Walk(batches.next_batch).collect()
        return ToolListing(tools=tools, failures=batches.failures, stale=batches.stale)

    def stream_tools(
        self,
        server_name: str | None = None,
        *,
        page_size: int = PAGE_SIZE,
        principal: Principal | None = None,
    ) -> Walk[ToolInfo]:
        """``async for``: as :meth:`list_tools`, page after page, in the memory of one.

        ``failures`` of what is returned names those who could not be asked.
        """
        batches = self._tool_batches(server_name, page_size, principal)
        return Walk(batches.next_batch, batches.failures)

    def _tool_batches(
        self, server_name: str | None, page_size: int, principal: Principal | None
    ) -> ToolBatches:
        engine = self._engine
        engine.open_tasks()
        configured, offered = list(engine.upstreams.values()), engine.offered
        if server_name is not None and (server_name in engine.upstreams or offered is None):
            configured, offered = [engine.upstream(server_name)], None
        elif server_name is not None:
            configured = []
        return ToolBatches(
            configured=configured,
            offered=offered,
            governor=self._caller.governor,
            principal=principal or self._principal,
            page_size=page_size,
            timeout_s=self._caller.timeout_s,
            server=server_name,
            pins=self._pins,
        )

    async def invoke_tool(
        self,
        server_name: str,
        tool_name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        principal: Principal | None = None,
        timeout_s: float | None = None,
        replay_safe: bool | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[LogMessage], None] | None = None,
        log_level: LogLevel | None = None,
        handlers: Handlers | None = None,
        context: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
    ) -> ToolResult:
        """Call a tool, if policy allows it, and record that it was called.

        :param principal: who calls; default: the client's.
        :param timeout_s: deadline of the whole call in seconds, retries included.
        :param replay_safe: your word that the call may be made twice.
        :param on_progress: told the progress of this call; synchronous, must not block.
        :param on_log: told the server's log messages of this call; synchronous, must not block.
        :param log_level: least severe of them (MCP 2026-07-28; before, :meth:`set_log_level`).
        :param handlers: for what the server asks meanwhile; where there is none, the client's.
        :param context: facts for the policy, such as the purpose of the call.
        :param traceparent: the span that the call belongs to (W3C Trace Context); without it,
            a hook's word counts. The server is told.
        :return: the tool's answer, redacted as the policy demands. ``is_error`` means that the
            tool itself says it failed.
        :raises Denied: policy said no, or could not say yes.
        :raises CircuitOpen: the server is sick; ``retry_after_s`` says for how long.
        :raises CallTimeout: the deadline passed.
        :raises OutcomeUnknown: the call may have run and is not safe to repeat.
        :raises GatewayError: anything else; ``delivery`` says whether the call may have run.
        """
        check_timeout(timeout_s)
        _check_names(server_name, tool_name)
        upstream, timeout_s = await self._reach(server_name, timeout_s)
        call = ToolCall(
            tool=tool_name,
            arguments=parameters or {},
            principal=principal or self._principal,
            timeout_s=timeout_s,
            replay_safe=replay_safe,
            on_progress=on_progress,
            on_log=on_log,
            log_level=log_level,
            handlers=handlers,
            context=context or {},
            traceparent=traceparent,
        )
        return await self._caller.invoke(upstream, call)

    async def explain(
        self,
        server_name: str,
        tool_name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        principal: Principal | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """What policy would decide about a call. Nothing is sent to the server or recorded.

        The server is not contacted: names that only its tool definition declares are not
        checked here.

        :raises InvalidArguments: the arguments cannot be sent to anybody.
        """
        call = ToolCall(
            tool=tool_name,
            arguments=parameters or {},
            principal=principal or self._principal,
            context=context or {},
        )
        upstream, _ = await self._reach(server_name, None)
        return await self._caller.explain(upstream, call)


def _check_names(*names: object) -> None:
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"names of servers and tools are strings, not {name!r}")
