"""What a server process is watched for while it runs: that it answers, and keeps its limits.

Nothing in here disturbs a process that nobody calls: the question whether it lives is asked only
after a call that it left without an answer, and what it uses is read from the system.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import anyio
from anyio import CapacityLimiter, to_thread
from attrs import define, field

from sark_trio.machines.limits import LimitWatch, ResourceLimits
from sark_trio.machines.supervise import Kill, Probe, Supervisor
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.meta import request_meta
from sark_trio.transports.procfs import session_usage
from sark_trio.transports.stdio_verdicts import exceeded, unresponsive
from sark_trio.transports.switchboard import Verdict

__all__ = ["Guard", "probe_of"]


def probe_of(
    agreed: Agreed, client_info: Mapping[str, Any], capabilities: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The question whether a process lives, as method and parameters, in its own words.

    ``ping`` until 2025-11-25; 2026-07-28 has it no more, and every server must answer
    ``server/discover``.
    """
    if not agreed.modern:
        return "ping", {}
    meta = request_meta(agreed.version, client_info=client_info, client_capabilities=capabilities)
    return "server/discover", {"_meta": meta}


@final
@define(eq=False, kw_only=True)
class Guard:
    """Guards one session, from its start to its end.

    :param name: of the server, for messages.
    :param leader: the process, which leads a session of its own.
    :param ask: puts the question whether it lives, without waiting.
    :param condemn: ends the session.
    """

    supervisor: Supervisor
    limits: ResourceLimits | None
    name: str
    leader: int
    ask: Callable[[], None]
    condemn: Callable[[Verdict], None]
    _doubted: anyio.Event = field(factory=anyio.Event, init=False)

    def timed_out(self) -> None:
        """A call that the process had received got no answer in its time."""
        step = self.supervisor.timed_out(anyio.current_time())
        if isinstance(step, Probe):
            self.ask()
            self._doubted.set()
        elif isinstance(step, Kill):
            self._give_up(step)

    def took(self, now: float, *, answers: int) -> None:
        """Something was read, and so many answers were in it."""
        if answers:
            self.supervisor.answered(now)
        else:
            self.supervisor.heard(now)

    async def watch_answers(self) -> None:
        """Give the process up once it leaves the question unanswered. Without one: no timer."""
        while True:
            deadline = self.supervisor.next_deadline()
            with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
                await self._doubted.wait()
                self._doubted = anyio.Event()
            step = self.supervisor.tick(anyio.current_time())
            if step is not None:
                self._give_up(step)
                return

    async def watch_limits(self) -> None:
        """Measure what the process and its children use, and end them if that is too much."""
        if self.limits is None or not self.limits.watched:
            return
        watch, threads = LimitWatch(self.limits), CapacityLimiter(1)
        while True:
            now = anyio.current_time()
            usage = await to_thread.run_sync(session_usage, self.leader, limiter=threads)
            limit = watch.sample(now, usage)
            if limit is not None:
                self.condemn(exceeded(self.name, limit))
                return
            await anyio.sleep(self.limits.interval_s)

    def _give_up(self, step: Kill) -> None:
        options = self.supervisor.options
        what = f"did not say within {options.probe_s:g} s whether it lives"
        if step.why == "timeouts":
            what = f"left {options.timeouts_max} calls in a row without an answer"
        self.condemn(unresponsive(self.name, what))
