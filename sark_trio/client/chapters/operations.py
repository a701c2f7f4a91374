"""What an operator does while the client runs: switch off, change the policy, look at the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sark_trio.client.chapters.base import Chapter
from sark_trio.client.listing import Health
from sark_trio.client.wiring import ready
from sark_trio.errors import ConfigError, GatewayError, UsageError
from sark_trio.governance.blocks import Block
from sark_trio.governance.pipeline import Policy, Verdict
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import AUDIT_READ, EVENTS_READ, Query
from sark_trio.net.clock import lasting_time
from sark_trio.net.exchange import Exchange
from sark_trio.stores.audit import AuditFollower
from sark_trio.stores.audit_ledger import Observer

__all__ = ["AuditFollower", "Operations"]


class Operations(Chapter):
    """Operating a client."""

    #: The way to a policy's server.
    _exchange: Exchange

    @property
    def principal(self) -> Principal:
        """Who calls when a call does not say."""
        return self._principal

    def health_of(self, server: str) -> Health | None:
        """What the last calls said of *server*; ``None`` if there is none of that name."""
        upstream = self._engine.upstreams.get(server)
        return None if upstream is None else upstream.health

    def block(
        self,
        server: str | None = None,
        tool: str | None = None,
        *,
        principal: str | None = None,
        reason: str,
    ) -> None:
        """Switch off a server, one of its tools, a caller, or a caller's use of either.

        Without any of them everything is off. From now on nothing of it leaves this process,
        further attempts of running calls included; callers get ``Denied`` with the reason
        ``blocked``; only tasks that they have become are still ended. It lasts until
        :meth:`unblock`, or until the client ends.

        :param reason: why, for the audit log.
        :raises UsageError: a tool without its server, or far too many blocks.
        """
        block = Block(server=server, tool=tool, principal=principal, reason=reason)
        try:
            self._caller.governor.blocks.add(block)
        except ValueError as exc:
            raise UsageError(str(exc)) from exc
        self._caller.audit.event_nowait("blocked", _described(block))

    def unblock(
        self, server: str | None = None, tool: str | None = None, *, principal: str | None = None
    ) -> bool:
        """Take back the :meth:`block` of exactly these names; whether there was one."""
        block = Block(server=server, tool=tool, principal=principal)
        was_off = self._caller.governor.blocks.remove(block)
        if was_off:
            self._caller.audit.event_nowait("unblocked", _described(block))
        return was_off

    def blocked(self) -> tuple[Block, ...]:
        """Everything that is switched off."""
        return self._caller.governor.blocks.all()

    def is_blocked(self, principal: Principal) -> bool:
        """Whether *principal*, or everybody, is switched off altogether."""
        return self._caller.governor.blocks.covering(None, None, principal.id) is not None

    def reload_policy(self, policy: Policy) -> str | None:
        """Decide by *policy* from the next question on; its revision, as far as known.

        What is being asked keeps the old policy's answer; decisions that were kept are forgotten.

        :raises ConfigError: the new policy is wrong: the old one stays. Both are recorded.
        """
        governor, audit = self._caller.governor, self._caller.audit
        before = governor.policy.revision
        try:
            self._engine.open_tasks()
            governor.replace_policy(ready(policy, self._exchange))
        except ConfigError as exc:
            audit.event_nowait("policy_kept", {"revision": before, "error": exc.message})
            raise
        after = governor.policy.revision
        audit.event_nowait("policy_reloaded", {"before": before, "after": after})
        return after

    async def record(self, name: str, details: Mapping[str, Any]) -> str:
        """Record something that happened elsewhere, as its teller says; its id in the log.

        :raises AuditUnavailable: it could not be made durable.
        """
        self._engine.open_tasks()
        audit_id = self._caller.new_id()
        await self._caller.audit.event(name, {"audit_id": audit_id, **details})
        return audit_id

    async def follow_audit(
        self, *, after: int | None = None, principal: Principal | None = None
    ) -> AuditFollower:
        """Read the audit log while it is written, from behind record *after* or from now on.

        Policy decides, on the action ``gateway:audit:read``; that it was read is recorded.

        :raises Denied: *principal* may not.
        :raises UsageError: the log has no record *after* yet.
        """
        self._engine.open_tasks()
        who, audit = principal or self._principal, self._caller.audit
        verdict = await self._decide(who, AUDIT_READ)
        if not verdict.allow:
            audit.event_nowait("audit_refused", {"principal_id": who.id})
            raise verdict.denial()
        if after is not None and not -1 <= after < audit.statistics().records:
            raise UsageError(f"the audit log has no record {after}")
        follower = audit.follow(after)
        audit.event_nowait("audit_read", {"principal_id": who.id, "from": follower.next_seq})
        return follower

    async def sees_all_events(self, principal: Principal | None = None) -> bool:
        """Whether policy lets *principal* see events of other people's calls
        (``gateway:events:read``).
        """
        self._engine.open_tasks()
        try:
            return (await self._decide(principal or self._principal, EVENTS_READ)).allow
        except GatewayError:
            return False

    def observe(self, observer: Observer) -> None:
        """Tell *observer*, for as long as the client lives, of each record that is taken.

        It gets the record's number and members before they are durable; it must not block.
        """
        self._caller.audit.observe(observer)

    async def _decide(self, who: Principal, action: str) -> Verdict:
        query = Query(principal=who, action=action)
        return await self._caller.governor.decide(lasting_time(), query)


def _described(block: Block) -> dict[str, Any]:
    names = {"server": block.server, "tool": block.tool, "principal": block.principal}
    return {**names, "reason": block.reason}
