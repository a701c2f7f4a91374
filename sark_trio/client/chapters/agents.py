"""Deciding for others: may they call a tool, may one agent ask another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sark_trio.client.chapters.base import Chapter
from sark_trio.client.deciding import Authorization, authorize
from sark_trio.client.servers import Sensitivity
from sark_trio.errors import UnknownServer, UsageError
from sark_trio.governance.delegation import Capability, Delegation, objection
from sark_trio.governance.filters import ToolFacts
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import (
    A2A,
    DISCOVER,
    INVOKE,
    LIST_SERVERS,
    SERVER_INFO,
    Query,
)

__all__ = ["Agents"]

_ACTIONS: Final = frozenset({DISCOVER, INVOKE, LIST_SERVERS, SERVER_INFO})
#: The stricter of two words on one tool counts.
_LEVELS: Final[tuple[Sensitivity, ...]] = ("low", "medium", "high", "critical")


class Agents(Chapter):
    """Decisions about calls that this client does not make."""

    #: Where agents run, by their ids, as the operator says.
    _agents: Mapping[str, str]

    async def authorize(
        self,
        action: str,
        *,
        server_name: str | None = None,
        tool_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        principal: Principal | None = None,
        sensitivity: Sensitivity | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Authorization:
        """Decide on a call that somebody else will make; it is recorded, and nothing is sent.

        :param action: ``gateway:tool:invoke``, ``gateway:tool:discover``,
            ``gateway:server:list`` or ``gateway:server:info``.
        :param sensitivity: of the tool; where the operator's own word is stricter, that counts.
        :raises AuditUnavailable: the decision cannot be recorded: there is none.
        :raises UsageError: there is no such action or sensitivity.
        """
        self._engine.open_tasks()
        if action not in _ACTIONS:
            raise UsageError(f"no action {action!r}; known: {', '.join(sorted(_ACTIONS))}")
        if sensitivity is not None and sensitivity not in _LEVELS:
            raise UsageError(f"no sensitivity {sensitivity!r}; known: {', '.join(_LEVELS)}")
        known, facts = self._known(server_name, tool_name)
        levels = [level for level in (known, sensitivity) if level is not None]
        query = Query(
            principal=principal or self._principal,
            action=action,
            server=server_name,
            tool=tool_name,
            arguments=parameters or {},
            sensitivity=max(levels, key=_LEVELS.index, default="medium"),
            context=context or {},
        )
        labels = {"sensitivity": query.sensitivity}
        return await authorize(self._caller, query, facts=facts, labels=labels)

    async def authorize_a2a(
        self,
        target_agent_id: str,
        capability: Capability,
        *,
        principal: Principal,
        source_agent_id: str | None = None,
        message_type: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        payload_metadata: Mapping[str, Any] | None = None,
        target_environment: str | None = None,
        delegation_depth: int = 0,
        context: Mapping[str, Any] | None = None,
    ) -> Authorization:
        """Decide whether one agent may ask another; it is recorded.

        :param principal: the agent that asks: whoever its token proves, and nobody else.
        :param source_agent_id: who asks, as the caller says: another one is refused.
        :param target_environment: where the other one runs, as the caller says. What counts is
            what the client was told of it (``agents``).
        :param delegation_depth: agents that stand between; more than two are refused.
        :raises AuditUnavailable: the decision cannot be recorded: there is none.
        :raises UsageError: a value that can be none of these.
        """
        self._engine.open_tasks()
        try:
            asked = Delegation(
                target=target_agent_id,
                capability=capability,
                environment=self._agents.get(target_agent_id),
                claimed_environment=target_environment or None,
                claimed_source=source_agent_id,
                depth=delegation_depth,
                message_type=message_type,
                payload_metadata=payload_metadata or {},
            )
        except ValueError as exc:
            raise UsageError(str(exc)) from exc
        query = Query(
            principal=principal,
            action=A2A,
            arguments=parameters or {},
            context=context or {},
            delegation=asked,
        )
        labels = {"target_agent": asked.target, "capability": asked.capability}
        against = objection(principal, asked)
        return await authorize(self._caller, query, objection=against, labels=labels)

    def _known(
        self, server_name: str | None, tool_name: str | None
    ) -> tuple[Sensitivity | None, ToolFacts | None]:
        """What the operator says of that tool, if it is one of a server of ours."""
        if server_name is None:
            return None, None
        try:
            server = self._engine.upstream(server_name).server
        except UnknownServer:
            return None, None
        rule = server.rule(tool_name or "")
        facts = ToolFacts(sensitive_params=frozenset(rule.sensitive_params))
        return rule.sensitivity or server.sensitivity, facts
