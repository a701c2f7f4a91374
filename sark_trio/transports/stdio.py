"""MCP over the standard streams of a child process: one process, restarted when it died.

The transport owns at most one process at a time. It is started by the first
:meth:`~sark_trio.transports.base.Transport.connect` or request, and again by the first one after
its death, if the supervisor lets it; the old one is gone, group and all, before the new one
starts. Nothing is ever sent a second time from here: what a dead process had received is reported
as it was, and decided elsewhere.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import final

import anyio
from attrs import define, evolve, field

from sark_trio.errors import ProcessStartError, ServerDown
from sark_trio.machines.checks import positive
from sark_trio.machines.limits import ResourceLimits
from sark_trio.machines.supervise import Down, Start, SuperviseOptions, Supervisor, Wait
from sark_trio.mcp.era import Negotiation
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports.base import TransportStatistics
from sark_trio.transports.process import ChildProcess, Spawn
from sark_trio.transports.reconnecting import Attempt, ReconnectingTransport
from sark_trio.transports.spawn import (
    ENV_INHERITED,
    check_limits,
    child_environment,
    digest_of,
    find_program,
)
from sark_trio.transports.stdio_options import command_of, environment_of, path_or_none
from sark_trio.transports.stdio_session import Session
from sark_trio.transports.stdio_signals import life_of

__all__ = ["StdioTransport"]


@final
@define(eq=False, repr=False)
class StdioTransport(ReconnectingTransport):
    """Speak MCP with a child process on its stdin and stdout.

    :param command: program and arguments; no shell ever sees them.
    :param cwd: its working directory; ours by default.
    :param env: variables that it gets besides the inherited ones.
    :param inherit_env: names of our variables that it gets; a final ``*`` matches any end.
    :param limits: what it may use of the machine (Linux); by default as much as we may.
    :param supervision: how often it may be restarted, and when it is taken to hang.
    :param jitter: draws from [0, 1), for the delays between restarts.
    :param sha256: of the program's file, in hex; another file is not started. It is read just
        before: a pin is against an update that nobody looked at, not against who may write here.
    :param die_with_parent: kill it when we die, even by SIGKILL (Linux, needs ``setpriv``).
        Without it, an orphan sees the end of its stdin, which it should heed.
    :param write_timeout_s: longest time in which the process reads nothing while we write.
    :param report: told of processes.
    :param spawn: starts a process; the operating system's own by default.
    :raises ValueError: an option can not be right.
    """

    kind = "stdio"

    command: tuple[str, ...] = field(converter=command_of)
    cwd: str | None = field(default=None, kw_only=True, converter=path_or_none)
    env: Mapping[str, str] = field(factory=dict, kw_only=True, converter=environment_of)
    inherit_env: tuple[str, ...] = field(default=ENV_INHERITED, kw_only=True, converter=tuple)
    limits: ResourceLimits | None = field(
        default=None, kw_only=True, validator=lambda _self, _attribute, value: check_limits(value)
    )
    supervision: SuperviseOptions = field(factory=SuperviseOptions, kw_only=True)
    jitter: Callable[[], float] = field(default=random.random, kw_only=True)
    die_with_parent: bool = field(default=False, kw_only=True)
    sha256: str | None = field(default=None, kw_only=True)
    write_timeout_s: float = field(default=10.0, kw_only=True, validator=positive)
    report: Reporter | None = field(default=None, kw_only=True)
    spawn: Spawn = field(default=ChildProcess.spawn, kw_only=True)

    _supervisor: Supervisor = field(init=False)
    #: How the last process ended.
    _last_end: str = field(default="", init=False)
    #: Set to end a delay before a restart early.
    _stirred: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._supervisor = Supervisor(self.supervision)

    def reset(self) -> None:
        """An operator's word that all is well: past restarts count no more, no delay is left."""
        self._supervisor.reset(anyio.current_time())
        self._stirred.set()

    def statistics(self) -> TransportStatistics:
        """A snapshot of the counters, over all processes so far."""
        shared, supervision = super().statistics(), self._supervisor.statistics()
        talk = None if self._attempt is None else self._attempt.talk
        return evolve(
            shared,
            restarts=supervision.restarts,
            supervision=supervision,
            details={
                **shared.details,
                "pid": talk.child.pid if isinstance(talk, Session) and talk.alive else None,
                "write_stalls": self._tally.stalls,
                "survivors": self._tally.survivors,
            },
        )

    @property
    def _peer(self) -> str:
        return repr(self.command[0])

    def _close(self) -> None:
        super()._close()
        self._stirred.set()
        self._supervisor.close(anyio.current_time())

    def _admit(self) -> None:
        refusal = self._supervisor.refusal(anyio.current_time())
        if refusal is not None:
            raise self._down(refusal)

    async def _live(self, attempt: Attempt, negotiation: Negotiation) -> None:
        """Start a process once that may be, and stay with it to its end.

        :raises ProcessStartError: it could not be started.
        :raises ServerDown: none may be started for a while.
        """
        if not await self._may_start():
            return
        try:
            await self._check_program()
            session = attempt.talk = self._conversation()
            restarts, was_closed = self._supervisor.statistics().restarts, self._closing.is_set
            with life_of(session.child, self.report, restarts=restarts, is_expected=was_closed):
                await session.run(partial(self._settle, attempt, session, negotiation))
            self._last_end = session.why().message
        except ProcessStartError as exc:
            self._last_end = exc.message
            raise
        finally:
            self._supervisor.ended(anyio.current_time(), self.jitter())

    async def _check_program(self) -> None:
        """Compare the program's file with its digest, where it has one.

        :raises ProcessStartError: it is another.
        """
        if self.sha256 is None:
            return
        program = find_program(self.command[0], cwd=self.cwd, env=self._environment())
        found = await anyio.to_thread.run_sync(digest_of, program)
        if found != self.sha256:
            raise ProcessStartError(
                f"command {self.command[0]!r} was not started: the SHA-256 of {program} is "
                f"{found}, not {self.sha256}; if you know why it changed, change the digest"
            )

    def _environment(self) -> dict[str, str]:
        return child_environment(os.environ, inherit=self.inherit_env, extra=self.env)

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

    def _down(self, step: Down) -> ServerDown:
        options = self.supervision
        return ServerDown(
            f"server process {Path(self.command[0]).name!r} was restarted "
            f"{options.restarts_max} times within {options.window_s:g} s ({self._last_end}); it is "
            f"tried again in {step.retry_after_s:.0f} s, or once it is reset",
            retry_after_s=step.retry_after_s,
        )

    def _conversation(self) -> Session:
        child = self.spawn(
            self.command,
            cwd=self.cwd,
            env=self._environment(),
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
            message_bytes_max=self.message_bytes_max,
            on_event=self.on_event,
            on_request=self.on_request,
            write_timeout_s=self.write_timeout_s,
            supervisor=self._supervisor,
            limits=self.limits,
        )
