"""How a command runs on an event loop, and how signals end it: in order, whatever it is doing.

A ``KeyboardInterrupt`` may strike between any two instructions, those of an event loop's own
bookkeeping included. A signal that cancels instead lets the client record how its calls ended,
and take its servers down.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, final

import anyio
from anyio.abc import TaskStatus
from attrs import define, field

from sark_trio.client.lifetime import collapse

__all__ = ["Interrupted", "Signals", "run"]

T = TypeVar("T")


@final
class Interrupted(KeyboardInterrupt):
    """A signal has ended a command. Its exit status is that of shells."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@final
@define(eq=False)
class Signals:
    """What SIGINT and SIGTERM do, one after the other; SIGHUP does so, too, or reloads.

    The default is what every command wants that has an end of its own: the first one ends it. It
    may be changed while the command runs.
    """

    #: What the first does, the second, and so on; those beyond the last do nothing.
    steps: Sequence[Callable[[], None]] | None = None
    reload: Callable[[], None] | None = None
    #: The signal that ended the command, if one did.
    ended_by: int | None = field(default=None, init=False)

    async def obey(
        self, end: Callable[[], None], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Obey until cancelled. *end* ends the command."""
        taken = 0
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP and self.reload is not None:
                    self.reload()
                elif self.steps is None:
                    self.ended_by = self.ended_by or number
                    end()
                elif taken < len(self.steps):
                    taken += 1
                    self.steps[taken - 1]()


def run(
    work: Callable[[], Awaitable[T]], *, backend: str = "trio", signals: Signals | None = None
) -> T:
    """Run *work* on an event loop until it ends, or until a signal ends it.

    :raises Interrupted: a signal did.
    """
    obeyed = Signals() if signals is None else signals
    results: list[T] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as working:
                await tasks.start(obeyed.obey, working.cancel)
                results.append(await work())
            tasks.cancel_scope.cancel()

    try:
        anyio.run(main, backend=backend)
    except BaseExceptionGroup as group:
        single = collapse(group)
        raise single from single.__cause__
    if not results:
        assert obeyed.ended_by is not None
        raise Interrupted(obeyed.ended_by)
    return results[0]
