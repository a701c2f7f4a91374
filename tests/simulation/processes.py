"""Simulated server processes: a kernel that starts, signals and reaps them, and what they do.

The transport owns a real :class:`~sark_trio.transports.process.ChildProcess`, whose pipes and
leader are these: how it stops what does not want to stop is under test as well.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import trio
from attrs import define, field

from sark_trio import jsontext
from sark_trio.errors import ProcessStartError
from sark_trio.transports.process import ChildProcess
from tests.simulation.checks import Violation
from tests.simulation.desk import LISTEN, WATCHING, Desk, Visit
from tests.simulation.network import Chaos
from tests.simulation.pipes import SMALL_BYTES, ReadEnd, Tube, WriteEnd

__all__ = ["Kernel", "Program"]

#: Longer than any line that a client takes.
GIANT_BYTES = 4 * 1024 * 1024 + 1
FLOOD_BYTES = 200_000
#: Earlier answers that a process gives again.
REPEATED_MAX = 10
#: Restarts of one server in any such time, at most (laws, D2).
RESTARTS_MAX, WINDOW_S = 5, 30.0


@define(eq=False)
class Program:
    """A server that is started as a process, again and again. *desk* is what all of them do."""

    desk: Desk
    #: When a process of it was wanted.
    starts: list[float] = field(factory=list)
    #: Answers that were given, by all of them.
    given: list[bytes] = field(factory=list)

    def crowded(self) -> bool:
        """Whether there were more restarts in some window than there may be."""
        restarts = self.starts[1:]
        return any(
            sum(end - WINDOW_S < at <= end for at in restarts) > RESTARTS_MAX for end in restarts
        )


@define(eq=False)
class Process:
    """One process, and the leader of its group (``transports.process.Leader``)."""

    pid: int
    program: Program
    chaos: Chaos
    stdin: Tube
    stdout: Tube
    stderr: Tube
    exit_code: int | None = None
    reaped: bool = False
    #: Whether it heeds the end of its stdin, and SIGTERM; whether a child of its own holds on
    #: to its pipes.
    heeds_end: bool = True
    heeds_term: bool = True
    has_heir: bool = False
    #: Whether it begins with a line that is longer than any may be.
    boasts: bool = False
    #: Answers that its predecessors gave, which it gives again before each of its own.
    inherited: Sequence[bytes] = ()
    _frozen: bool = False
    _term_waits: bool = False
    _out: list[bytes] = field(factory=list)
    _changed: trio.Event = field(factory=trio.Event)
    _exited: trio.Event = field(factory=trio.Event)
    _life: trio.CancelScope = field(factory=trio.CancelScope)
    _tasks: trio.Nursery | None = None
    _visit: Visit = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._visit = Visit(self.program.desk, self._say)
        self._visit.begin()

    # What a kernel does with it.

    def has_exited(self) -> bool:
        return self.exit_code is not None

    async def wait_exited(self) -> int | None:
        await self._exited.wait()
        return self.exit_code

    def signal_group(self, signum: signal.Signals) -> None:
        if self.reaped:
            return
        if signum is signal.SIGKILL:
            self.has_heir = False
            self.end(-9)
            self._let_go()
        elif signum is signal.SIGTERM:
            self._term_waits = True
        elif signum is signal.SIGCONT:
            self.thaw()
        if self._term_waits and not self._frozen and self.heeds_term:
            self.end(-15)

    def reap(self) -> None:
        if not self.has_exited():
            raise Violation(f"process {self.pid} is reaped while it runs")
        self.reaped = True

    def end(self, code: int) -> None:
        """It is gone, by its own will or not. Who is gone already stays so."""
        if self.exit_code is None:
            self.exit_code = code
            self._visit.end()
            self._life.cancel()
            self._exited.set()
            if not self.has_heir:
                self._let_go()

    def _let_go(self) -> None:
        self.stdin.deafen()
        self.stdout.end()
        self.stderr.end()

    def freeze(self) -> None:
        """Do nothing any more, as on SIGSTOP."""
        self._frozen = True

    def thaw(self) -> None:
        """Go on."""
        self._frozen = False
        self._touch()

    def _touch(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # What it does itself.

    async def live(self) -> None:
        """From birth to death."""
        with self._life:
            if self.chaos.strikes("slow starts"):
                await trio.sleep(self.chaos.seconds("slow starts", 0, 8))
            if self.chaos.strikes("early exits"):
                self.stderr.give(b"cannot go on like this\n")
                self.end(self.chaos.size("early exits", 3))
                return
            async with trio.open_nursery() as self._tasks:
                self._tasks.start_soon(self._speak)
                await self._listen()
                self._tasks.cancel_scope.cancel()
            if self.chaos.strikes("slow ends"):
                await trio.sleep(self.chaos.seconds("slow ends", 0, 4))
            self.end(0)

    async def _listen(self) -> None:
        """Take lines until the end of stdin, and beyond it if it is not heeded."""
        rest = b""
        while chunk := await self._read():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                message = jsontext.decode(line)  # half a line, or two in one, is none
                if message.get("method") in WATCHING:
                    await self._answer(message)  # no server watches in another order than is asked
                elif "id" in message and "method" in message:
                    self._tasks.start_soon(self._answer, message)
                elif "method" in message:
                    self._visit.cancel(message)
        while not self.heeds_end:
            await trio.sleep_forever()

    async def _read(self) -> bytes:
        await self._running()
        if self.chaos.strikes("hangs"):
            self.freeze()
        await self._running()
        return await self.stdin.read()

    async def _running(self) -> None:
        while self._frozen:
            await self._changed.wait()

    async def _answer(self, message: Mapping[str, Any]) -> None:
        method, chaos = message["method"], self.chaos
        if self.has_exited():
            return
        if chaos.strikes("crashes before work"):
            self.end((0, 1, -9, -11)[chaos.size("crashes before work", 4) - 1])
            return
        if method == LISTEN and self.program.desk.modern:
            self._visit.listen(message)
            return
        result = await self.program.desk.result(method, message.get("params", {}), self._visit)
        if result is None and chaos.strikes("exits on what is unknown"):
            self.end(1)
            return
        if chaos.strikes("crashes after work"):
            self.end((0, 1, -9, -11)[chaos.size("crashes after work", 4) - 1])
            return
        if chaos.strikes("floods of stderr"):
            self._tasks.start_soon(self._flood)
        if chaos.strikes("closed stdout"):
            self.stdout.end()
        if chaos.strikes("closed stdin"):
            self.stdin.deafen()
        for line in self._lines(message["id"], result):
            self._say(line)

    def _lines(self, request_id: Any, result: Mapping[str, Any] | None) -> Iterator[bytes]:
        chaos, given = self.chaos, self.program.given
        if chaos.strikes("garbage on stdout"):
            yield from itertools.repeat(b"Debug: \xff", chaos.size("garbage on stdout", 120))
        if self.boasts:
            self.boasts = False
            yield b"x" * GIANT_BYTES
        yield from self.inherited
        if chaos.strikes("dropped lines"):
            return
        answer = self.program.desk.encoded(request_id, result)
        given.append(answer)
        yield answer
        if chaos.strikes("answers twice"):
            yield answer

    def _say(self, line: bytes) -> None:
        self._out.append(line + b"\n")
        self._touch()

    async def _speak(self) -> None:
        while True:
            while not self._out:
                await self._changed.wait()
            data = b"".join(self._out)
            self._out.clear()
            await self._running()
            if self.chaos.strikes("slow pipes"):
                await trio.sleep(self.chaos.seconds("slow pipes", 0, 2))
            if self.stdout.ended:
                continue
            try:
                await self.stdout.write(data)
            except BrokenPipeError:
                self.end(-13)

    async def _flood(self) -> None:
        try:
            await self.stderr.write(b"oh dear\n" * (FLOOD_BYTES // 8))
        except BrokenPipeError:
            self.end(-13)


@define(eq=False)
class Kernel:
    """Starts processes (``transports.process.Spawn``); they run in *tasks*."""

    chaos: Chaos
    tasks: trio.Nursery
    programs: dict[str, Program] = field(factory=dict)
    processes: list[Process] = field(factory=list)
    #: Told of births.
    on_event: Callable[[str], None] = field(default=lambda _line: None)

    def spawn(
        self,
        command: Sequence[str],
        *,
        cwd: str | None,
        env: Mapping[str, str],
        limits: Any,
        die_with_parent: bool,
    ) -> ChildProcess:
        """Start the program that *command* names."""
        program = self.programs[command[0]]
        program.starts.append(trio.current_time())
        for other in self.processes:
            if other.program is program and not other.reaped:
                raise Violation(f"a second process of {program.desk.name} beside {other.pid}")
        if self.chaos.strikes("processes that cannot start"):
            raise ProcessStartError("no such program")
        process = self._born(program)
        self.processes.append(process)
        self.tasks.start_soon(process.live)
        self.on_event(f"process {process.pid} of {program.desk.name} starts")
        return ChildProcess(
            stdin=WriteEnd(process.stdin),
            stdout=ReadEnd(process.stdout),
            stderr=ReadEnd(process.stderr),
            leader=process,
        )

    def _born(self, program: Program) -> Process:
        chaos = self.chaos
        pipes = [Tube(chaos) for _ in range(3)]
        if chaos.strikes("small pipes"):
            pipes[0].capacity = SMALL_BYTES
        return Process(
            1000 + len(self.processes),
            program,
            chaos,
            *pipes,
            heeds_end=not chaos.strikes("ends of stdin not heeded"),
            heeds_term=not chaos.strikes("SIGTERM not heeded"),
            has_heir=chaos.strikes("grandchildren"),
            boasts=chaos.strikes("giant lines"),
            inherited=program.given[-REPEATED_MAX:]
            if chaos.strikes("answers of predecessors")
            else (),
        )

    def running(self, program: Program) -> list[Process]:
        """Processes of *program* that live."""
        return [one for one in self.processes if one.program is program and not one.has_exited()]

    def is_maimed(self, program: Program) -> bool:
        """Whether a process of *program* lives that has closed one of its pipes."""
        return any(one.stdin.deaf or one.stdout.ended for one in self.running(program))

    def thaw(self) -> None:
        """Let all that hang go on."""
        for process in self.processes:
            process.thaw()

    def left(self) -> list[str]:
        """Processes that still run, or that nobody reaped."""
        return [
            f"process {one.pid} of {one.program.desk.name}: "
            + ("a zombie" if one.has_exited() else "running")
            for one in self.processes
            if not one.reaped
        ]
