"""Requests and notifications in the application's own words: governed like every tool call.

Policy is asked about the method (``context.method``) and its parameters, the intent is durable
before a byte leaves, and every way out writes how it ended. Nothing is sent twice: what such a
request does is known to its author alone.

``tools/call`` is none of them. It has one way through this package, and the chapters take it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, final

import anyio
from attrs import define, field, frozen

from sark_trio.client.call import TIMEOUT_MAX_S
from sark_trio.client.caller import Caller
from sark_trio.client.records import Records
from sark_trio.client.redaction import redact_error, redact_result
from sark_trio.client.upstream import Upstream
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    Delivery,
    GatewayError,
    InvalidArguments,
    ProtocolError,
)
from sark_trio.governance.pipeline import Verdict
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import NOTIFY, REQUEST, Query
from sark_trio.transports.base import Outgoing

__all__ = ["TOOL_CALL", "RawMessage", "check_method", "send_raw"]

TOOL_CALL: Final = "tools/call"
_NOTIFICATION: Final = "notifications/"
_METHOD: Final = re.compile(r"[A-Za-z][A-Za-z0-9._$/-]{0,127}")
#: The life of a connection, and of the requests on it, is the transport's to speak of: said by
#: anybody else, these would end other callers' requests.
_OURS: Final = frozenset({"initialize", "notifications/initialized", "notifications/cancelled"})


def check_method(method: str, *, notification: bool) -> None:
    """Whether an application may send *method* as such a message.

    A server that ignores case, or runs what comes without an id, must not be led around the
    policy on tools: what only looks like ``tools/call`` is refused.

    :raises InvalidArguments: it may not.
    """
    if not _METHOD.fullmatch(str(method)):
        raise InvalidArguments(f"{method!r:.80} is no name of a method")
    if method in _OURS:
        raise InvalidArguments(f"{method!r} is said by the transport, when it is time")
    if method != TOOL_CALL and method.casefold() == TOOL_CALL:
        raise InvalidArguments(
            f"{method!r} is not {TOOL_CALL!r}, and some servers would take it so"
        )
    if method.startswith(_NOTIFICATION) is not notification:
        kind = "begins" if notification else "does not begin"
        raise InvalidArguments(f"{method!r}: such a message's method {kind} with 'notifications/'")


@final
@frozen(kw_only=True)
class RawMessage:
    """What an application wants sent.

    :param timeout_s: deadline in seconds; ``None``: the server's or the client's.
    """

    method: str
    params: Mapping[str, Any] = field(repr=False)
    principal: Principal
    timeout_s: float | None = None
    notification: bool = False


async def send_raw(caller: Caller, upstream: Upstream, asked: RawMessage) -> dict[str, Any]:
    """Send one message within its deadline; the result, empty for a notification.

    :raises GatewayError: exactly one; see :mod:`sark_trio.errors`.
    """
    began = anyio.current_time()
    configured_s = upstream.server.timeout_s or caller.timeout_s
    timeout_s = configured_s if asked.timeout_s is None else asked.timeout_s
    with anyio.CancelScope(deadline=began + min(timeout_s, TIMEOUT_MAX_S)) as scope:
        records = Records(
            log=caller.audit,
            request_id=caller.new_id(),
            server=upstream.name,
            tool=None,
            method=asked.method,
            principal=asked.principal,
            began=began,
        )
        errand = _Errand(
            asked=asked,
            upstream=upstream,
            caller=caller,
            records=records,
            scope=scope,
            patient=timeout_s >= configured_s,
        )
        with caller.under_way(scope):
            try:
                return await errand.steps()
            except GatewayError as exc:
                errand.name(exc)
                raise
    closing = anyio.current_time() < scope.deadline
    raise errand.name(errand.cut_off(timeout_s, closing=closing))


@final
@define(eq=False, kw_only=True)
class _Errand:
    """One message on its way."""

    asked: RawMessage
    upstream: Upstream
    caller: Caller
    records: Records
    scope: anyio.CancelScope
    #: Whether the server is given the time that is configured; a caller's own impatience says
    #: nothing about it.
    patient: bool
    phase: str = field(default="policy", init=False)
    sent: bool = field(default=False, init=False)
    attempts: int = field(default=0, init=False)
    verdict: Verdict | None = field(default=None, init=False)

    async def steps(self) -> dict[str, Any]:
        """Decide, record, send, oblige, record."""
        verdict = await self._decide()
        self.phase = "audit"
        await self.records.intent(verdict)
        try:
            if self.asked.notification:
                await self._notify(verdict)
                self.records.told()
                return {}
            result, redactions = self._oblige(await self._request(verdict), verdict)
        except GatewayError as exc:
            redact_error(exc, verdict.obligations)
            self.records.failure(exc, self.attempts)
            raise
        except BaseException:
            self.records.cut_off(self.delivery, self.attempts, by_us=self.scope.cancel_called)
            raise
        self.records.result(is_error=False, attempts=self.attempts, redactions=redactions)
        return result

    async def _decide(self) -> Verdict:
        asked, now = self.asked, anyio.current_time()
        refusal = None if asked.notification else self.upstream.refusal(now)
        if refusal is not None:
            self.records.refusal(refusal, None)
            raise refusal
        query = Query(
            principal=asked.principal,
            action=NOTIFY if asked.notification else REQUEST,
            server=self.upstream.name,
            arguments=asked.params,
            sensitivity=self.upstream.server.sensitivity,
            context={"method": asked.method},
        )
        self.verdict = verdict = await self.caller.governor.decide(now, query)
        if not verdict.allow:
            denial = verdict.denial()
            self.records.refusal(denial, verdict)
            raise denial
        return verdict

    async def _request(self, verdict: Verdict) -> dict[str, Any]:
        self.phase = "permit"
        outgoing = Outgoing(
            method=self.asked.method,
            params=verdict.arguments,
            on_sent=self._on_sent,
            timed_out=self.timed_out,
        )
        answer = await self.upstream.request(outgoing, self)
        if not isinstance(answer, dict):
            text = f"{self.upstream.name}: {self.asked.method}: the server asks for input first"
            raise ProtocolError(text, delivery="answered")
        return answer

    async def _notify(self, verdict: Verdict) -> None:
        self.admitted()
        await self.upstream.notify(self.asked.method, verdict.arguments)

    def admitted(self) -> None:
        """The breaker let it out. (``Watcher``)"""
        server, who = self.upstream.name, self.asked.principal.id
        block = self.caller.governor.blocks.covering(server, None, who)
        if block is not None:  # since it was decided
            raise block.denial()
        self.attempts, self.phase = 1, "connect"

    def timed_out(self) -> bool:
        """Whether the deadline passed that is configured. (``Watcher``)"""
        late = anyio.current_time() >= self.scope.deadline
        return self.patient and late and self.scope.cancel_called

    def _on_sent(self) -> None:
        self.sent, self.phase = True, "answer"

    def _oblige(self, raw: dict[str, Any], verdict: Verdict) -> tuple[dict[str, Any], int]:
        return redact_result(raw, verdict.obligations, repr(self.asked.method))

    @property
    def delivery(self) -> Delivery:
        """How far it has got, as long as there is no answer."""
        return "unknown" if self.sent else "not_sent"

    def name(self, error: GatewayError) -> GatewayError:
        """*error* with what only this message knows."""
        return self.records.named(error, self.attempts, self.verdict)

    def cut_off(self, timeout_s: float, *, closing: bool) -> GatewayError:
        """The error of a message that our own scope ended."""
        what = f"{self.upstream.name}: {self.asked.method!r}"
        if closing:
            return ClientClosed(f"{what}: the client was closed", delivery=self.delivery)
        return CallTimeout(
            f"{what}: no answer within {timeout_s:g} s (waited for: {self.phase})",
            phase=self.phase,
            delivery=self.delivery,
        )
