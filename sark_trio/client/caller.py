"""All calls of a client: what they share, their deadlines, and their end when it closes."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from typing import TypeVar, final

import anyio
import anyio.lowlevel
from attrs import define, field

from sark_trio.client.allowance import Allowance
from sark_trio.client.approving import Approver
from sark_trio.client.asked import ToolCall, query_of
from sark_trio.client.cached import Cache
from sark_trio.client.call import TIMEOUT_MAX_S, Call
from sark_trio.client.plans import Asked
from sark_trio.client.records import Records
from sark_trio.client.scopes import Bounded, Scopes
from sark_trio.client.signals import Signals
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ClientClosed, GatewayError
from sark_trio.governance.filters import ToolFacts
from sark_trio.governance.pipeline import Governor, Verdict
from sark_trio.net.clock import lasting_time
from sark_trio.stores.audit import AuditLog
from sark_trio.telemetry.hooks import Emitter

__all__ = ["Caller", "request_ids"]

T = TypeVar("T")


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
    :param emitter: tells hooks; ``None`` where there are none.
    """

    governor: Governor
    audit: AuditLog
    timeout_s: float
    jitter: Callable[[], float]
    new_id: Callable[[], str] = field(factory=request_ids)
    emitter: Emitter | None = None
    #: Who is asked where the policy wants a person's word.
    approver: Approver | None = None
    #: How much one principal gets.
    allowance: Allowance = field(factory=Allowance)
    #: Answers to calls whose tools may be answered for; set before the first call.
    cache: Cache | None = field(default=None, init=False)
    closing: bool = field(default=False, init=False)
    _scopes: Scopes = field(factory=Scopes, init=False)

    async def invoke(self, upstream: Upstream, asked: Asked[T]) -> T:
        """Make one call within its deadline.

        :raises GatewayError: exactly one; see :mod:`sark_trio.errors`.
        """
        if self.closing:
            raise ClientClosed("the client is closed")
        if self.emitter is None:
            return await self._invoke(upstream, asked, self.new_id(), None)
        signals = Signals.begin(
            self.emitter,
            upstream,
            request_id=self.new_id(),
            method=asked.method,
            tool=asked.tool,
            traceparent=asked.traceparent,
        )
        try:
            result = await self._invoke(upstream, asked, signals.call.request_id, signals)
        except BaseException as exc:
            signals.failed(exc)
            raise
        signals.done(result, asked.delivery)
        return result

    async def _invoke(
        self, upstream: Upstream, asked: Asked[T], request_id: str, signals: Signals | None
    ) -> T:
        # Before it costs a decision, or a record.
        began = anyio.current_time()
        who = self.allowance.take(began, asked.principal, upstream.name)
        try:
            return await self._call(upstream, asked, request_id, signals, began)
        finally:
            self.allowance.release(who)

    async def _call(
        self,
        upstream: Upstream,
        asked: Asked[T],
        request_id: str,
        signals: Signals | None,
        began: float,
    ) -> T:
        configured_s = asked.configured_s(upstream.server) or self.timeout_s
        timeout_s = configured_s if asked.timeout_s is None else asked.timeout_s
        with anyio.CancelScope(deadline=began + min(timeout_s, TIMEOUT_MAX_S)) as scope:
            call = Call(
                asked=asked,
                cache=self.cache,
                approver=self.approver,
                upstream=upstream,
                governor=self.governor,
                records=Records(
                    log=self.audit,
                    request_id=request_id,
                    server=upstream.name,
                    tool=asked.tool,
                    method=asked.method,
                    principal=asked.principal,
                    began=began,
                ),
                scope=scope,
                configured_timeout_s=configured_s,
                jitter=self.jitter,
                signals=signals,
            )
            self._scopes.add(scope)
            upstream.users += 1
            try:
                return await call.steps()
            except GatewayError as exc:
                call.named(exc)
                if isinstance(exc, ClientClosed):
                    # Whoever cancels us together with the client is owed the cancellation.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                raise
            finally:
                upstream.users -= 1
                self._scopes.discard(scope)
        # Closing cancels scopes before their time; whatever was late by itself is late.
        raise call.cut_off(closing=anyio.current_time() < scope.deadline)

    async def explain(self, upstream: Upstream, asked: ToolCall) -> Verdict:
        """What would be decided about *asked*; nothing is sent or recorded."""
        rule = upstream.server.rule(asked.tool)
        facts = ToolFacts(sensitive_params=frozenset(rule.sensitive_params))
        return await self.governor.decide(lasting_time(), query_of(upstream, asked), facts)

    def bounded(self, timeout_s: float, late: Callable[[], GatewayError]) -> Bounded:
        """For what is no call, and has to end like one: ``with caller.bounded(...):``.

        :param late: the error once *timeout_s* seconds have passed.
        :raises ClientClosed: the client is closed, or is while it runs.
        """
        if self.closing:
            raise ClientClosed("the client is closed")
        return Bounded(self._scopes, anyio.current_time() + timeout_s, late)

    @property
    def running(self) -> int:
        """Calls under way."""
        return len(self._scopes)

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, let running ones end within *grace_s*, then cancel them."""
        self.closing = True
        await self._scopes.drain(grace_s)
