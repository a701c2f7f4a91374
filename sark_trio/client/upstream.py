"""One server: its machines, its transport, and the task group that the transport lives in.

The only file of the package that makes a transport. What goes wrong in here stays in here: a
transport that crashes takes its own task group with it, and no other server's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping
from importlib.metadata import version
from typing import Any, Literal, final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field, frozen

from sark_trio.client.catalogue import Catalogue
from sark_trio.client.errand import Errand, Watcher
from sark_trio.client.lifetime import collapse
from sark_trio.client.servers import Http, Memory, Registry, Server, Stdio
from sark_trio.errors import (
    CircuitOpen,
    ClientClosed,
    ConfigError,
    GatewayError,
    ProtocolError,
    TransportError,
)
from sark_trio.machines.breaker import Breaker
from sark_trio.machines.budget import RetryBudget
from sark_trio.machines.circuit import (
    BreakerOptions,
    BreakerStatistics,
    CircuitState,
    Outcome,
    Reject,
)
from sark_trio.machines.retry import RetryConfig, vote
from sark_trio.mcp.codec import result_of
from sark_trio.mcp.messages import Agreed, InputRequired, Notification, Success
from sark_trio.transports.base import Outgoing, Transport, TransportStatistics
from sark_trio.transports.http import HttpTransport
from sark_trio.transports.memory import MemoryTransport
from sark_trio.transports.registry import RegistryTransport
from sark_trio.transports.stdio import StdioTransport

__all__ = ["Upstream", "UpstreamStatistics"]

#: Who we say we are (MCP 2026-07-28, "clientInfo"): for display, never for decisions.
CLIENT_INFO = {"name": "sark_trio", "version": version("sark_trio")}

State = Literal["idle", "running", "failed", "closed"]


@final
@frozen(kw_only=True)
class UpstreamStatistics:
    """A snapshot of one server's state."""

    name: str
    transport: str
    state: State
    protocol_version: str | None
    breaker: BreakerStatistics
    wire: TransportStatistics


