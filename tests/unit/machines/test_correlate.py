"""Correlation, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.correlate import (
    CANCELLED_MAX,
    Closed,
    Correlator,
    Duplicate,
    Full,
    Late,
    Match,
    Pending,
    Unknown,
)


def test_an_answer_finds_who_waits_once() -> None:
    correlator: Correlator[str] = Correlator()
    assert correlator.epoch == 1
    assert correlator.open(2.5, "me") == 1
    assert correlator.peek(1) == "me"
    assert correlator.resolve(1, epoch=1) == Match(1, "me", 2.5)
    assert correlator.peek(1) is None
    assert correlator.resolve(1, epoch=1) == Duplicate(1)
    assert correlator.resolve(2, epoch=1) == Unknown(2)


def test_answers_come_in_any_order() -> None:
    correlator: Correlator[str] = Correlator()
    for name in "abc":
        correlator.open(0.0, name)
    got = [correlator.resolve(number, epoch=1) for number in (3, 1, 2)]
    assert got == [Match(3, "c", 0.0), Match(1, "a", 0.0), Match(2, "b", 0.0)]


def test_the_answer_to_a_cancelled_request_is_late_once() -> None:
    correlator: Correlator[str] = Correlator()
    correlator.open(1.0, "me")
    assert correlator.cancel(1) == Pending(1, "me", 1.0)
    assert correlator.cancel(1) is None
    assert correlator.resolve(1, epoch=1) == Late(1)
    assert correlator.resolve(1, epoch=1) == Duplicate(1)


@pytest.mark.parametrize("request_id", ["1", 1.0, True, None, [1]])
def test_only_an_int_names_a_request(request_id: Any) -> None:
    correlator: Correlator[str] = Correlator()
    correlator.open(0.0, "me")
    assert correlator.cancel(request_id) is None
    assert correlator.peek(request_id) is None
    assert correlator.peek(1) == "me"


def test_only_so_many_may_be_pending() -> None:
    correlator: Correlator[int] = Correlator(pending_max=2)
    assert [correlator.open(0.0, n) for n in range(3)] == [1, 2, Full(2)]
    correlator.cancel(1)
    assert correlator.open(0.0, 3) == 3


def test_the_default_limits() -> None:
    assert (Correlator().pending_max, CANCELLED_MAX) == (10_000, 1024)
    assert Correlator(pending_max=1).open(0.0, None) == 1
    assert Correlator(pending_max=1_000_000).pending_max == 1_000_000


def test_a_new_connection_remembers_nothing_of_the_old() -> None:
    correlator: Correlator[None] = Correlator()
    correlator.open(0.0, None)
    correlator.cancel(1)
    correlator.close("gone")
    correlator.reopen()
    correlator.check_invariants()
    assert correlator.resolve(1, epoch=2) == Late(1)


def test_only_so_many_cancelled_ids_are_remembered() -> None:
    correlator: Correlator[None] = Correlator()
    for number in range(1, CANCELLED_MAX + 2):
        correlator.open(0.0, None)
        correlator.cancel(number)
        correlator.check_invariants()
    assert correlator.resolve(1, epoch=1) == Duplicate(1)  # forgotten; dropped all the same
    assert correlator.resolve(2, epoch=1) == Late(2)


def test_a_closed_connection_takes_no_requests_until_it_is_made_anew() -> None:
    correlator: Correlator[str] = Correlator()
    correlator.open(0.0, "me")
    assert correlator.close("exited") == (Pending(1, "me", 0.0),)
    assert correlator.close("other") == ()
    assert correlator.open(0.0, "you") == Closed("exited")
    assert repr(correlator) == "<Correlator epoch=1 closed='exited' pending=0 last_id=1>"
    assert correlator.reopen() == 2
    assert correlator.reopen() == 2
    assert correlator.open(0.0, "you") == 2
    assert repr(correlator) == "<Correlator epoch=2 pending=1 last_id=2>"


def test_how_answers_fared_is_counted() -> None:
    correlator: Correlator[None] = Correlator()
    for _ in range(4):
        correlator.open(0.0, None)
    correlator.cancel(1)
    for answer in (1, 1, 2, "2", 3):
        correlator.resolve(answer, epoch=1)
    correlator.resolve(4, epoch=0)
    now = correlator.statistics()
    assert (now.epoch, now.pending, now.matched, now.cancelled) == (1, 1, 2, 1)
    assert (now.late, now.duplicate, now.unknown) == (2, 1, 1)


@pytest.mark.parametrize("limit", [0, -1, 1_000_001, 1.5, True])
def test_the_limit_is_checked(limit: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="pending_max"):
        Correlator(pending_max=limit)
