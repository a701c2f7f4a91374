"""Rego in processes of its own: what a policy may take is a child's time and memory, not ours.

The engine holds Python's global lock for as long as it evaluates, so no thread and no deadline
of ours would get a turn. A child can be killed. It is started when a question needs it, answers
one at a time, and is given up, with a denial, where it does not answer in time or at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final, final

import anyio
from attrs import define, field

from sark_trio.errors import ConfigError, ProcessStartError
from sark_trio.governance.decision import Decision
from sark_trio.governance.isolation import Isolation
from sark_trio.governance.query import Question
from sark_trio.governance.rego import (
    ANSWER_BYTES_MAX,
    ReadFile,
    Rego,
    RegoEngine,
    policy_error,
)
from sark_trio.transports.process import ChildProcess

__all__ = ["IsolatedRego", "isolate"]

#: Seconds for an interpreter to start and read the policy; 0.02 are usual.
START_S: Final = 10.0
#: Questions that wait for a child; each is one of a call under way.
WAITING_MAX: Final = 10_000
#: What the dynamic loader may need; a child gets no other variable of ours.
_ENV: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")


class _GoneError(Exception):
    """A child ended, or said what none of ours says."""


def isolate(policy: Rego, read: ReadFile) -> IsolatedRego:
    """The engine of *policy*, which was evaluated once, in a child, on an empty input.

    :raises ConfigError: the policy is wrong, or does not end even then.
    """
    isolation = policy.isolation or Isolation()
    engine = policy.parse(read)
    command, env = _command(), _environment(os.environ)
    program = engine.program(isolation)
    _check(command, env, program, START_S + isolation.evaluation_s)
    return IsolatedRego(
        engine=engine, isolation=isolation, command=command, env=env, program=program
    )


def _command() -> list[str]:
    found = find_spec("regorus")
    if found is None or found.origin is None or not sys.executable:
        raise ConfigError("an isolated policy needs regorus, and an interpreter to run it in")
    child = Path(__file__).with_name("rego_child.py")
    # Isolated: neither variables nor the current folder say what is imported. And no site, for
    # the one package that is needed is named.
    folder = Path(found.origin).parent.parent
    return [sys.executable, "-I", "-S", "-B", str(child), str(folder)]


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    # The engine's allocator would take a whole GiB of addresses at once, of which a policy then
    # could use all before any limit is met.
    return {name: ours[name] for name in _ENV if name in ours} | {"MIMALLOC_ARENA_RESERVE": "0"}


def _check(command: list[str], env: Mapping[str, str], program: bytes, patience_s: float) -> None:
    """Ask one child one empty question, waiting for it here and now, as loading always does."""
    try:
        done = subprocess.run(  # noqa: S603 - argv only, and all of it ours
            command,
            input=_frame(program) + _frame(b"{}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
            timeout=patience_s,
            check=False,
        )
    except OSError as exc:
        raise ConfigError(f"the policy's process could not be started: {exc}") from exc
    except subprocess.TimeoutExpired:
        raise ConfigError(f"the policy had not decided after {patience_s:g} s") from None
    replies, said = [], done.stdout
    while said:
        length = int.from_bytes(said[:4], "big")
        replies.append(said[4 : 4 + length])
        said = said[4 + length :]
    for reply in replies:
        if reply.startswith(b"!"):
            raise policy_error(reply[1:].decode("utf-8", "replace"))
    if len(replies) < 2:
        raise ConfigError(
            f"the policy's process ended ({done.returncode}) before it decided on an empty "
            "input: the policy takes too much time or memory"
        )


@final
@define(eq=False)
class _Child:
    """One child that has read the policy. One question at a time."""

    process: ChildProcess

    async def ask(self, question: bytes) -> bytes:
        """What it says.

        :raises _GoneError: it is gone.
        """
        try:
            await self._send(memoryview(_frame(question)))
        except OSError as exc:
            raise _GoneError from exc
        said = bytearray()
        length = 4
        while len(said) < length:
            chunk = await self.process.stdout.receive()
            said += chunk
            if len(said) >= 4:
                length = 4 + int.from_bytes(said[:4], "big")
            if not chunk or length > ANSWER_BYTES_MAX + 5:
                raise _GoneError
        return bytes(said[4:])

    async def _send(self, left: memoryview) -> None:
        while left:
            sent = self.process.stdin.send_nowait([left])
            if not sent:
                await self.process.stdin.wait_sendable()
            left = left[sent:]


@final
@define(eq=False, kw_only=True, repr=False)
class IsolatedRego:
    """A policy in Rego as a :class:`~sark_trio.governance.pipeline.PolicyEngine`; :func:`isolate`
    makes one.
    """

    engine: RegoEngine
    isolation: Isolation
    _command: list[str]
    _env: Mapping[str, str]
    _program: bytes
    _idle: list[_Child] = field(factory=list, init=False)
    _turns: anyio.Semaphore = field(init=False)
    _retired: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = anyio.Semaphore(self.isolation.processes, fast_acquire=True)

    def __repr__(self) -> str:
        return f"<IsolatedRego idle={len(self._idle)} of {self.isolation.processes}>"

    @property
    def revision(self) -> str:
        """SHA-256 of the policy's sources and data."""
        return self.engine.revision

    async def decide(self, question: Question) -> Decision:
        """The policy's answer; whatever else becomes of the child that is asked is a no."""
        engine, limit_s = self.engine, self.isolation.evaluation_s
        if self._turns.statistics().tasks_waiting >= WAITING_MAX:
            return engine.failed("too many questions wait for the policy", reason="busy")
        async with self._turns:
            try:
                reply = await self._ask(question.encoded)
            except _GoneError:
                return engine.failed("the policy's process ended: it may take too much memory")
            except ProcessStartError as exc:
                return engine.failed(exc.message, reason="unreachable")
        if reply is None:
            return engine.failed(f"the policy took more than {limit_s:g} s", reason="timeout")
        if reply.startswith(b"="):
            return engine.read(reply[1:])
        return engine.failed(reply[1:].decode("utf-8", "replace"))

    def retire(self) -> None:
        """End every child, those that answer a question after they did."""
        self._retired = True
        while self._idle:
            self._idle.pop().process.kill()

    async def _ask(self, question: bytes) -> bytes | None:
        """What a child says; ``None`` if it takes too long."""
        child = await self._child()
        reply = None
        try:
            with anyio.move_on_after(self.isolation.evaluation_s):
                reply = await child.ask(question)
        finally:
            # Whoever did not answer, for whatever reason, would answer the next question late.
            if reply is None or self._retired:
                child.process.kill()
            else:
                self._idle.append(child)
        return reply

    async def _child(self) -> _Child:
        """One that is idle and lives, or another one."""
        while self._idle:
            child = self._idle.pop()
            if not child.process.has_exited():
                return child
            child.process.kill()
        process = ChildProcess.spawn(self._command, cwd="/", env=self._env)
        try:
            process.stderr.close()
            child = _Child(process)
            with anyio.move_on_after(START_S):
                if await child.ask(self._program) == b"=":
                    return child
            raise _GoneError
        except BaseException:
            process.kill()
            raise


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content
