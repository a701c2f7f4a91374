"""Listing tools, calling them, and asking beforehand what policy would say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sark_trio.client.call import ToolCall
from sark_trio.client.chapters.base import Chapter
from sark_trio.client.discovery import tools_of, tools_of_all
from sark_trio.client.listing import ToolListing
from sark_trio.errors import UsageError
from sark_trio.governance.pipeline import Verdict
from sark_trio.governance.principal import Principal
from sark_trio.mcp.progress import Progress
from sark_trio.mcp.results import ToolResult

__all__ = ["Tools"]


class Tools(Chapter):
    """The tools of a client's servers."""

    async def list_tools(
        self, server: str | None = None, *, principal: Principal | None = None
    ) -> ToolListing:
        """The tools that *principal* may see, of one server or of all.

        :raises GatewayError: *server* could not be asked; where all are asked, a server that
            could not be is named in ``failures`` instead.
        """
        self._engine.open_tasks()
        who = principal or self._principal
        if server is not None:
            governor = self._caller.governor
            return ToolListing(tools=await tools_of(self._engine.upstream(server), who, governor))
        return await tools_of_all(
            list(self._engine.upstreams.values()),
            who,
            self._caller.governor,
            timeout_s=self._caller.timeout_s,
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
        context: Mapping[str, Any] | None = None,
    ) -> ToolResult:
        """Call a tool, if policy allows it, and record that it was called.

        :param principal: who calls; default: the client's.
        :param timeout_s: deadline of the whole call in seconds, retries included.
        :param replay_safe: your word that the call may be made twice.
        :param on_progress: told the progress of this call; synchronous, must not block.
        :param context: facts for the policy, such as the purpose of the call.
        :return: the tool's answer, redacted as the policy demands. ``is_error`` means that the
            tool itself says it failed.
        :raises Denied: policy said no, or could not say yes.
        :raises CircuitOpen: the server is sick; ``retry_after_s`` says for how long.
        :raises CallTimeout: the deadline passed.
        :raises OutcomeUnknown: the call may have run and is not safe to repeat.
        :raises GatewayError: anything else; ``delivery`` says whether the call may have run.
        """
        if timeout_s is not None and not timeout_s >= 0:
            raise UsageError(f"timeout_s={timeout_s!r} is no number of seconds")
        _check_names(server_name, tool_name)
        self._engine.open_tasks()
        call = ToolCall(
            tool=tool_name,
            arguments=parameters or {},
            principal=principal or self._principal,
            timeout_s=timeout_s,
            replay_safe=replay_safe,
            on_progress=on_progress,
            context=context or {},
        )
        return await self._caller.invoke(self._engine.upstream(server_name), call)

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
        self._engine.open_tasks()
        call = ToolCall(
            tool=tool_name,
            arguments=parameters or {},
            principal=principal or self._principal,
            context=context or {},
        )
        return await self._caller.explain(self._engine.upstream(server_name), call)


def _check_names(*names: object) -> None:
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"names of servers and tools are strings, not {name!r}")
