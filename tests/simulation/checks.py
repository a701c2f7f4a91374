"""What must never happen in a run, from what servers, disk and callers saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from attrs import define, field

from sark_trio.errors import GatewayError

__all__ = ["Asked", "History", "Violation", "check"]

#: A cancelled request of the session era is told to its server, for a second at most.
FAREWELL_S = 1.0
#: Clocks are sums of floats.
EXACT_S = 1e-6
STDERR_TAIL_BYTES = 4_096
_UNSAFE = "write"


class Violation(AssertionError):
    """A promise was broken."""


@define
class Asked:
    """One call, as it was planned and as its caller saw it."""

    n: int
    server: str
    tool: str
    timeout_s: float = 30.0
    patience_s: float | None = None
    #: Whether its server is to be told, at the end, that nobody waits any more.
    farewell: bool = False
    began: float = 0.0
    #: As ``began``, by the clock that goes on in suspend.
    since: float = 0.0
    ended: float = 0.0
    outcome: str = "running"
    text: str | None = None
    error: GatewayError | None = None


@define
class History:
    """What there is to hold a run against besides its calls."""

    #: How often each call was executed, by its number.
    executed: Mapping[int, int] = field(factory=Counter)
    #: Jumps of the clock, from when to when.
    jumps: Sequence[tuple[float, float]] = ()


def check(asked: Sequence[Asked], history: History) -> None:
    """Hold a run against the promises.

    :raises Violation: the first one that was broken.
    """
    for one in asked:
        for rule in _RULES:
            if not rule(one, history):
                sentence = (rule.__doc__ or "").strip()
                times = history.executed.get(one.n, 0)
                raise Violation(f"{sentence} Executed {times} times: {one}")


def _ended(one: Asked, history: History) -> bool:
    """Every call ends."""
    return one.outcome != "running"


def _own_answer(one: Asked, history: History) -> bool:
    """An answer is the one to the question that was asked."""
    return one.text in {None, "", str(one.n)}


def _once(one: Asked, history: History) -> bool:
    """A call that is not safe to repeat is executed once at most."""
    return one.tool != _UNSAFE or history.executed.get(one.n, 0) <= 1


def _happened(one: Asked, history: History) -> bool:
    """What was answered was executed."""
    return one.text is None or history.executed.get(one.n, 0) >= 1


def _not_sent(one: Asked, history: History) -> bool:
    """What is said not to have been sent was not executed."""
    executed = history.executed.get(one.n, 0)
    return one.error is None or one.error.delivery != "not_sent" or executed == 0


def _denied(one: Asked, history: History) -> bool:
    """What policy denies is never executed."""
    return one.tool != "admin" or history.executed.get(one.n, 0) == 0


def _in_time(one: Asked, history: History) -> bool:
    """A call ends at its deadline, or when its caller gives up, whichever is first."""
    patience_s = one.timeout_s if one.patience_s is None else one.patience_s
    limit = _after_jumps(one.began + min(one.timeout_s, patience_s), history)
    if one.farewell:
        limit = _after_jumps(limit + FAREWELL_S, history)
    return one.ended <= limit + EXACT_S


def _not_early(one: Asked, history: History) -> bool:
    """A call that timed out had its time."""
    return one.outcome != "CallTimeout" or one.ended >= one.began + one.timeout_s - EXACT_S


def _short(one: Asked, history: History) -> bool:
    """What an error repeats of a stranger's words is bounded."""
    return len(getattr(one.error, "stderr_tail", "")) <= STDERR_TAIL_BYTES


def _after_jumps(moment: float, history: History) -> float:
    """The time at which somebody who waits for *moment* can wake: no clock stops in a jump."""
    for before, after in history.jumps:
        if before <= moment <= after:
            moment = after
    return moment


_RULES: tuple[Callable[[Asked, History], bool], ...] = (
    _ended,
    _own_answer,
    _once,
    _happened,
    _not_sent,
    _denied,
    _in_time,
    _not_early,
    _short,
)
