"""A request of the client's own, such as for a list: retried as the laws let lists be (2.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, final

import anyio
from attrs import define, field

from sark_trio.errors import GatewayError, ProtocolError
from sark_trio.machines.budget import RetryBudget
from sark_trio.machines.deadline import Deadline
from sark_trio.machines.retry import GiveUp, RetryConfig, RetryMachine, Safety, classify, surface
from sark_trio.transports.base import Outgoing

__all__ = ["Errand", "Late", "Watcher"]

#: Says whether a cancellation is a failure of the server's; ``None``: it is, once the deadline of
#: the errand has passed.
Late = Callable[[], bool] | None


class Watcher(Protocol):
    """Whoever makes an attempt, and knows what its end means."""

    def admitted(self) -> None:
        """The breaker let the attempt out."""

    def timed_out(self) -> bool:
        """Whether the deadline that we set ourselves has passed: that is a failure of the
        server, while a caller's own cancellation says nothing about it.
        """


@final
@define(eq=False, kw_only=True)
class Errand:
    """One request until it is answered or given up.

    :param attempt: makes one attempt.
    :param deadline: of all attempts; whoever sets it also cancels.
    """

    attempt: Callable[[Outgoing, Watcher], Awaitable[object]]
    retry: RetryConfig
    budget: RetryBudget
    jitter: Callable[[], float]
    deadline: float
    late: Late = None
    _machine: RetryMachine = field(init=False)

    def __attrs_post_init__(self) -> None:
        deadline = Deadline(self.deadline)
        self._machine = RetryMachine(self.retry, safety=Safety.LISTING, deadline=deadline)

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result.

        :raises GatewayError: the last real error.
        """
        outgoing = Outgoing(
            method=method,
            params=params,
            timed_out=self.timed_out,
            replay_safe=True,
            may_resend=self._may_resend,
        )
        self.budget.on_first(anyio.current_time())
        while True:
            try:
                answer = await self.attempt(outgoing, self)
                if isinstance(answer, dict):
                    return answer
                # Only a call may be answered so (2026-07-28, "Supported Requests").
                raise ProtocolError(f"{method}: answered with a question", delivery="answered")
            except GatewayError as exc:
                now, failure = anyio.current_time(), classify(exc)
            step = self._machine.on_failure(now, failure, self.jitter(), self.budget)
            if isinstance(step, GiveUp):
                raise surface(step)
            await anyio.sleep(step.seconds)

    def admitted(self) -> None:
        """Nobody counts the attempts of an errand. (``Watcher``)"""

    def timed_out(self) -> bool:
        """Whether it took too long, rather than that nobody waits for it any more. (``Watcher``)"""
        if self.late is not None:
            return self.late()
        return anyio.current_time() >= self.deadline

    async def _may_resend(self, reason: str) -> bool:
        return self._machine.on_replay(anyio.current_time(), reason, self.budget)
