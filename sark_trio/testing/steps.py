"""Cancels a scenario at every step that the scheduler takes, one run for each step.

A step is one turn of one task, whichever it is: a call may be waiting while its transport, the
audit log or another call is in the middle of something. A first run, without cancelling, counts
the steps between the victim's beginning and its end; then there is one run for each of them.

::

    async def scenario(victim: Victim) -> None:
        async with GatewayClient(...) as client:
            with victim:
                await client.invoke_tool("db", "query")
            assert not held(client)

    print(sweep(scenario, seeds=range(8)))

Runs are as repeatable as the scenario: on trio the order of tasks that are ready at once is
drawn from the seed; on asyncio it is first come, first served.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from contextvars import Context
from types import TracebackType
from typing import Any, Literal, Self, TypeVarTuple, final

import anyio
import trio
from attrs import define, field, frozen

from sark_trio.testing.leaks import no_collector, no_leaks

__all__ = ["Scenario", "Sweep", "Victim", "sweep"]

#: A victim that takes more steps than this is not a scenario but a program.
STEPS_MAX = 20_000

_Values = TypeVarTuple("_Values")
#: Runs between two collections of what Python's cycles keep: memory, and nothing else.
_COLLECT_EVERY = 100

Scenario = Callable[["Victim"], Awaitable[None]]


@final
@define(eq=False)
class Victim(AbstractContextManager["Victim"]):
    """``with victim: ...`` is what gets cancelled. Entered once in a run."""

    #: Cancel at this step after the beginning; ``None`` never does.
    _at: int | None = None
    #: Steps taken since it was entered, while it was inside.
    steps: int = field(default=0, init=False)
    entered: bool = field(default=False, init=False)
    _scope: anyio.CancelScope | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        assert not self.entered, "a victim is entered once"
        self.entered = True
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        if self._at == 0:
            self._scope.cancel()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        assert self._scope is not None
        scope, self._scope = self._scope, None
        return bool(scope.__exit__(kind, value, trace))

    @property
    def was_cancelled(self) -> bool:
        """Whether its step was reached before it ended."""
        return self._at is not None and self.steps >= self._at

    def step(self) -> None:
        """A task is about to take its turn."""
        if self._scope is not None:
            self.steps += 1
            if self.steps == self._at:
                self._scope.cancel()


@final
@frozen(kw_only=True)
class Sweep:
    """What a sweep did. Every run of it held what the scenario asserts, and left nothing."""

    runs: int
    #: Most steps between the victim's beginning and its end.
    steps: int
    #: Runs in which the victim had not ended before its step came.
    cancelled: int

    def __str__(self) -> str:
        return f"{self.runs} runs over {self.steps} steps, {self.cancelled} of them cancelled"


def sweep(
    scenario: Scenario,
    *,
    backend: Literal["trio", "asyncio"] = "trio",
    seeds: Iterable[int] = (0,),
    clock: Callable[[], trio.abc.Clock] | None = None,
    every: int = 1,
) -> Sweep:
    """Run *scenario* once for every step of its victim, and check that nothing is left.

    :param seeds: orders of tasks that are ready at once; asyncio has one order only.
    :param clock: makes the clock of one run, such as ``trio.testing.MockClock``; trio only.
    :param every: cancel at each so many steps only: for scenarios with thousands.
    :raises Leaked: something was left behind; a note says at which seed and step.
    """
    runs = cancelled = most = 0
    for seed in seeds if backend == "trio" else (0,):
        with no_collector():
            steps = _run(scenario, None, backend, seed, clock).steps
        if steps > STEPS_MAX:
            raise ValueError(f"the victim takes {steps} steps; at most {STEPS_MAX} can be swept")
        points = range(0, steps + 1, every)
        for first in range(0, len(points), _COLLECT_EVERY):
            with no_collector():
                for at in points[first : first + _COLLECT_EVERY]:
                    cancelled += _run_until(scenario, at, backend, seed, clock).was_cancelled
        runs, most = runs + 1 + len(points), max(most, steps)
    return Sweep(runs=runs, steps=most, cancelled=cancelled)


def _run_until(
    scenario: Scenario,
    at: int,
    backend: str,
    seed: int,
    clock: Callable[[], trio.abc.Clock] | None,
) -> Victim:
    try:
        return _run(scenario, at, backend, seed, clock)
    except BaseException as exc:
        exc.add_note(f"cancelled at step {at}, {backend}, seed {seed}")
        raise


def _run(
    scenario: Scenario,
    at: int | None,
    backend: str,
    seed: int,
    clock: Callable[[], trio.abc.Clock] | None,
) -> Victim:
    victim = Victim(at)

    async def watched() -> None:
        async with no_leaks():
            await scenario(victim)

    options: dict[str, Any]
    if backend == "trio":
        _seed_trio(seed)
        options = {"instruments": [_Turns(victim)]}
        if clock is not None:
            options["clock"] = clock()
    else:
        options = {"loop_factory": lambda: _CountingLoop(victim)}
    anyio.run(watched, backend=backend, backend_options=options)
    assert victim.entered, "the scenario never entered its victim"
    return victim


def _seed_trio(seed: int) -> None:
    """Make trio's order of ready tasks a function of *seed*.

    Trio has no public way to ask for that; its own pytest plugin and Hypothesis do the same.
    """
    run = sys.modules["trio._core._run"]
    vars(run)["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    vars(run)["_r"].seed(seed)


@final
class _Turns(trio.abc.Instrument):
    def __init__(self, victim: Victim) -> None:
        self._victim = victim

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self._victim.step()


@final
class _CountingLoop(asyncio.SelectorEventLoop):
    """Every callback that becomes ready is a step: that is how asyncio runs its tasks, too."""

    def __init__(self, victim: Victim) -> None:
        self._victim = victim
        super().__init__()

    def call_soon(
        self,
        callback: Callable[[*_Values], object],
        *args: *_Values,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As the loop does it, counted when it runs."""

        def step(*values: *_Values) -> None:
            self._victim.step()
            callback(*values)

        return super().call_soon(step, *args, context=context)
