"""MCP over the standard streams of a child process: one process, restarted when it died.

The transport owns at most one process at a time. It is started by the first
:meth:`~StdioTransport.connect` or request, and again by the first one after its death, if the
supervisor lets it; the old one is gone, group and all, before the new one starts. Nothing is ever
sent a second time from here: what a dead process had received is reported as it was, and decided
elsewhere.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from sark_trio.errors import ClientClosed, Delivery, GatewayError, ProcessStartError, ServerDown
from sark_trio.machines.correlate import Correlator
from sark_trio.machines.limits import ResourceLimits
from sark_trio.machines.supervise import (
    Down,
    Start,
    SuperviseOptions,
    Supervisor,
    Wait,
)
from sark_trio.mcp.era import Negotiation
from sark_trio.mcp.messages import Agreed
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports.answering import Asker
from sark_trio.transports.base import Outgoing, Transport, TransportStatistics
from sark_trio.transports.process import BROKEN_GRACE_S, ChildProcess
from sark_trio.transports.spawn import ENV_INHERITED, check_limits, child_environment
from sark_trio.transports.stdio_attempt import Attempt
from sark_trio.transports.stdio_handshake import Handshake
from sark_trio.transports.stdio_options import (
    command_of,
    environment_of,
    path_or_none,
    positive,
)
from sark_trio.transports.stdio_session import Session
from sark_trio.transports.stdio_signals import life_of
from sark_trio.transports.switchboard import Calls, Listener, Tally

__all__ = ["StdioTransport"]

#: Largest message in either direction: base64 of a 3 MiB file.
LINE_BYTES_MAX: Final = 4 * 1024 * 1024


@final
@define(eq=False, repr=False)
class StdioTransport(Transport):
    """Speak MCP with a child process on its stdin and stdout.

    :param command: program and arguments; no shell ever sees them.
    :param cwd: its working directory; ours by default.
    :param env: variables that it gets besides the inherited ones.
    :param inherit_env: names of our variables that it gets; a final ``*`` matches any end.
    :param client_info: who we say we are (``name``, ``version``).
    :param capabilities: what we say we can do.
    :param limits: what it may use of the machine (Linux); by default as much as we may.
    :param supervision: how often it may be restarted, and when it is taken to hang.
    :param jitter: draws from [0, 1), for the delays between restarts.
    :param die_with_parent: kill it when we die, even by SIGKILL (Linux, needs ``setpriv``).
        Without it, an orphan sees the end of its stdin, which it should heed.
    :param probe_timeout_s: after this long without an answer to ``server/discover`` a server
        is taken to be a legacy one.
    :param start_timeout_s: ... and after this long without one to ``initialize`` it has failed.
    :param write_timeout_s: longest time in which the process reads nothing while we write.
    :param line_bytes_max: longest message in either direction.
    :param on_event: told each notification that belongs to no request; synchronous, must not
        block. What it raises is counted and forgotten.
    :param on_request: answers a legacy server's requests that come with no call.
    :param report: told of processes.
    :raises ValueError: an option can not be right.
    """

    command: tuple[str, ...] = field(converter=command_of)
    cwd: str | None = field(default=None, kw_only=True, converter=path_or_none)
    env: Mapping[str, str] = field(factory=dict, kw_only=True, converter=environment_of)
    inherit_env: tuple[str, ...] = field(default=ENV_INHERITED, kw_only=True, converter=tuple)
    client_info: Mapping[str, Any] = field(kw_only=True)
    capabilities: Mapping[str, Any] = field(factory=dict, kw_only=True)
    limits: ResourceLimits | None = field(
        default=None, kw_only=True, validator=lambda _self, _attribute, value: check_limits(value)
    )
    supervision: SuperviseOptions = field(factory=SuperviseOptions, kw_only=True)
    jitter: Callable[[], float] = field(default=random.random, kw_only=True)
    die_with_parent: bool = field(default=False, kw_only=True)
    probe_timeout_s: float = field(default=5.0, kw_only=True, validator=positive)
    start_timeout_s: float = field(default=30.0, kw_only=True, validator=positive)
    write_timeout_s: float = field(default=10.0, kw_only=True, validator=positive)
    line_bytes_max: int = field(default=LINE_BYTES_MAX, kw_only=True, validator=positive)
    on_event: Listener | None = field(default=None, kw_only=True)
    on_request: Asker | None = field(default=None, kw_only=True)
    report: Reporter | None = field(default=None, kw_only=True)

    _tasks: TaskGroup | None = field(default=None, init=False)
    _closing: anyio.Event = field(factory=anyio.Event, init=False)
    _stopped: anyio.Event = field(factory=anyio.Event, init=False)
    _attempt: Attempt | None = field(default=None, init=False)
    _calls: Calls = field(factory=Correlator, init=False)
    _tally: Tally = field(factory=Tally, init=False)
    _supervisor: Supervisor = field(init=False)
    #: How the last process ended.
    _last_end: str = field(default="", init=False)
    #: Set to end a delay before a restart early.
    _stirred: anyio.Event = field(factory=anyio.Event, init=False)

    kind = "stdio"

    def __attrs_post_init__(self) -> None:
        self._supervisor = Supervisor(self.supervision)

    def __repr__(self) -> str:
        session = None if self._attempt is None else self._attempt.session
        return f"<StdioTransport {self.command[0]!r} {session!r}>"

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Own the process until :meth:`aclose`, or until cancelled; see :class:`Transport`."""
        if self._tasks is not None:
            raise RuntimeError("run() of a transport is called once")
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                task_status.started()
                try:
                    await self._closing.wait()
                finally:
                    self._close()  # while the task group still takes tasks: none comes after
        finally:
            self._stopped.set()

    async def connect(self) -> Agreed:
        """Start the process and agree on a version, unless that is done already.

        :raises ProcessStartError: it could not be started, or ended before it spoke MCP.
        :raises ProtocolError: it speaks no version that we do, or no MCP at all.
        :raises ClientClosed: the transport is closed, or was never run.
        """
        attempt = await self._ready()
        assert attempt.agreed is not None
        return attempt.agreed

    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """Send one request and wait for its result; see :class:`Transport`.

        ``headers``, ``replay_safe`` and ``may_resend`` mean nothing here.
        """
        attempt = self._attempt
        if attempt is None or attempt.agreed is None or attempt.is_spent():
            attempt = await self._ready()
        assert attempt.session is not None
        assert attempt.agreed is not None
        return await attempt.session.request(outgoing, attempt.agreed)

    async def wait_lost(self) -> None:
        """Wait until the present process is gone."""
        await (await self._ready()).buried.wait()

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send one notification; returns when it is queued. See :class:`Transport`."""
        attempt = await self._ready()
        assert attempt.session is not None
        await attempt.session.notify(method, params)

    async def aclose(self) -> None:
        """Fail what waits and end the process, within 6.5 s. Idempotent.

        A caller that is cancelled meanwhile stops waiting; the stop itself goes on.
        """
        self._close()
        if self._tasks is not None:
            await self._stopped.wait()

    def reset(self) -> None:
        """An operator's word that all is well: past restarts count no more, no delay is left."""
        self._supervisor.reset(anyio.current_time())
        self._stirred.set()

    @property
    def agreed(self) -> Agreed | None:
        """What was agreed with the present process."""
        return None if self._attempt is None else self._attempt.agreed

    def statistics(self) -> TransportStatistics:
        """A snapshot of the counters, over all processes so far."""
        tally, calls = self._tally, self._calls.statistics()
        supervision = self._supervisor.statistics()
        session = None if self._attempt is None else self._attempt.session
        return TransportStatistics(
            requests=tally.requests,
            unmatched=calls.late + calls.duplicate + calls.unknown,
            garbage=tally.garbage,
            restarts=supervision.restarts,
            supervision=supervision,
            details={
                "pid": session.child.pid if session is not None and session.alive else None,
                "pending": calls.pending,
                "notifications": tally.notifications,
                "server_requests": tally.server_requests,
                "listener_errors": tally.listener_errors,
                "dropped": tally.dropped,
                "write_stalls": tally.stalls,
                "survivors": tally.survivors,
            },
        )

    def _close(self) -> None:
        self._closing.set()
        self._stirred.set()
        self._supervisor.close(anyio.current_time())
        attempt = self._attempt
        if attempt is not None:
            attempt.fail(self._closed("not_sent"))
            if attempt.session is not None:
                attempt.session.condemn(self._closed)

    def _closed(self, delivery: Delivery) -> GatewayError:
        return ClientClosed(
            f"the transport to {self.command[0]!r} is closed, or was never run", delivery=delivery
        )

    async def _ready(self) -> Attempt:
        if self._tasks is None or self._closing.is_set():
            raise self._closed("not_sent")
        attempt = self._attempt
        if attempt is None or attempt.is_spent():
            refusal = self._supervisor.refusal(anyio.current_time())
            if refusal is not None:
                raise self._down(refusal)
            previous, attempt = attempt, Attempt()
            self._attempt = attempt
            self._tasks.start_soon(self._serve, attempt, previous)
        await attempt.done.wait()
        if attempt.failure is not None:
            raise attempt.error()
        return attempt

    async def _serve(self, attempt: Attempt, previous: Attempt | None) -> None:
        """Have a server, and keep it until it ends. A task of the transport's own."""
        negotiation = Negotiation("stdio")
        try:
            if previous is not None:
                await previous.buried.wait()
            while not attempt.done.is_set() and await self._may_start():
                await self._live(attempt, negotiation)
        except (ProcessStartError, ServerDown) as exc:
            attempt.fail(exc)
        finally:
            attempt.fail(self._closed("not_sent"))
            attempt.buried.set()

    async def _may_start(self) -> bool:
        """Wait until the supervisor lets a process start; ``False``: the transport is closed.

        :raises ServerDown: it lets none start for a while.
        """
        while not self._closing.is_set():
            step = self._supervisor.start(anyio.current_time())
            if isinstance(step, Start):
                return True
            if isinstance(step, Down):
                raise self._down(step)
            assert isinstance(step, Wait), step
            self._stirred = anyio.Event()
            with anyio.move_on_after(step.seconds):
                await self._stirred.wait()
        return False

    async def _live(self, attempt: Attempt, negotiation: Negotiation) -> None:
        """Start a process, and stay with it to its end."""
        try:
            session = attempt.session = self._spawn()
            restarts, was_closed = self._supervisor.statistics().restarts, self._closing.is_set
            with life_of(session.child, self.report, restarts=restarts, is_expected=was_closed):
                await session.run(partial(self._settle, attempt, session, negotiation))
            self._last_end = session.why().message
        except ProcessStartError as exc:
            self._last_end = exc.message
            raise
        finally:
            self._supervisor.ended(anyio.current_time(), self.jitter())

    def _down(self, step: Down) -> ServerDown:
        options = self.supervision
        return ServerDown(
            f"server process {Path(self.command[0]).name!r} was restarted "
            f"{options.restarts_max} times within {options.window_s:g} s ({self._last_end}); it is "
            f"tried again in {step.retry_after_s:.0f} s, or once it is reset",
            retry_after_s=step.retry_after_s,
        )

    def _spawn(self) -> Session:
        child = ChildProcess.spawn(
            self.command,
            cwd=self.cwd,
            env=child_environment(os.environ, inherit=self.inherit_env, extra=self.env),
            limits=self.limits,
            die_with_parent=self.die_with_parent,
        )
        return Session(
            child=child,
            name=f"server process {Path(self.command[0]).name!r}",
            calls=self._calls,
            tally=self._tally,
            client_info=self.client_info,
            capabilities=self.capabilities,
            line_bytes_max=self.line_bytes_max,
            write_timeout_s=self.write_timeout_s,
            on_event=self.on_event,
            on_request=self.on_request,
            supervisor=self._supervisor,
            limits=self.limits,
        )

    async def _settle(self, attempt: Attempt, session: Session, negotiation: Negotiation) -> None:
        """Make the handshake and tell everybody how it went."""
        handshake = Handshake(
            client_info=self.client_info,
            capabilities=self.capabilities,
            probe_timeout_s=self.probe_timeout_s,
            start_timeout_s=self.start_timeout_s,
        )
        try:
            agreed = await handshake.make(session, negotiation)
        except GatewayError as exc:
            exc.delivery = "not_sent"  # for those who wait: the handshake is no call of theirs
            attempt.fail(exc)
            session.condemn(self._closed, BROKEN_GRACE_S)
        else:
            if agreed is not None:
                session.agree(agreed)
                attempt.succeed(agreed)
