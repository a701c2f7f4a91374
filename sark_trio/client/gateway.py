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
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import anyio
from anyio.abc import TaskStatus
from attrs import evolve, frozen

from sark_trio.client.call import TIMEOUT_MAX_S, ToolCall
from sark_trio.client.caller import Caller
from sark_trio.client.discovery import tools_of, tools_of_all
from sark_trio.client.engine import Engine, State
from sark_trio.client.identity import JwksUrl
from sark_trio.client.lifetime import Lifetime
from sark_trio.client.listing import ServerInfo, ToolListing, server_info
from sark_trio.client.servers import Server, as_server
from sark_trio.client.upstream import Upstream, UpstreamStatistics
from sark_trio.errors import ConfigError, UsageError
from sark_trio.governance.jwt import TokenVerifier
from sark_trio.governance.opa import Opa
from sark_trio.governance.pipeline import Governor, Policy, Verdict
from sark_trio.governance.principal import Principal
from sark_trio.governance.rego import Rego
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.retry import RetryConfig
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.progress import Progress
from sark_trio.mcp.results import ToolResult
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
class GatewayClient:
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
            new_id=lambda: uuid.uuid4().hex,
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

    # -- servers ------------------------------------------------------------------------------

    async def add_server(self, name: str, server: Server | str | Sequence[str]) -> None:
        """Add a server to the running client; it is contacted when it is first needed.

        :raises ConfigError: the name is taken or cannot be one.
        """
        await self._engine.add(name, server)

    async def remove_server(self, name: str) -> None:
        """Close a server's transport and forget the server; its running calls fail."""
        await self._engine.remove(name)

    async def connect(self, name: str) -> Agreed:
        """Connect now instead of at the first call, and say what was agreed.

        A server that was disconnected, or whose transport crashed, starts afresh.

        :raises GatewayError: as the first call would.
        """
        upstream = await self._engine.restart(name)
        return await upstream.connect()

    async def disconnect(self, name: str) -> None:
        """Close a server's transport and wait until nothing of it is left; its calls fail."""
        await self._engine.upstream(name).aclose()

    async def list_servers(self) -> tuple[ServerInfo, ...]:
        """The configured servers, and what is known of them without asking them."""
        return tuple(server_info(upstream) for upstream in self._engine.upstreams.values())

    async def get_server_info(self, name: str) -> ServerInfo:
        """One configured server.

        :raises UnknownServer: there is none of that name.
        """
        return server_info(self._engine.upstream(name))

    # -- tools --------------------------------------------------------------------------------

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


def _check_names(*names: object) -> None:
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"names of servers and tools are strings, not {name!r}")


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
