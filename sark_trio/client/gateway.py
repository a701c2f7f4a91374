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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, final

import anyio
from anyio.abc import TaskStatus
from attrs import evolve, frozen

from sark_trio.client.call import TIMEOUT_MAX_S
from sark_trio.client.caller import Caller, request_ids
from sark_trio.client.chapters.servers import Servers
from sark_trio.client.chapters.tools import Tools
from sark_trio.client.engine import Engine, State
from sark_trio.client.identity import JwksUrl
from sark_trio.client.lifetime import Lifetime
from sark_trio.client.servers import Server, as_server
from sark_trio.client.upstream import Upstream, UpstreamStatistics
from sark_trio.errors import ConfigError
from sark_trio.governance.jwt import TokenVerifier
from sark_trio.governance.opa import Opa
from sark_trio.governance.pipeline import Governor, Policy
from sark_trio.governance.principal import Principal
from sark_trio.governance.rego import Rego
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.retry import RetryConfig
from sark_trio.net.exchange import Exchange
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions
from sark_trio.stores.audit import AuditLog, AuditStatistics

__all__ = ["ClientStatistics", "GatewayClient"]


@final
@frozen(kw_only=True)
class ClientStatistics:
    """A snapshot of the whole client."""

    state: State
    running_calls: int
    servers: Mapping[str, UpstreamStatistics]
    audit: AuditStatistics


@final
class GatewayClient(Servers, Tools):
    """A governed client of any number of MCP servers.

    :param servers: by name: a :class:`Http` or :class:`Stdio`, a URL, or a command as a list.
    :param policy: who decides: :class:`Rego`, :class:`Opa`, an engine of your own;
        ``None`` denies every call.
    :param audit: the log, or the directory that it is kept in.
    :param principal: who calls when a call does not say; default: anonymous.
    :param identity: checks tokens for :meth:`authenticate`.
    :param tls: whom to trust where policy and keys come from; servers have their own.
    :param timeout_s: deadline of a call, retries included; default 30, at most 300.
    :param grace_s: time that running calls get when the client closes; default 5.
    :param breaker: circuit breaker of servers that have none of their own.
    :param retry: retry schedule of servers that have none of their own.
    :param jitter: draws from [0, 1); a test hands in its own.
    :raises ConfigError: an option that cannot be; nothing has been started then.
    """

    def __init__(
        self,
        *,
        servers: Mapping[str, Server | str | Sequence[str]] | None = None,
        policy: Policy = None,
        audit: AuditLog | Path | str,
        principal: Principal | None = None,
        identity: TokenVerifier | None = None,
        tls: TLSOptions | None = None,
        timeout_s: float = 30.0,
        grace_s: float = 5.0,
        breaker: BreakerOptions | None = None,
        retry: RetryConfig | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if not 0 < timeout_s <= TIMEOUT_MAX_S:
            raise ConfigError(f"{timeout_s!r} is not in (0, {TIMEOUT_MAX_S:g}]", source="timeout_s")
        if not 0 <= grace_s < float("inf"):
            raise ConfigError(f"{grace_s!r} is no number of seconds", source="grace_s")
        self._principal = principal or Principal.anonymous()
        errands = ConnectionPool(backend=AnyIOBackend(), tls=tls)
        exchange = Exchange(errands)
        if identity is not None and isinstance(identity.keys, JwksUrl):
            identity = evolve(identity, keys=identity.keys.bind(exchange))
        self._identity = identity
        self._audit = audit if isinstance(audit, AuditLog) else AuditLog(audit)
        self._caller = Caller(
            governor=Governor(policy=_ready(policy, exchange)),
            audit=self._audit,
            timeout_s=timeout_s,
            jitter=jitter,
            new_id=request_ids(),
        )
        self._engine = Engine(
            audit=self._audit,
            errands=errands,
            caller=self._caller,
            grace_s=grace_s,
            make=partial(
                _make,
                breaker=breaker or BreakerOptions(),
                retry=retry or RetryConfig(),
                jitter=jitter,
            ),
        )
        for name, server in (servers or {}).items():
            self._engine.put(name, server)
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
        return await self._identity.verify(token, time.time())

    def statistics(self) -> ClientStatistics:
        """A snapshot of the whole client."""
        return ClientStatistics(
            state=self._engine.state,
            running_calls=self._caller.running,
            servers={name: one.statistics() for name, one in self._engine.upstreams.items()},
            audit=self._audit.statistics(),
        )


def _ready(policy: Policy, exchange: Exchange) -> Policy:
    """*policy* with what it needs of us: its files read, a way to its server."""
    if isinstance(policy, Opa) and policy.exchange is None:
        return policy.bind(exchange)
    if isinstance(policy, Rego):
        return policy.load(lambda name: Path(name).read_bytes())
    return policy


def _make(
    name: str,
    server: Server | str | Sequence[str],
    *,
    breaker: BreakerOptions,
    retry: RetryConfig,
    jitter: Callable[[], float],
) -> Upstream:
    known = as_server(server, source=f"servers.{name}")
    return Upstream.of(name, known, breaker=breaker, retry=retry, jitter=jitter)
