"""One server process and the conversation with it, from birth to burial.

Four tasks serve a session: one reads stdout, one writes stdin, one empties stderr, one watches
the pid; its guard has two more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ClassVar, Final, final

import anyio
from attrs import define, field

from sark_trio.errors import GatewayError, Overloaded, ProcessExited
from sark_trio.machines.limits import ResourceLimits
from sark_trio.machines.lines import LineSplitter, TooLong
from sark_trio.machines.supervise import Phase, Supervisor
from sark_trio.mcp import codec
from sark_trio.mcp.messages import Agreed
from sark_trio.transports.base import Outgoing
from sark_trio.transports.conversation import Conversation
from sark_trio.transports.process import BROKEN_GRACE_S, GRACE_S, ChildProcess
from sark_trio.transports.stdio_guard import Guard, probe_of
from sark_trio.transports.stdio_verdicts import (
    exited,
    not_mcp,
    stillborn,
    stopped,
    unresponsive,
    write_timeout,
)
from sark_trio.transports.switchboard import Call, Verdict

__all__ = ["Session"]

#: Silent write timeouts in a row after which a process is taken to hang (laws, 2.5).
STALLS_MAX: Final = 3
#: Seconds between the end of a pipe and the exit that it announces; then we stop waiting for
#: an exit code. Below the 100 ms in which calls must learn of a death.
FADE_S: Final = 0.05
#: The end of stderr that is kept, and how much of it an error carries.
STDERR_BYTES: Final = 65_536
STDERR_TAIL_BYTES: Final = 4_096
#: Reads of what a dead process left in its pipe; a grandchild could refill it for ever.
LAST_READS_MAX: Final = 64


@final
@define(eq=False, repr=False, kw_only=True)
class Session(Conversation):
    """The conversation with *child*, which it owns from here on. Served by :meth:`run`."""

    terminator: ClassVar[bytes] = b"\n"

    child: ChildProcess
    write_timeout_s: float
    supervisor: Supervisor
    limits: ResourceLimits | None
    _grace_s: tuple[float, float] = field(default=GRACE_S, init=False)
    _exit_seen: anyio.Event = field(factory=anyio.Event, init=False)
    _lines: LineSplitter = field(init=False)
    _stderr: bytearray = field(factory=bytearray, init=False)
    _stalls: int = field(default=0, init=False)
    _agreed: Agreed | None = field(default=None, init=False)
    _guard: Guard = field(init=False)
    _probe: Call | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._lines = LineSplitter(line_bytes_max=self.message_bytes_max)
        self._guard = Guard(
            supervisor=self.supervisor,
            limits=self.limits,
            name=self.name,
            leader=self.child.pid,
            ask=self._ask,
            condemn=lambda verdict: self.condemn(verdict, BROKEN_GRACE_S),
        )

    def __repr__(self) -> str:
        state = "alive" if self.alive else "condemned"
        return f"<Session {state} {self.child!r} {self._board!r} {self._outbox!r}>"

    @property
    def stderr_tail(self) -> str:
        """The end of what the process wrote on stderr; it is from a stranger."""
        return self._stderr[-STDERR_TAIL_BYTES:].decode("utf-8", "replace")

    async def run(self, handshake: Callable[[], Awaitable[None]]) -> None:
        """See :meth:`Conversation.run`. When it returns, the process is gone."""
        try:
            async with anyio.create_task_group() as tasks:
                self.answer_in(tasks)
                for body in (self._read, self._write, self._collect_stderr, self._watch):
                    tasks.start_soon(body)
                tasks.start_soon(self._guard.watch_answers)
                tasks.start_soon(self._guard.watch_limits)
                await handshake()
                await self._condemned.wait()
                tasks.cancel_scope.cancel()
        finally:
            self.condemn(stopped(self.name))
            try:
                await self.child.stop(self._grace_s)
            finally:
                self.tally.survivors += self.child.survived

    def condemn(self, verdict: Verdict, grace_s: tuple[float, float] = GRACE_S) -> None:
        """As :meth:`Conversation.condemn`; :meth:`run` gives the process *grace_s* to end."""
        if self.alive:
            self._grace_s = grace_s
            super().condemn(verdict)

    def reject(self, verdict: Verdict) -> None:
        """See :meth:`Conversation.reject`."""
        self.condemn(verdict, BROKEN_GRACE_S)

    def hung_up(self, end: GatewayError) -> bool:
        """See :meth:`Conversation.hung_up`; what we ended ourselves did not leave."""
        return isinstance(end, ProcessExited)

    def stillborn(self) -> GatewayError:
        """See :meth:`Conversation.stillborn`."""
        return stillborn(self.why(), self.stderr_tail)

    def agree(self, agreed: Agreed) -> None:
        """See :meth:`Conversation.agree`."""
        super().agree(agreed)
        self._agreed = agreed

    def _given_up(self, call: Call, outgoing: Outgoing) -> None:
        waited = self.alive and call.outcome is None and call.delivery == "unknown"
        if waited and outgoing.timed_out is not None and outgoing.timed_out():
            self._guard.timed_out()

    def _ask(self) -> None:
        """Queue the question whether the process lives; any answer to it is one."""
        assert self._agreed is not None
        self._forget_probe()
        method, params = probe_of(self._agreed, self.client_info, self.capabilities)
        self._probe = call = Call(method)
        # With as many calls waiting as may wait, their silence says as much as the probe's.
        with suppress(Overloaded):
            call_id = self._board.open(call, anyio.current_time())
            self._board.post(call, self._framed(codec.encode_request(call_id, method, params)))

    def _forget_probe(self) -> None:
        """Wait for its answer no more, if it still has none."""
        if self._probe is not None:
            self._board.abandon(self._probe, reason=None)
            self._probe = None

    async def _read(self) -> None:
        while chunk := await self.child.stdout.receive():
            self._stalls = 0
            self._take(chunk)
        await self._fade("closed its stdout")

    def _take(self, chunk: bytes) -> None:
        now, answers = anyio.current_time(), self._board.answers
        for line in self._lines.feed(chunk):
            if isinstance(line, TooLong):
                fine = self._board.count_garbage(now)
            else:
                fine = self._board.receive(line, now)
            if not fine:
                self.condemn(not_mcp(self.name), BROKEN_GRACE_S)
                return
        if self._agreed is not None:
            self._guard.took(now, answers=self._board.answers - answers)
            if self.supervisor.phase is Phase.RUNNING:
                self._forget_probe()  # whatever was answered: it lives

    async def _write(self) -> None:
        stdin = self.child.stdin
        while self.alive:
            if not self._outbox:
                await self._outbox.wait_entry()
                continue  # condemned meanwhile, perhaps
            try:
                count = stdin.send_nowait(self._outbox.batch())
            except OSError:
                await self._fade("closed its stdin")
                return
            self._outbox.advance(count)
            if self._outbox:
                await self._wait_sendable()

    async def _wait_sendable(self) -> None:
        with anyio.move_on_after(self.write_timeout_s) as patience:
            await self.child.stdin.wait_sendable()
            self._stalls = 0
        if patience.cancelled_caught:
            self._stalls += 1
            self.tally.stalls += 1
            if self._stalls >= STALLS_MAX:
                silence_s = STALLS_MAX * self.write_timeout_s
                what = f"neither reads nor writes for {silence_s:g} s"
                self.condemn(unresponsive(self.name, what), BROKEN_GRACE_S)
            else:
                late = write_timeout(self.name, self.write_timeout_s)
                self._board.settle_unsent(late)
                self._outbox.fail_line(lambda: late("not_sent"))

    async def _collect_stderr(self) -> None:
        while chunk := await self.child.stderr.receive():
            self._keep_stderr(chunk)

    def _keep_stderr(self, chunk: bytes) -> None:
        self._stderr += chunk
        del self._stderr[:-STDERR_BYTES]

    async def _watch(self) -> None:
        await self.child.wait_exited()
        self._exit_seen.set()
        self._die("exited")

    async def _fade(self, how: str) -> None:
        with anyio.move_on_after(FADE_S):
            await self._exit_seen.wait()
        self._die(how)

    def _die(self, how: str) -> None:
        """Read what is left in the pipes, for the last answer may be there; then condemn."""
        for _ in range(LAST_READS_MAX):
            chunk = self.child.stdout.receive_nowait()
            if not chunk:
                break
            self._take(chunk)
        for _ in range(LAST_READS_MAX):
            chunk = self.child.stderr.receive_nowait()
            if not chunk:
                break
            self._keep_stderr(chunk)
        verdict = exited(self.name, how, self.child.exit_code, self.stderr_tail)
        self.condemn(verdict, BROKEN_GRACE_S)
