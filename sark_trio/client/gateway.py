"""The façade: name servers, a policy and an audit directory, and call tools.

::

    async with GatewayClient(
        servers={"files": Stdio(["mcp-server-filesystem", "."]), "db": "https://db.example/mcp"},
        policy=Rego("policy.rego"),
        audit="audit/",
    ) as client:
        result = await client.invoke_tool("db", "query", {"sql": "select 1"}, principal=alice)

Every method may be called from any task of the event loop, in any order, until the client is
closed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import anyio
from anyio.abc import TaskStatus
from attrs import frozen

from sark_trio.client.allowance import CONCURRENT_MAX
from sark_trio.client.approving import Approver
from sark_trio.client.caller import Caller
from sark_trio.client.chapters.agents import Agents
from sark_trio.client.chapters.checks import Checks
from sark_trio.client.chapters.events import Events, event_streams
from sark_trio.client.chapters.forwarding import Forwarding
from sark_trio.client.chapters.local import Local
from sark_trio.client.chapters.operations import Operations
from sark_trio.client.chapters.pinning import Pinning
from sark_trio.client.chapters.prompts import Prompts
from sark_trio.client.chapters.resources import Resources
from sark_trio.client.chapters.servers import Servers
from sark_trio.client.chapters.subscriptions import Subscriptions
from sark_trio.client.chapters.tasks import Tasks
from sark_trio.client.chapters.tools import Tools
from sark_trio.client.engine import Engine, State
from sark_trio.client.handlers import Handlers
from sark_trio.client.lifetime import Lifetime
from sark_trio.client.modes import TransportMode
from sark_trio.client.pins import Pins, keeper_of
from sark_trio.client.servers import Server
from sark_trio.client.snapshots import UpstreamStatistics
from sark_trio.client.wiring import (
    ErrorHandling,
    allowance_of,
    cache_of,
    emitter_to,
    grace_of,
    link_to,
    log_of,
    principal_of,
    ready,
    servers_of,
    timeout_of,
    with_keys,
)
from sark_trio.errors import ConfigError, Denied
from sark_trio.governance.jwt import TokenVerifier
from sark_trio.governance.pipeline import Governor, Policy
from sark_trio.governance.principal import Principal
from sark_trio.machines.caching import CacheOptions, CacheStatistics
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.limiter import RateOptions
from sark_trio.machines.retry import RetryConfig
from sark_trio.mcp.messages import Notification
from sark_trio.net.exchange import Exchange
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions
from sark_trio.stores.audit import AuditLog, AuditStatistics
from sark_trio.telemetry.events import TokenChecked, word
from sark_trio.telemetry.hooks import Hook, HookStatistics

__all__ = ["ClientStatistics", "GatewayClient"]

#: What is kept where nobody says otherwise.
CACHE: Final = CacheOptions()


@final
@frozen(kw_only=True)
class ClientStatistics:
    """A snapshot of the whole client. Of the gateway's servers those are in it that are in use."""

    state: State
    running_calls: int
    servers: Mapping[str, UpstreamStatistics]
    audit: AuditStatistics
    cache: CacheStatistics
    hooks: tuple[HookStatistics, ...] = ()


