"""What must never happen in a run, from what servers, disk and callers saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from attrs import define

from sark_trio.errors import GatewayError
from tests.simulation.disk import SimDisk
from tests.simulation.server import SimServer
from tests.support.client import check_log

__all__ = ["Asked", "Violation", "check"]

#: Connections that one client may have to all servers together, by default.
CONNECTIONS_MAX = 50
#: A cancelled request of the session era is told to its server, for a second at most.
FAREWELL_S = 1.0
_UNSAFE = "write"


class Violation(AssertionError):
    """A promise was broken."""


@define
class Asked:
    """One call, as its caller saw it."""

    n: int
    server: str
    tool: str
    timeout_s: float = 30.0
    began: float = 0.0
    ended: float = 0.0
    patience_s: float | None = None
    outcome: str = "running"
    text: str | None = None
    error: GatewayError | None = None


def check(
    asked: Sequence[Asked], servers: Sequence[SimServer], disk: SimDisk, most_open: int
) -> None:
    """Hold a run against the promises.

    :raises Violation: the first one that was broken.
    """
    executed = Counter(effect.arguments["n"] for server in servers for effect in server.effects)
    for one in asked:
        for rule in _RULES:
            if not rule(one, executed[one.n]):
                sentence = (rule.__doc__ or "").strip()
                raise Violation(f"{sentence} Executed {executed[one.n]} times: {one}")
    if most_open > CONNECTIONS_MAX:
        raise Violation(f"{most_open} connections at once")
    check_log(disk)


def _ended(one: Asked, executed: int) -> bool:
    """Every call ends."""
    return one.outcome != "running"


def _own_answer(one: Asked, executed: int) -> bool:
    """An answer is the one to the question that was asked."""
    return one.text in {None, "", str(one.n)}


def _once(one: Asked, executed: int) -> bool:
    """A call that is not safe to repeat is executed once at most."""
    return one.tool != _UNSAFE or executed <= 1


def _happened(one: Asked, executed: int) -> bool:
    """What was answered was executed."""
    return one.text is None or executed >= 1


def _not_sent(one: Asked, executed: int) -> bool:
    """What is said not to have been sent was not executed."""
    return one.error is None or one.error.delivery != "not_sent" or executed == 0


def _denied(one: Asked, executed: int) -> bool:
    """What policy denies is never executed."""
    return one.tool != "admin" or executed == 0


def _in_time(one: Asked, executed: int) -> bool:
    """A call ends at its deadline, or when its caller gives up, whichever is first."""
    limit = one.timeout_s if one.patience_s is None else min(one.timeout_s, one.patience_s)
    return one.ended - one.began <= limit + FAREWELL_S + 1e-6


_RULES: tuple[Callable[[Asked, int], bool], ...] = (
    _ended,
    _own_answer,
    _once,
    _happened,
    _not_sent,
    _denied,
    _in_time,
)
