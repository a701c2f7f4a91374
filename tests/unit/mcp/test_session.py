"""The life of a legacy session: who leads, who joins, who gives up."""

from __future__ import annotations

import itertools

import pytest

from sark_trio.mcp.messages import Fault
from sark_trio.mcp.session import (
    TABLE,
    Event,
    GiveUp,
    Join,
    Phase,
    Renew,
    Session,
    SessionLifecycle,
    Use,
)

VERSION = "2025-11-25"


def ready(session_id: str | None = "s1") -> SessionLifecycle:
    machine = SessionLifecycle()
    assert machine.acquire() == Renew(1)
    assert machine.on_ready(1, session_id, VERSION) == Use(Session(1, session_id, VERSION))
    return machine


def test_the_first_caller_leads_and_the_others_join() -> None:
    machine = SessionLifecycle()
    assert machine.acquire() == Renew(1)
    assert machine.acquire() == Join(1)
    machine.on_ready(1, "s1", VERSION)
    assert machine.acquire() == Use(Session(1, "s1", VERSION))


def test_a_404_is_led_by_the_first_who_saw_it() -> None:
    machine = ready()
    assert machine.on_404(1) == Renew(2)
    assert machine.on_404(1) == Join(2)
    assert machine.acquire() == Join(2)
    machine.on_ready(2, "s2", VERSION)
    # One more that saw the old session die finds the new one.
    assert machine.on_404(1) == Use(Session(2, "s2", VERSION))
    statistics = machine.statistics()
    assert (statistics.renewals, statistics.shared, statistics.generation) == (1, 2, 2)


def test_a_second_404_ends_the_call_and_the_session() -> None:
    machine = ready()
    machine.on_404(1)
    machine.on_ready(2, "s2", VERSION)
    assert machine.on_404(2, retried=True) == GiveUp("retried")
    assert machine.statistics().phase is Phase.LOST
    # Others on their second try, and one on its first, which may still lead.
    assert machine.on_404(2, retried=True) == GiveUp("retried")
    assert machine.on_404(2) == Renew(3)
    assert machine.statistics().lost == 2


def test_the_next_call_after_a_loss_begins_anew() -> None:
    machine = ready()
    machine.on_404(1, retried=True)
    assert machine.acquire() == Renew(2)


def test_a_second_404_of_an_older_session_leaves_the_newer_one_alone() -> None:
    machine = ready()
    machine.on_404(1)
    machine.on_ready(2, "s2", VERSION)
    assert machine.on_404(1, retried=True) == GiveUp("retried")
    assert machine.acquire() == Use(Session(2, "s2", VERSION))


def test_after_a_failed_initialization_the_next_caller_leads() -> None:
    machine = SessionLifecycle()
    machine.acquire()
    assert machine.on_failed(1) is None
    assert machine.acquire() == Renew(2)


def test_after_a_failed_renewal_a_late_404_leads() -> None:
    machine = ready()
    machine.on_404(1)
    machine.on_failed(2)
    assert machine.on_404(1) == Renew(3)


def test_without_a_session_a_404_is_about_something_else() -> None:
    machine = ready(session_id=None)
    assert machine.on_404(1) == GiveUp("no_session")
    assert machine.acquire() == Use(Session(1, None, VERSION))


def test_a_server_may_stop_naming_sessions() -> None:
    machine = ready()
    machine.on_404(1)
    machine.on_ready(2, None, VERSION)
    assert machine.on_404(1) == Use(Session(2, None, VERSION))


@pytest.mark.parametrize("session_id", ["", "a b", "é", "a\r\n", "x" * 5_000])
def test_a_malformed_id_is_a_failure(session_id: str) -> None:
    machine = SessionLifecycle()
    machine.acquire()
    assert machine.on_ready(1, session_id, VERSION) == GiveUp("malformed_id")
    assert machine.acquire() == Renew(2)


@pytest.mark.parametrize("generation", [0, 2, -1])
def test_reports_of_another_generation_are_faults(generation: int) -> None:
    machine = SessionLifecycle()
    machine.acquire()
    assert isinstance(machine.on_ready(generation, "s", VERSION), Fault)
    assert isinstance(machine.on_failed(generation), Fault)
    assert isinstance(machine.on_404(generation), Fault)
    machine.on_ready(1, "s", VERSION)
    assert isinstance(machine.on_ready(1, "s", VERSION), Fault)
    assert isinstance(machine.on_failed(1), Fault)
    assert isinstance(machine.on_404(generation), Fault)
    assert machine.acquire() == Use(Session(1, "s", VERSION))


def test_a_session_that_is_still_being_made_cannot_have_died() -> None:
    machine = ready()
    machine.on_404(1)
    assert isinstance(machine.on_404(2), Fault)


def test_closing_returns_the_session_to_end() -> None:
    machine = ready()
    assert machine.on_close() == Session(1, "s1", VERSION)
    assert machine.on_close() is None
    assert machine.acquire() == GiveUp("closed")
    assert machine.on_404(1) == GiveUp("closed")
    assert isinstance(machine.on_ready(1, "s", VERSION), Fault)


def test_closing_without_a_session_returns_nothing() -> None:
    assert SessionLifecycle().on_close() is None
    assert ready(session_id=None).on_close() is None
    machine = ready()
    machine.on_404(1)
    assert machine.on_close() is None


@pytest.mark.security(12)
def test_the_state_is_one_line_without_secrets() -> None:
    machine = ready("very-secret")
    assert repr(machine) == "<SessionLifecycle ready generation 1>"
    assert "very-secret" not in repr(machine.acquire())
    machine.check_invariants()


def test_the_table_has_no_way_out_of_closed() -> None:
    assert {phase for (_, event), phase in TABLE.items() if event is Event.CLOSED} == {Phase.CLOSED}
    assert [key for key in itertools.product([Phase.CLOSED], Event) if key in TABLE] == [
        (Phase.CLOSED, Event.CLOSED)
    ]
