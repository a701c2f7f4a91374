"""All calls of a client: what they share, their deadlines, and their end when it closes."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from typing import final

import anyio
from attrs import define, field

from sark_trio.client.call import TIMEOUT_MAX_S, Call, ToolCall, query_of
from sark_trio.client.records import Records
from sark_trio.client.scopes import Scopes
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ClientClosed, GatewayError
from sark_trio.governance.filters import ToolFacts
from sark_trio.governance.pipeline import Governor, Verdict
from sark_trio.mcp.results import ToolResult
from sark_trio.stores.audit import AuditLog

__all__ = ["Caller", "request_ids"]


def request_ids() -> Callable[[], str]:
    """Mints ids that no other client mints: chance once for the client, then a count.

    Chance for each call would be one more system call in every call.
    """
    prefix, numbers = uuid.uuid4().hex[:20], itertools.count(1)
    return lambda: f"{prefix}{next(numbers):012x}"


@final
@define(eq=False, kw_only=True)
class Caller:
    """Makes governed calls.

    :param timeout_s: deadline of a call to which nothing more specific gives one.
    :param jitter: draws from [0, 1).
    :param new_id: mints request ids.
    """

    governor: Governor
    audit: AuditLog
    timeout_s: float
    jitter: Callable[[], float]
    new_id: Callable[[], str]
    closing: bool = field(default=False, init=False)
    _scopes: Scopes = field(factory=Scopes, init=False)

    async def invoke(self, upstream: Upstream, asked: ToolCall) -> ToolResult:
        """Make one call within its deadline.

        :raises GatewayError: exactly one; see :mod:`sark_trio.errors`.
        """
        if self.closing:
            raise ClientClosed("the client is closed")
        began, configured_s = anyio.current_time(), self._timeout_s(upstream, asked.tool)
        timeout_s = configured_s if asked.timeout_s is None else asked.timeout_s
        with anyio.CancelScope(deadline=began + min(timeout_s, TIMEOUT_MAX_S)) as scope:
            call = Call(
                asked=asked,
                upstream=upstream,
                governor=self.governor,
                records=Records(
                    log=self.audit,
                    request_id=self.new_id(),
                    server=upstream.name,
                    tool=asked.tool,
                    principal=asked.principal,
                    began=began,
                ),
                scope=scope,
                configured_timeout_s=configured_s,
                jitter=self.jitter,
            )
            self._scopes.add(scope)
            try:
                return await call.steps()
            except GatewayError as exc:
                call.named(exc)
                raise
            finally:
                self._scopes.discard(scope)
        # Closing cancels scopes before their time; whatever was late by itself is late.
        raise call.cut_off(closing=anyio.current_time() < scope.deadline)

    async def explain(self, upstream: Upstream, asked: ToolCall) -> Verdict:
        """What would be decided about *asked*; nothing is sent or recorded."""
        rule = upstream.server.rule(asked.tool)
        facts = ToolFacts(sensitive_params=frozenset(rule.sensitive_params))
        return await self.governor.decide(anyio.current_time(), query_of(upstream, asked), facts)

    @property
    def running(self) -> int:
        """Calls under way."""
        return len(self._scopes)

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, let running ones end within *grace_s*, then cancel them."""
        self.closing = True
        await self._scopes.drain(grace_s)

    def _timeout_s(self, upstream: Upstream, tool: str) -> float:
        server = upstream.server
        return server.rule(tool).timeout_s or server.timeout_s or self.timeout_s
