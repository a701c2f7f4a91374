"""Lets calls out to a server, as many at once as it can bear; the others wait in line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, final

import anyio
from attrs import define, field

from sark_trio.errors import GatewayError, Overloaded
from sark_trio.machines.adaptive import (
    AdaptiveConcurrency,
    AdaptiveLimiter,
    AdaptiveStatistics,
    Fault,
    Queued,
    Refused,
    Signal,
    signal_of,
)

__all__ = ["Turnstile"]

T = TypeVar("T")


@final
@define(eq=False)
class Turnstile:
    """The shell of an :class:`~sark_trio.machines.adaptive.AdaptiveLimiter`.

    :param name: of the server, for messages.
    """

    name: str
    options: AdaptiveConcurrency
    _machine: AdaptiveLimiter = field(init=False)
    _line: dict[int, anyio.Event] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._machine = AdaptiveLimiter(self.options)

    async def through(
        self, attempt: Callable[[], Awaitable[T]], timed_out: Callable[[], bool]
    ) -> T:
        """What *attempt* returns, made when there is room for it.

        :param timed_out: when it is cancelled: whether that is because the server was too slow.
        :raises Overloaded: there was no room within ``wait_s``, or none in the line.
        """
        ticket = await self._enter()
        signal = Signal.IGNORED
        try:
            answer = await attempt()
            signal = Signal.ANSWERED
        except GatewayError as exc:
            signal = signal_of(exc)
            raise
        except BaseException:
            if timed_out():
                signal = Signal.DROPPED
            raise
        finally:
            self._leave(ticket, signal)
        return answer

    def statistics(self) -> AdaptiveStatistics:
        """A snapshot."""
        return self._machine.statistics()

    async def _enter(self) -> int:
        step = self._machine.want(anyio.current_time())
        if isinstance(step, Refused):
            raise self._overloaded(f"{step.waiting} calls wait for it already", step.limit)
        if isinstance(step, Queued):
            await self._wait(step.ticket)
        return step.ticket

    async def _wait(self, ticket: int) -> None:
        let_in = self._line[ticket] = anyio.Event()
        try:
            with anyio.move_on_after(self.options.wait_s):
                await let_in.wait()
        except BaseException:
            # It may have been let in at the same moment; then its place is the next one's.
            self._leave(ticket, Signal.IGNORED)
            raise
        finally:
            self._line.pop(ticket, None)
        if not let_in.is_set():
            self._leave(ticket, Signal.IGNORED)
            waited = f"no room for one more within {self.options.wait_s:g} s"
            raise self._overloaded(waited, self._machine.limit)

    def _leave(self, ticket: int, signal: Signal) -> None:
        woken = self._machine.done(anyio.current_time(), ticket, signal)
        assert not isinstance(woken, Fault)  # each ticket is ended here, and once
        for one in woken:
            self._line.pop(one).set()

    def _overloaded(self, why: str, limit: int) -> Overloaded:
        return Overloaded(
            f"{self.name}: {why} ({limit} at once)", reason="concurrency", server=self.name
        )