@final
class GatewayClient(
    Agents,
    Checks,
    Events,
    Forwarding,
    Local,
    Operations,
    Pinning,
    Prompts,
    Resources,
    Servers,
    Subscriptions,
    Tasks,
    Tools,
):
    """A governed client of any number of MCP servers.

    :param servers: by name: a :class:`Http` or :class:`Stdio`, a URL, or a command as a list.
    :param policy: who decides: :class:`Rego`, :class:`Opa`, an engine of your own;
        ``None`` denies every call.
    :param audit: the log, or the directory that it is kept in.
    :param gateway_url: base URL of a gateway whose servers can be called by name without being
        configured here; a name that is configured here is ours.
    :param api_key: our key for the gateway (``X-API-Key``); it goes to its exact origin.
    :param transport_mode: what servers may be reached over; what it forbids is refused.
    :param max_connections: connections to the gateway at once.
    :param principal: who calls when a call does not say; default: anonymous.
    :param identity: checks tokens for :meth:`authenticate`.
    :param tls: whom to trust where policy and keys come from, and the gateway; servers have
        their own.
    :param timeout_s: deadline of a call, retries included; default 30, at most 300.
    :param grace_s: time that running calls get when the client closes; default 5.
    :param concurrent_max: calls of one principal under way at once; one more is refused
        (:class:`~sark_trio.errors.Overloaded`) before anything is decided; default 20,000.
    :param rate: calls of one principal that begin, a second and at once; one more is refused
        likewise. ``None``: as many as *concurrent_max* lets.
    :param breaker: circuit breaker of servers that have none of their own.
    :param retry: retry schedule of servers that have none of their own.
    :param enable_error_handling: without it a call is one attempt, and no breaker refuses it;
        deadlines, policy and audit stay.
    :param cache: limits of the cache of lists and reads; ``None`` keeps nothing.
    :param hooks: told what happens, as it happens: see :mod:`sark_trio.telemetry.hooks`.
    :param handlers: what the application does when a server asks: elicitation, sampling, roots.
    :param approve: asked about each call that the policy allows only with a person's word
        (``require_approval``); answers with who approved it, or ``None``. Without it such calls
        are denied.
    :param agents: where agents run (their environment), by their ids, for
        :meth:`authorize_a2a`; no caller's word on it counts.
    :param pins: the file of tools that were approved, or :class:`~sark_trio.Pins`: a tool that
        changes is neither listed nor called until it is approved. ``None`` compares nothing.
    :param jitter: draws from [0, 1); a test hands in its own.
    :raises ConfigError: an option that cannot be; nothing has been started then.
    """

    def __init__(
        self,
        *,
        servers: Mapping[str, Server | str | Sequence[str]] | None = None,
        policy: Policy = None,
        audit: AuditLog | Path | str,
        gateway_url: str | None = None,
        api_key: str | None = None,
        transport_mode: TransportMode | str = TransportMode.AUTO,
        max_connections: int = 50,
        principal: Principal | None = None,
        identity: TokenVerifier | None = None,
        tls: TLSOptions | None = None,
        timeout_s: float = 30.0,
        grace_s: float = 5.0,
        concurrent_max: int = CONCURRENT_MAX,
        rate: RateOptions | None = None,
        breaker: BreakerOptions | None = None,
        retry: RetryConfig | None = None,
        enable_error_handling: bool = True,
        cache: CacheOptions | None = CACHE,
        hooks: Iterable[Hook] = (),
        handlers: Handlers | None = None,
        approve: Approver | None = None,
        agents: Mapping[str, str] | None = None,
        pins: Pins | Path | str | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._principal = principal_of(principal)
        self._exchange = exchange = Exchange(ConnectionPool(backend=AnyIOBackend(), tls=tls))
        self._agents = dict(agents or {})
        self._identity = with_keys(identity, exchange)
        self._gateway = link_to(gateway_url, api_key, transport_mode, max_connections, tls)
        self._audit = log_of(audit)
        self._emitter = emitter_to(hooks, self._audit)
        self._pins = keeper_of(pins, self._audit.event_nowait)
        self._handling = handling = ErrorHandling(
            enabled=enable_error_handling,
            breaker=breaker or BreakerOptions(),
            retry=retry or RetryConfig(),
            jitter=jitter,
            emitter=self._emitter,
            mode=self._gateway.mode,
            on_notice=self._on_notice,
            handlers=handlers or Handlers(),
            pins=self._pins,
            audit=self._audit,
        )
        self._caller = Caller(
            governor=Governor(policy=ready(policy, exchange)),
            audit=self._audit,
            timeout_s=timeout_of(timeout_s),
            jitter=jitter,
            emitter=self._emitter,
            approver=approve,
            allowance=allowance_of(concurrent_max, rate),
        )
        self._engine = Engine(
            errands=exchange.pool,
            caller=self._caller,
            grace_s=grace_of(grace_s),
            gateway=self._gateway,
            make=handling.upstream,
        )
        self._cache = self._caller.cache = cache_of(cache, self._engine, self._caller, handling)
        self._engine.offered = servers_of(self._gateway, self._engine, self._cache, handling)
        self._events = event_streams(self._gateway, self._engine.open_tasks, jitter, self._emitter)
        self._engine.put(servers or {})
        self._lifetime = Lifetime(self._engine.run, self._engine.close)

    # -- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._lifetime.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._lifetime.leave(value)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own every task of the client until :meth:`close`: ``await nursery.start(client.run)``.

        Cancelling it closes the client as :meth:`close` does, within the same bounds but
        without grace for running calls.

        :raises AuditError: the audit log cannot be opened.
        """
        await self._engine.run(task_status=task_status)

    async def close(self) -> None:
        """End running calls within the grace, close everything, flush the log. Idempotent.

        May be called from any task; returns when nothing is left.
        """
        await self._engine.close()

    async def authenticate(self, token: str) -> Principal:
        """The principal that a token proves.

        :raises Denied: it proves nothing; ``reason`` says why, and the token is in no message.
        :raises ConfigError: the client was given no ``identity``.
        """
        if self._identity is None:
            raise ConfigError(
                "tokens cannot be checked: give the client identity=TokenVerifier(...)"
            )
        try:
            principal = await self._identity.verify(token, time.time())
        except Denied as exc:
            self._checked(exc)
            raise
        self._checked(None)
        return principal

    def _on_notice(self, server: str, notice: Notification) -> None:
        self._cache.on_notice(server, notice)

    def _checked(self, refusal: Denied | None) -> None:
        if self._emitter is not None:
            reason = None if refusal is None else word(refusal.reason)
            self._emitter.emit(TokenChecked(ok=refusal is None, reason=reason))

    def statistics(self) -> ClientStatistics:
        """A snapshot of the whole client."""
        return ClientStatistics(
            state=self._engine.state,
            running_calls=self._caller.running,
            servers={name: one.statistics() for name, one in self._engine.all_upstreams().items()},
            audit=self._audit.statistics(),
            cache=self._cache.statistics(),
            hooks=() if self._emitter is None else self._emitter.statistics(),
        )
