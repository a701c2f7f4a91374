"""Deadline, retry and circuit breaker around any async function, one by one or together.

The client applies all three to tool calls by itself; these are for an application's other
calls. A function is given with its positional arguments; for keyword arguments use
:func:`functools.partial`, so that no option here can collide with one of the function's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, final

import anyio
from attrs import define, field

from sark_trio.client.metrics import breaker_metrics, retry_metrics
from sark_trio.client.refusals import circuit_open
from sark_trio.errors import CallTimeout, GatewayError, TransportError
from sark_trio.machines.breaker import Breaker
from sark_trio.machines.budget import RetryBudget
from sark_trio.machines.circuit import (
    BreakerOptions,
    BreakerStatistics,
    CircuitState,
    Outcome,
    Reject,
)
from sark_trio.machines.deadline import Deadline
from sark_trio.machines.retry import (
    Failure,
    GiveUp,
    RetryConfig,
    RetryMachine,
    Safety,
    Situation,
    classify,
    surface,
    vote,
)

__all__ = ["CircuitBreaker", "GatewayErrorHandler", "with_retry", "with_timeout"]

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")
#: What is retried of errors that are not ours: the network's, as Python names them.
RETRIED = (ConnectionError, TimeoutError)


async def with_timeout(
    func: Callable[[*_Arguments], Awaitable[_Result]],
    *args: *_Arguments,
    timeout_s: float = 30.0,
) -> _Result:
    """``await func(*args)`` within *timeout_s* seconds; 0 means at once, not for ever.

    :raises CallTimeout: (a :class:`TimeoutError`) our deadline passed. A cancellation or a
        timeout from outside or from within *func* passes through as it is.
    """
    with anyio.CancelScope(deadline=anyio.current_time() + timeout_s):
        return await func(*args)
    raise _timeout(func, timeout_s)


async def with_retry(
    func: Callable[[*_Arguments], Awaitable[_Result]],
    *args: *_Arguments,
    config: RetryConfig | None = None,
    retried: tuple[type[Exception], ...] = RETRIED,
    deadline: float = float("inf"),
    budget: RetryBudget | None = None,
    jitter: Callable[[], float] = random.random,
) -> _Result:
    """``await func(*args)``, again after a failure that may pass; calling says it is safe to.

    Errors of ours are retried as :data:`~sark_trio.machines.failure.RETRY_TABLE` says for safe
    calls, so never a denial, a client error or an open breaker. What surfaces is the last
    error itself, with a note of why it was the last.

    :param config: attempts (the first included) and delays; default 3, then 1 s and 2 s.
    :param retried: further exceptions that are retried.
    :param deadline: on the clock of ``anyio.current_time()``; no attempt begins after it.
    :param budget: shared by all calls of one server, it bounds the load that retries add.
    :param jitter: draws from [0, 1).
    """
    machine = RetryMachine(config or RetryConfig(), safety=Safety.SAFE, deadline=Deadline(deadline))
    budget = budget or RetryBudget()
    budget.on_first(anyio.current_time())
    passing: tuple[type[Exception], ...] = (GatewayError, *retried)
    while True:
        try:
            return await func(*args)
        except passing as exc:
            failure = _failure(exc)
        step = machine.on_failure(anyio.current_time(), failure, jitter(), budget)
        if isinstance(step, GiveUp):
            raise _last(step)
        await anyio.sleep(step.seconds)


class _Foreign(TransportError):
    """Stands for an error that is not ours while the retry machine thinks about it."""

    def __init__(self, original: Exception) -> None:
        super().__init__(str(original))
        self.original = original


def _failure(exc: Exception) -> Failure:
    if isinstance(exc, GatewayError):
        return classify(exc)
    return Failure(Situation.UNKNOWN, _Foreign(exc))


def _last(step: GiveUp) -> Exception:
    """The last real error, and a note of why it was the last."""
    error = surface(step)
    if not isinstance(error, _Foreign):
        return error
    for note in getattr(error, "__notes__", ()):
        error.original.add_note(note)
    return error.original


@final
@define(eq=False)
class CircuitBreaker:
    """A circuit breaker around any async function: ``await breaker.call(func, *args)``.

    :param options: when it opens and how it comes back.
    :param name: for messages.
    :param failures: exceptions that are not ours and count as failures; others say nothing.
    """

    options: BreakerOptions = field(factory=BreakerOptions)
    name: str = field(default="", kw_only=True)
    failures: tuple[type[Exception], ...] = field(default=(Exception,), kw_only=True)
    _machine: Breaker = field(init=False)
    _last_failure_time: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._machine = Breaker(self.options, key=self.name)

    @property
    def state(self) -> CircuitState:
        """What it does with calls. Reading it changes nothing."""
        return self._machine.state

    async def call(
        self, func: Callable[[*_Arguments], Awaitable[_Result]], *args: *_Arguments
    ) -> _Result:
        """``await func(*args)`` unless the breaker refuses; then learn from how it went.

        A cancelled call says nothing about the other side, and its permit comes back. So a
        deadline belongs inside: ``breaker.call(partial(with_timeout, func, timeout_s=5))``.

        :raises CircuitOpen: it refuses; ``retry_after_s`` says for how long.
        """
        return await self.guard(partial(func, *args), lambda: False)

    async def guard(
        self, attempt: Callable[[], Awaitable[_Result]], timed_out: Callable[[], bool]
    ) -> _Result:
        """As :meth:`call`; a cancellation counts as a failure if *timed_out* says it was one."""
        began = anyio.current_time()
        admitted = self._machine.acquire(began)
        if isinstance(admitted, Reject):
            raise circuit_open(admitted, self.name)
        outcome = Outcome.NEUTRAL
        try:
            result = await attempt()
            outcome = Outcome.SUCCESS
        except Exception as exc:
            outcome = self._vote(exc)
            raise
        except BaseException:
            if timed_out():
                outcome = self._failed()
            raise
        finally:
            now = anyio.current_time()
            self._machine.settle(now, admitted.permit, outcome, now - began)
        return result

    def reset(self) -> None:
        """Close it and forget what it learnt."""
        self._machine.reset(anyio.current_time())

    def statistics(self) -> BreakerStatistics:
        """A snapshot of state and counters."""
        return self._machine.statistics()

    def metrics(self) -> dict[str, Any]:
        """The counters under the original system's names.

        Refused calls are no calls and dilute no rate; ``last_failure_time`` is in seconds
        since the epoch.
        """
        return {
            **breaker_metrics(self.statistics()),
            "last_failure_time": self._last_failure_time,
        }

    def _vote(self, exc: Exception) -> Outcome:
        if isinstance(exc, CallTimeout):
            return self._failed()  # what *func* was given was its time, and nobody else's
        if isinstance(exc, GatewayError):
            outcome = vote(exc)
            return self._failed() if outcome is Outcome.FAILURE else outcome
        return self._failed() if isinstance(exc, self.failures) else Outcome.NEUTRAL

    def _failed(self) -> Outcome:
        self._last_failure_time = time.time()
        return Outcome.FAILURE


@final
@define(eq=False)
class GatewayErrorHandler:
    """All three together: one deadline over retries, each attempt through the breaker.

    :param breaker: options of the breaker.
    :param retry: attempts and delays.
    :param timeout_s: deadline of a call, retries and waits included.

    Deadline and schedule can be given for one call alone.
    """

    breaker: BreakerOptions = field(factory=BreakerOptions)
    retry: RetryConfig = field(factory=RetryConfig)
    timeout_s: float = 30.0
    name: str = field(default="", kw_only=True)
    jitter: Callable[[], float] = field(default=random.random, kw_only=True)
    circuit: CircuitBreaker = field(init=False)
    _budget: RetryBudget = field(factory=RetryBudget, init=False)

    def __attrs_post_init__(self) -> None:
        self.circuit = CircuitBreaker(self.breaker, name=self.name)

    async def call(
        self,
        func: Callable[[*_Arguments], Awaitable[_Result]],
        *args: *_Arguments,
        timeout_s: float | None = None,
        retry: RetryConfig | None = None,
    ) -> _Result:
        """``await func(*args)`` with deadline, retries and breaker.

        :param timeout_s: instead of the handler's own; 0 means at once.
        :param retry: instead of the handler's own.
        :raises CallTimeout: the deadline passed.
        :raises CircuitOpen: the breaker refused the first attempt.
        """
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = anyio.current_time() + limit_s
        with anyio.CancelScope(deadline=deadline):
            return await with_retry(
                self.circuit.guard,
                partial(func, *args),
                lambda: anyio.current_time() >= deadline,
                config=retry or self.retry,
                deadline=deadline,
                budget=self._budget,
                jitter=self.jitter,
            )
        raise _timeout(func, limit_s)

    def metrics(self) -> dict[str, Any]:
        """Breaker, schedule and deadline under the original system's names."""
        return {
            "circuit_breaker": self.circuit.metrics(),
            "retry_config": retry_metrics(self.retry),
            "default_timeout": self.timeout_s,
        }


def _timeout(func: object, timeout_s: float) -> CallTimeout:
    inner = func.func if isinstance(func, partial) else func
    # Anything callable: a partial or an object has no name of its own.
    name = getattr(inner, "__qualname__", type(inner).__name__)
    return CallTimeout(f"{name} did not end within {timeout_s:g} s")
