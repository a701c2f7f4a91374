"""What runs under a client: the log, the errands' connections, and every upstream.

The task group at the root of all of it, and the order in which it comes up and goes down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from sark_trio.client.caller import Caller
from sark_trio.client.directory import GatewayServers
from sark_trio.client.lifetime import collapse
from sark_trio.client.link import GatewayLink
from sark_trio.client.servers import Server, check_name
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ClientClosed, ConfigError, UnknownServer, UsageError
from sark_trio.net.pool import ConnectionPool

__all__ = ["Engine", "State"]

#: An upstream in one of these states takes no requests any more.
_ENDED = frozenset({"closing", "closed", "failed"})
State = Literal["new", "open", "closing", "closed"]
#: Servers of one client: each has machines and, when used, connections or a process.
SERVERS_MAX = 4_096


@final
@define(eq=False, kw_only=True)
class Engine:
    """Owns every task of a client.

    :param errands: connections for policy and keys.
    :param gateway: the way to the gateway.
    :param grace_s: time that running calls get when it ends.
    :param make: the upstream of a named server; raises ConfigError.
    """

    errands: ConnectionPool
    gateway: GatewayLink
    caller: Caller
    grace_s: float
    make: Callable[[str, Server | str | Sequence[str]], Upstream]
    #: What the gateway offers, where there is one; set before the engine runs.
    offered: GatewayServers | None = field(default=None, init=False)
    state: State = field(default="new", init=False)
    upstreams: dict[str, Upstream] = field(factory=dict, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _changing: anyio.Lock = field(factory=anyio.Lock, init=False)
    #: Made in :meth:`run`: a client may be made where no event loop runs yet.
    _stop: anyio.Event = field(factory=anyio.Event, init=False)
    _ended: anyio.Event = field(factory=anyio.Event, init=False)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own everything until :meth:`close`, or until cancelled.

        :raises AuditError: the audit log cannot be opened.
        """
        if self.state != "new":
            raise UsageError("a GatewayClient runs once; make another one")
        self.state = "open"
        try:
            async with anyio.create_task_group() as task_group:
                await self._own(task_group, task_status)
        except BaseExceptionGroup as group:
            single = collapse(group)
            raise single from single.__cause__
        finally:
            self.state = "closed"
            self._tasks = None
            self.caller.governor.close()
            self._ended.set()

    async def close(self) -> None:
        """End running calls within the grace, close everything, flush the log. Idempotent."""
        self._stop.set()
        if self.state == "new":
            self.state = "closed"
            self.caller.governor.close()
            self._ended.set()
        await self._ended.wait()

    async def _own(self, task_group: TaskGroup, task_status: TaskStatus[None]) -> None:
        log_scope = anyio.CancelScope()
        await task_group.start(self._keep_log, log_scope)
        # The log is closed below, and never by a cancellation: those who are cut off by the
        # same one have yet to write how they ended.
        log_scope.shield = True
        try:
            await task_group.start(self.errands.run)
            await task_group.start(self.gateway.pool.run)
            for upstream in self.upstreams.values():
                await task_group.start(upstream.run)
            if self.offered is not None:
                await task_group.start(self.offered.upstream.run)
            self._tasks = task_group
            task_status.started()
            await self._stop.wait()
            await self._wind_down(self.grace_s)
        except BaseException:
            # Cancelled: what was begun is ended all the same, each step within its own bound.
            with anyio.CancelScope(shield=True):
                await self._wind_down(0)
            raise
        task_group.cancel_scope.cancel()

    async def _keep_log(self, scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
        with scope:
            await self.caller.audit.run(task_status=task_status)

    async def _wind_down(self, grace_s: float) -> None:
        """Refuse, let end, cancel, close transports, and only then the log of it all."""
        self.state = "closing"
        await self.caller.drain(grace_s)
        async with anyio.create_task_group() as closing:
            for upstream in self.upstreams.values():
                closing.start_soon(upstream.aclose)
            if self.offered is not None:
                closing.start_soon(self.offered.aclose)
        self.gateway.pool.shutdown()
        self.errands.shutdown()
        await self.caller.audit.aclose()

    # -- servers ------------------------------------------------------------------------------

    def upstream(self, name: str) -> Upstream:
        """The upstream of that name: of a server that is configured, or of one of the gateway's
        that is in use.

        :raises UnknownServer: there is none.
        """
        found = self.upstreams.get(name)
        if found is None and self.offered is not None:
            found = self.offered.made(name)
        if found is None:
            known = ", ".join(sorted(self.upstreams)[:10]) or "none"
            raise UnknownServer(f"no server {name!r}; configured: {known}", server=name)
        return found

    def all_upstreams(self) -> dict[str, Upstream]:
        """Those of servers that are configured, and of the gateway's that are in use."""
        foreign = {} if self.offered is None else self.offered.upstreams
        return {**foreign, **self.upstreams}

    def is_at_hand(self, name: str) -> bool:
        """Whether :meth:`upstream` finds one that runs, or that is configured."""
        if name in self.upstreams or self.offered is None:
            return name in self.upstreams
        found = self.offered.made(name)
        return found is not None and found.state == "running"

    async def find(self, name: str) -> Upstream:
        """The upstream of that name; of a server of the gateway's it is made now.

        :raises UnknownServer: neither is it configured, nor does the gateway know it.
        """
        if name in self.upstreams or self.offered is None:
            return self.upstream(name)
        self.open_tasks()
        return await self.offered.find(name)

    def put(self, servers: Mapping[str, Server | str | Sequence[str]]) -> None:
        """Take in servers before the client runs.

        :raises ConfigError: a name cannot be one, or a server cannot be.
        """
        if not isinstance(servers, Mapping):
            raise ConfigError("expected servers by their names", source="servers")
        for name, server in servers.items():
            self.upstreams[name] = self._new(name, server)

    async def add(self, name: str, server: Server | str | Sequence[str]) -> None:
        """Take in a server while running; it is contacted when it is first needed."""
        tasks = self.open_tasks()
        async with self._changing:
            await self._start(tasks, name, self._new(name, server))
            if self.offered is not None:
                await self.offered.forget(name)  # what is configured here is ours

    async def take_out(self, name: str, only: Server | None = None) -> Upstream:
        """Forget a server, whose upstream is the caller's to close.

        :param only: the server of that name that is meant, and no later one.
        """
        async with self._changing:
            upstream = self.upstream(name)
            if only is not None and upstream.server is not only:
                raise UnknownServer(f"server {name!r} is another one by now", server=name)
            if self.upstreams.pop(name, None) is None and self.offered is not None:
                await self.offered.forget(name)
        return upstream

    async def restart(self, name: str) -> Upstream:
        """The upstream of that name, begun afresh if it was closed or has crashed."""
        tasks = self.open_tasks()
        upstream = self.upstream(name)
        if upstream.state not in _ENDED:
            return upstream
        async with self._changing:
            upstream = self.upstream(name)
            if upstream.state in _ENDED:  # nobody else was first
                await upstream.aclose()  # whoever closed it may have been cancelled
                if name not in self.upstreams:
                    return await self.find(name)
                upstream = self.make(name, upstream.server)
                await self._start(tasks, name, upstream)
        return upstream

    def _new(self, name: str, server: Server | str | Sequence[str]) -> Upstream:
        if check_name(name) in self.upstreams:
            raise ConfigError(f"there is a server {name!r} already; remove it first")
        if len(self.upstreams) >= SERVERS_MAX:
            raise ConfigError(f"more than {SERVERS_MAX} servers")
        return self.make(name, server)

    async def _start(self, tasks: TaskGroup, name: str, upstream: Upstream) -> None:
        """Only what runs can be found: nobody meets an upstream that is half begun."""
        await tasks.start(upstream.run)
        self.upstreams[name] = upstream

    def open_tasks(self) -> TaskGroup:
        """The root task group.

        :raises ClientClosed: it is not there yet, or no more.
        """
        if self.state == "new" or (self.state == "open" and self._tasks is None):
            raise ClientClosed(
                "the client is not open yet: enter `async with client`, or start its run()"
            )
        if self.state != "open" or self._tasks is None:
            raise ClientClosed("the client is closed")
        return self._tasks
