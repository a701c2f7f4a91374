"""One server: its machines, its transport, and the task group that the transport lives in.

The only file of the package that uses a transport. What goes wrong in here stays in here: a
transport that crashes takes its own task group with it, and no other server's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Literal, final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from sark_trio.client.announcing import ServerSignals
from sark_trio.client.catalogue import Catalogue
from sark_trio.client.ears import Ear, Ears
from sark_trio.client.errand import Errand, Late, Watcher
from sark_trio.client.handlers import Handlers
from sark_trio.client.lifetime import collapse
from sark_trio.client.modes import TransportMode, check_mode
from sark_trio.client.refusals import circuit_open
from sark_trio.client.servers import Directory, Http, Memory, Registry, Server
from sark_trio.client.silence import silent_ttl_s
from sark_trio.client.snapshots import State, UpstreamStatistics
from sark_trio.client.turnstile import Turnstile
from sark_trio.client.wires import wire_of
from sark_trio.errors import CircuitOpen, ClientClosed, ConfigError, GatewayError, TransportError
from sark_trio.machines.breaker import Breaker
from sark_trio.machines.budget import RetryBudget
from sark_trio.machines.circuit import BreakerOptions, CircuitState, Outcome, Reject
from sark_trio.machines.retry import RetryConfig, vote
from sark_trio.mcp.codec import result_of
from sark_trio.mcp.messages import Agreed, InputRequired, Notification, Request, Success
from sark_trio.mcp.tasks import Task, is_created, parse_task
from sark_trio.telemetry.hooks import Emit, Reporter
from sark_trio.transports.base import Outgoing, Transport
from sark_trio.transports.stdio import StdioTransport

__all__ = ["Upstream"]

Reply = dict[str, Any] | InputRequired | Task


@final
@define(eq=False, kw_only=True)
class Upstream:
    """One configured server. Made by :meth:`of`."""

    name: str
    server: Server
    breaker: Breaker
    retry: RetryConfig
    jitter: Callable[[], float] = random.random
    emit: Emit | None = None
    budget: RetryBudget = field(factory=RetryBudget)
    #: Which kinds of transport the client may use.
    mode: TransportMode = TransportMode.AUTO
    #: Told each notification of the server that belongs to no request.
    on_notice: Callable[[str, Notification], None] = field(default=lambda _name, _notice: None)
    #: Calls that are under way.
    users: int = field(default=0, init=False)
    #: What the application does for the server when it asks.
    handlers: Handlers = field(factory=Handlers)
    #: Told of each notification that belongs to no request, while they listen.
    ears: Ears = field(factory=Ears, init=False)
    catalogue: Catalogue = field(init=False)
    #: Where calls wait for each other, if the server has a limit of its own.
    turnstile: Turnstile | None = field(default=None, init=False)
    state: State = field(default="idle", init=False)
    _transport: Transport = field(init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _failure: BaseException | None = field(default=None, init=False)
    _signals: ServerSignals | None = field(default=None, init=False)
    _ended: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        report = None if self.emit is None else Reporter(self.name, self.emit)
        self._signals = None if report is None else ServerSignals(report)
        if (concurrency := self.server.concurrency) is not None:
            self.turnstile = Turnstile(self.name, concurrency)
        try:
            self._transport = wire_of(
                self.server,
                on_event=self.hear,
                on_request=self._on_request if self.handlers.hears else None,
                capabilities=self.handlers.capabilities(modern=False),
                report=report,
                mode=self.mode,
                jitter=self.jitter,
            )
        except ValueError as exc:
            raise ConfigError(f"{exc}", source=f"servers.{self.name}") from exc
        self.catalogue = Catalogue(
            self.name,
            fetch=partial(self.read, "tools/list"),
            spawn=self.spawn,
            over_http=isinstance(self.server, Http),
            report=report,
            silent_ttl_s=lambda: silent_ttl_s(self.server, self.agreed, "tools/list"),
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
        emit: Emit | None = None,
        handlers: Handlers | None = None,
        mode: TransportMode = TransportMode.AUTO,
    ) -> Upstream:
        """The upstream of *server*, with the client's options where it has none of its own."""
        options = server.breaker or breaker
        return cls(
            name=name,
            server=server,
            breaker=Breaker(options, key=name),
            retry=server.retry or retry,
            jitter=jitter,
            emit=emit,
            handlers=handlers or Handlers(),
            mode=mode,
        )

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Own the transport until :meth:`aclose`. A crash is kept here, and told to callers."""
        told = False
        try:
            async with anyio.create_task_group() as task_group:
                self._tasks = task_group
                await task_group.start(self._carry)
                self.state, told = "running", True
                task_status.started()
                try:
                    await anyio.sleep_forever()
                finally:
                    # While the task group still takes tasks: none comes after.
                    if self.state == "running":
                        self.state = "closing"
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is this server's alone
            self.state, self._failure = "failed", collapse(exc)
            if not told:
                task_status.started()
        finally:
            if self.state != "failed":
                self.state = "closed"
            self._tasks = None
            self._ended.set()

    async def _carry(self, *, task_status: TaskStatus[None]) -> None:
        """Run the transport. A crash is known before the task group takes no tasks any more."""
        try:
            await self._transport.run(task_status=task_status)
        except Exception as exc:
            self.state, self._failure = "failed", collapse(exc)
            raise
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()  # what lives on beside it waits for nothing any more

    async def aclose(self) -> None:
        """Close the transport and wait until nothing of it is left. Idempotent, bounded."""
        if self.state == "running":
            self.state = "closing"
        self.ears.close()
        await self._transport.aclose()
        if self.state == "closing":
            await self._ended.wait()

    async def connect(self) -> Agreed:
        """Connect now instead of at the first call."""
        self._check_running()
        agreed = await self._transport.connect()
        if self._signals is not None:
            self._signals.connected(self._transport)
        return agreed

    def refusal(self, now: float) -> CircuitOpen | None:
        """The error that a call gets from the breaker now, and counts as one; or ``None``."""
        if self.breaker.peek(now) is None:
            return None
        rejected = self.breaker.acquire(now)
        assert isinstance(rejected, Reject)  # as it has just said
        if self._signals is not None:
            self._signals.moved(rejected.transition)
        return circuit_open(rejected, self.name)

    async def request(self, outgoing: Outgoing, watcher: Watcher) -> Reply:
        """One attempt: a place, a permit of the breaker, the wire, and the vote on how it went."""
        if self.turnstile is None:
            return await self._attempt(outgoing, watcher)
        through, late = self.turnstile.through, partial(self._is_late, watcher)
        return await through(partial(self._attempt, outgoing, watcher), late)

    async def _attempt(self, outgoing: Outgoing, watcher: Watcher) -> Reply:
        self._check_running()
        began = anyio.current_time()
        admitted = self.breaker.acquire(began)
        if self._signals is not None:
            self._signals.moved(admitted.transition)
        if isinstance(admitted, Reject):
            raise circuit_open(admitted, self.name)
        outcome = Outcome.NEUTRAL
        try:
            watcher.admitted()
            result = self._read(outgoing.method, await self._transport.request(outgoing))
            outcome = Outcome.SUCCESS
        except GatewayError as exc:
            outcome = vote(exc)
            raise
        except BaseException:
            if self._is_late(watcher):
                outcome = Outcome.FAILURE
            raise
        finally:
            now = anyio.current_time()
            moved = self.breaker.settle(now, admitted.permit, outcome, now - began)
            if self._signals is not None:
                self._signals.connected(self._transport)
                self._signals.moved(moved)
        return result

    async def read(
        self, method: str, params: Mapping[str, Any], deadline: float, late: Late = None
    ) -> dict[str, Any]:
        """A request that changes nothing, retried as the laws let lists and reads be (2.2).

        :raises GatewayError: the last real error.
        """
        errand = Errand(
            attempt=self.request,
            retry=self.retry,
            budget=self.budget,
            jitter=self.jitter,
            deadline=deadline,
            late=late,
        )
        return await errand.request(method, params)

    def _is_late(self, watcher: Watcher) -> bool:
        """Whether the server had its time, and no person held it up."""
        return watcher.timed_out() and not self._transport.is_held_up()

    async def probe(self) -> dict[str, Any]:
        """Ask the server whether it is there, past the breaker and without a vote.

        :raises GatewayError: it is not, or is not well.
        """
        self._check_running()
        agreed = await self._transport.connect()
        if isinstance(self.server, Directory):
            return await self._transport.request(Outgoing(method="health"))
        if isinstance(self.server, Memory | Registry):
            return {}  # to be connected is all that there is to it
        method = "server/discover" if agreed.modern else "ping"
        return await self._transport.request(Outgoing(method=method, replay_safe=True))

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send one notification. It says nothing about the server, so no breaker is asked."""
        self._check_running()
        await self._transport.notify(method, params)

    def reset(self) -> None:
        """An operator's word that the server is well: what breaker and supervisor hold is gone."""
        self.breaker.reset(anyio.current_time())
        if isinstance(self._transport, StdioTransport):
            self._transport.reset()

    def _read(self, method: str, answer: dict[str, Any]) -> Reply:
        """What *answer* is (MCP 2026-07-28, "ResultType")."""
        agreed = self._transport.agreed
        modern = agreed is None or agreed.modern
        if method == "tools/call" and is_created(answer, modern=modern):
            return parse_task(answer)
        return result_of(Success(0, answer), modern=modern)

    @property
    def agreed(self) -> Agreed | None:
        """What was agreed with the server, once it was."""
        return self._transport.agreed

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
            concurrency=None if self.turnstile is None else self.turnstile.statistics(),
            wire=self._transport.statistics(),
        )

    @property
    def kind(self) -> str:
        """Which transport leads there: ``http``, ``stdio``, ..."""
        return self._transport.kind

    def _check_running(self) -> None:
        check_mode(self.mode, self.kind, f"server {self.name!r}")
        if self.state == "failed":
            raise TransportError(
                f"{self.name}: its transport crashed ({self._failure!r}); disconnect and connect",
                delivery="not_sent",
                server=self.name,
            ) from self._failure
        if self.state != "running":
            raise ClientClosed(f"{self.name}: not connected", server=self.name)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *work* in the upstream's own tasks."""
        self._check_running()
        assert self._tasks is not None
        self._tasks.start_soon(work)

    async def listen(self, outgoing: Outgoing) -> None:
        """Hear of changes until that ends; see ``Transport.listen``. No breaker is asked."""
        self._check_running()
        await self._transport.listen(outgoing)

    async def _on_request(self, request: Request) -> dict[str, Any]:
        """A legacy server asks, and not for the sake of a call."""
        return await self.handlers.answer(self.name, request.method, request.params)

    def hear(self, notification: Notification, but: Ear | None = None) -> None:
        """The server said what belongs to no request; *but* knows already."""
        if notification.method == "notifications/tools/list_changed":
            self.catalogue.invalidate()
        self.ears.hear(notification, but)
        self.handlers.hear(self.name, notification)
        self.on_notice(self.name, notification)
