"""The laws of correlation (machines.correlate)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sark_trio.machines.correlate import Correlator, Late, Match, Pending, Unknown
from tests.models.correlate import CorrelatorModel
from tests.support.traces import traces

IDS = st.one_of(
    st.integers(-2, 12),
    st.integers(0, 12).map(str),
    st.integers(0, 12).map(float),
    st.sampled_from([None, True, False, 2**70, float("nan"), (1,), [1], {"id": 1}, b"1"]),
)


class CorrelatorAgainstModel(RuleBasedStateMachine):
    """Any program of events gets the same answers as from a perfect memory."""

    def __init__(self) -> None:
        super().__init__()
        self.real: Correlator[object] = Correlator(pending_max=3)
        self.model = CorrelatorModel(pending_max=3)
        self.waiters: dict[int, object] = {}
        self.ends: dict[int, int] = {}

    def ended(self, request_id: int, waiter: object) -> None:
        assert waiter is self.waiters[request_id]
        self.ends[request_id] = self.ends.get(request_id, 0) + 1

    @rule()
    def open(self) -> None:
        waiter, expected = object(), self.model.may_open()
        got = self.real.open(1.5, waiter)
        assert type(got).__name__ == expected
        if isinstance(got, int):
            self.model.opened(got)
            self.waiters[got] = waiter

    @rule(answer_id=IDS, epoch=st.integers(0, 3))
    def resolve(self, answer_id: Any, epoch: int) -> None:
        epoch = epoch or self.real.epoch
        got = self.real.resolve(answer_id, epoch=epoch)
        assert type(got).__name__ == self.model.resolve(answer_id, epoch)
        assert got.id is answer_id or got.id == answer_id
        if isinstance(got, Match):
            assert got.opened_at == 1.5
            self.ended(got.id, got.waiter)

    @rule(request_id=IDS)
    def cancel(self, request_id: Any) -> None:
        got = self.real.cancel(request_id)
        assert (got is not None) == self.model.cancel(request_id)
        if got is not None:
            self.ended(got.id, got.waiter)

    @rule(request_id=IDS)
    def peek(self, request_id: Any) -> None:
        known = type(request_id) is int and request_id in self.model.pending()
        assert self.real.peek(request_id) is (self.waiters[request_id] if known else None)

    @rule()
    def close(self) -> None:
        failed = self.real.close("gone")
        assert [pending.id for pending in failed] == self.model.close()
        for pending in failed:
            self.ended(pending.id, pending.waiter)

    @rule()
    def reopen(self) -> None:
        assert self.real.reopen() == self.model.reopen()

    @invariant()
    def holds(self) -> None:
        self.real.check_invariants()
        assert self.real.statistics().pending == len(self.model.pending())
        ended = self.waiters.keys() - self.model.pending()
        assert self.ends == dict.fromkeys(ended, 1)


@pytest.mark.law("D3", "R8", "D6")
class TestCorrelatorAgainstModel(CorrelatorAgainstModel.TestCase):  # type: ignore[misc, name-defined]
    """Every request ends exactly once, whatever ids come back in whatever order."""


@pytest.mark.law("R8")
@given(program=traces(st.sampled_from(["open", "answer", "cancel", "close", "reopen"]), most=60))
def test_r08_ids_are_never_used_twice(program: list[str]) -> None:
    """No id is minted twice, not even on another connection."""
    correlator: Correlator[None] = Correlator()
    minted: list[int] = []
    for event in program:
        last = minted[-1] if minted else 1
        match event:
            case "open":
                got = correlator.open(0.0, None)
                minted += [got] if isinstance(got, int) else []
            case "answer":
                correlator.resolve(last, epoch=correlator.epoch)
            case "cancel":
                correlator.cancel(last)
            case "close":
                correlator.close("gone")
            case "reopen":
                correlator.reopen()
    assert minted == sorted(set(minted))


@pytest.mark.law("R8")
@pytest.mark.parametrize("forged", ["1", 1.0, True, None, b"1", 2, 0, -1, 2**64])
def test_r08_an_id_matches_by_type_and_value(forged: object) -> None:
    """What merely equals an id of ours, or is one we never gave, answers nobody."""
    correlator: Correlator[str] = Correlator()
    assert correlator.open(0.0, "waiter") == 1
    assert correlator.resolve(forged, epoch=1) == Unknown(forged)
    assert correlator.resolve(1, epoch=1) == Match(1, "waiter", 0.0)


@pytest.mark.law("D3")
def test_d03_a_closed_connection_fails_each_pending_request_once() -> None:
    """Closing hands back every pending request, oldest first, and a second time none."""
    correlator: Correlator[str] = Correlator()
    ids = [correlator.open(float(n), str(n)) for n in range(4)]
    correlator.resolve(ids[1], epoch=1)
    correlator.cancel(3)
    assert correlator.close("exited") == (Pending(1, "0", 0.0), Pending(4, "3", 3.0))
    assert correlator.close("again") == ()
    assert correlator.resolve(1, epoch=1) == Late(1)


@pytest.mark.law("D6")
def test_d06_an_earlier_process_answers_nothing_of_a_later_one() -> None:
    """A response of process n never answers a request to process n+1, whatever its id."""
    correlator: Correlator[str] = Correlator()
    old = correlator.epoch
    correlator.open(0.0, "first")
    correlator.close("exited")
    assert correlator.reopen() == old + 1
    request_id = correlator.open(1.0, "second")
    assert correlator.resolve(request_id, epoch=old) == Late(2)
    assert correlator.resolve(1, epoch=correlator.epoch) == Late(1)
    assert correlator.resolve(request_id, epoch=correlator.epoch) == Match(2, "second", 1.0)