@final
@define(eq=False, kw_only=True)
class Upstream:
    """One configured server. Made by :meth:`of`."""

    name: str
    server: Server
    breaker: Breaker
    retry: RetryConfig
    jitter: Callable[[], float] = random.random
    budget: RetryBudget = field(factory=RetryBudget)
    catalogue: Catalogue = field(init=False)
    state: State = field(default="idle", init=False)
    _transport: Transport = field(init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _failure: BaseException | None = field(default=None, init=False)
    _ended: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        try:
            self._transport = _make_transport(self.server, self._on_event)
        except ValueError as exc:
            raise ConfigError(f"{exc}", source=f"servers.{self.name}") from exc
        self.catalogue = Catalogue(
            self.name,
            fetch=self._list_tools,
            spawn=self._spawn,
            over_http=isinstance(self.server, Http),
        )

    @classmethod
    def of(
        cls,
        name: str,
        server: Server,
        *,
        breaker: BreakerOptions,
        retry: RetryConfig,
        jitter: Callable[[], float] = random.random,
    ) -> Upstream:
        """The upstream of *server*, with the client's options where it has none of its own."""
        options = server.breaker or breaker
        return cls(
            name=name,
            server=server,
            breaker=Breaker(options, key=name),
            retry=server.retry or retry,
            jitter=jitter,
        )

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Own the transport until :meth:`aclose`. A crash is kept here, and told to callers."""
        try:
            async with anyio.create_task_group() as task_group:
                self._tasks = task_group
                await task_group.start(self._transport.run)
                self.state = "running"
                task_status.started()
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is this server's alone
            self.state, self._failure = "failed", collapse(exc)
        finally:
            if self.state != "failed":
                self.state = "closed"
            self._tasks = None
            self._ended.set()

    async def aclose(self) -> None:
        """Close the transport and wait until nothing of it is left. Idempotent, bounded."""
        await self._transport.aclose()
        if self.state == "running":
            await self._ended.wait()

    async def connect(self) -> Agreed:
        """Connect now instead of at the first call."""
        self._check_running()
        return await self._transport.connect()

    def refusal(self, now: float) -> CircuitOpen | None:
        """The error that a call would get from the breaker now, without changing it."""
        rejected = self.breaker.peek(now)
        return None if rejected is None else self._open(rejected)

    async def request(self, outgoing: Outgoing, watcher: Watcher) -> dict[str, Any]:
        """One attempt: a permit of the breaker, the wire, and the vote on how it went."""
        self._check_running()
        began = anyio.current_time()
        admitted = self.breaker.acquire(began)
        if isinstance(admitted, Reject):
            raise self._open(admitted)
        outcome = Outcome.NEUTRAL
        try:
            watcher.admitted()
            result = self._complete(await self._transport.request(outgoing))
            outcome = Outcome.SUCCESS
        except GatewayError as exc:
            outcome = vote(exc)
            raise
        except BaseException:
            if watcher.timed_out():
                outcome = Outcome.FAILURE
            raise
        finally:
            now = anyio.current_time()
            self.breaker.settle(now, admitted.permit, outcome, now - began)
        return result

    def _complete(self, answer: dict[str, Any]) -> dict[str, Any]:
        """*answer*, if it is one (MCP 2026-07-28, "ResultType")."""
        agreed = self._transport.agreed
        result = result_of(Success(0, answer), modern=agreed is None or agreed.modern)
        if isinstance(result, InputRequired):
            raise ProtocolError(
                f"{self.name}: the server asks for input, which this client did not offer",
                delivery="answered",
            )
        return result

    @property
    def health(self) -> Literal["unknown", "healthy", "unhealthy"]:
        """What the last calls said of the server."""
        if self.state == "failed" or self.breaker.state is not CircuitState.CLOSED:
            return "unhealthy"
        return "healthy" if self.breaker.statistics().successes else "unknown"

    def statistics(self) -> UpstreamStatistics:
        """A snapshot."""
        agreed = self._transport.agreed
        return UpstreamStatistics(
            name=self.name,
            transport=self._transport.kind,
            state=self.state,
            protocol_version=None if agreed is None else agreed.version,
            breaker=self.breaker.statistics(),
            wire=self._transport.statistics(),
        )

    def _open(self, rejected: Reject) -> CircuitOpen:
        wait = rejected.retry_after_s
        when = "" if wait is None else f"; try again in {wait:.1f} s"
        return CircuitOpen(
            f"{self.name}: the circuit breaker refuses ({rejected.reason}){when}",
            reason=rejected.reason,
            retry_after_s=wait,
            server=self.name,
        )

    def _check_running(self) -> None:
        if self.state == "failed":
            raise TransportError(
                f"{self.name}: its transport crashed ({self._failure!r}); disconnect and connect",
                delivery="not_sent",
                server=self.name,
            ) from self._failure
        if self.state != "running":
            raise ClientClosed(f"{self.name}: not connected", server=self.name)

    async def _list_tools(self, params: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        errand = Errand(
            attempt=self.request,
            retry=self.retry,
            budget=self.budget,
            jitter=self.jitter,
            deadline=deadline,
        )
        return await errand.request("tools/list", params)

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._check_running()
        assert self._tasks is not None
        self._tasks.start_soon(work)

    def _on_event(self, notification: Notification) -> None:
        if notification.method == "notifications/tools/list_changed":
            self.catalogue.invalidate()


def _make_transport(server: Server, on_event: Callable[[Notification], None]) -> Transport:
    if isinstance(server, Http):
        return HttpTransport(
            server.url,
            headers=tuple(server.headers.items()),
            tls=server.tls,
            client_info=CLIENT_INFO,
            pinned_version=server.protocol_version,
        )
    if isinstance(server, Stdio):
        if server.protocol_version is not None:
            raise ValueError("protocol_version: only a server behind a URL can be held to one")
        return StdioTransport(
            server.command,
            cwd=None if server.cwd is None else str(server.cwd),
            env=server.env,
            client_info=CLIENT_INFO,
            on_event=on_event,
        )
    if isinstance(server, Registry):
        return RegistryTransport(server.url, server.server, api_key=server.api_key, tls=server.tls)
    if isinstance(server, Memory):
        return MemoryTransport(server.serve, on_event=on_event)
    raise ConfigError(f"{type(server).__name__} is no server that can be reached")
