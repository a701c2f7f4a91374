"""What must be so of a crowd when it is over, whatever struck it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sark_trio import errors
from sark_trio.errors import GatewayError
from tests.crowds.fault import CALLS, Fault, World, is_safe
from tests.support.client import check_log

__all__ = ["judge", "judge_log"]

_TREE = {getattr(errors, name) for name in errors.__all__ if name[0].isupper()} - {errors.Delivery}
#: Of a call that may be repeated: three attempts, each of them replayed once at most where the
#: connection had gone stale.
ARRIVALS_MAX = 6


def judge(fault: Fault, world: World) -> None:
    """Everyone ended once, with the own answer or a typed error; nothing happened twice."""
    assert sorted(world.ends) == list(range(CALLS))
    for number, end in world.ends.items():
        arrived = world.arrived.get(number, 0)
        told = (fault.name, number, repr(end), arrived)
        if end is None:
            assert fault.cancels, told
            assert fault.may_fail(number, world.wire), told
        elif isinstance(end, GatewayError):
            _judge_error(fault, world.wire, number, end, told)
            assert (end.delivery != "not_sent") or arrived == 0, told
            assert (end.delivery != "answered") or arrived > 0, told
        else:
            assert end == (fault.text(number) if fault.hits(number) else str(number)), told
            assert arrived > 0, told
        if not (fault.refuses and fault.hits(number)):
            assert arrived <= (ARRIVALS_MAX if is_safe(number) else 1), told
    if fault.errors and not fault.may:
        assert any(isinstance(end, fault.errors) for end in world.ends.values()), "never struck"


def _judge_error(
    fault: Fault, wire: str, number: int, end: GatewayError, told: tuple[object, ...]
) -> None:
    assert type(end) in _TREE, told
    assert fault.may_fail(number, wire), told
    assert isinstance(end, fault.errors), told


def judge_log(fault: Fault, world: World, log: Path) -> None:
    """The log is whole, nothing happened of which it is silent, and it says how each call ended."""
    records = check_log(log)
    intents = [record for record in records if record["kind"] == "intent"]
    # Arguments that are too large are not written down, so that nobody can tell whose they are.
    intended = {
        record["request_id"]: record["args"]["number"]
        for record in intents
        if "number" in (record.get("args") or {})
    }
    unknown = set(world.arrived) - set(intended.values())
    assert len(unknown) <= len(intents) - len(intended)
    ended = {
        intended[record["request_id"]]: record["outcome"]
        for record in records
        if record["kind"] == "outcome" and record["request_id"] in intended
    }
    answered = [number for number, end in world.ends.items() if isinstance(end, str)]
    assert {ended[number] for number in answered if number not in unknown} <= {"ok"}
    assert (
        max(Counter(intended.values()).values(), default=0) <= 2
    )  # -1, afterwards: once for each server
