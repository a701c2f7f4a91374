"""One call that a server answers with questions: the steps, one by one. Its laws are M1 to M5."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.mcp.messages import Fault, InputRequired
from sark_trio.mcp.rounds import (
    ASKING_METHODS,
    DELAY_S,
    DELAY_S_MAX,
    REQUESTS_MAX,
    ROUNDS_MAX,
    TABLE,
    Again,
    Ask,
    End,
    Event,
    Phase,
    Rounds,
    RoundsStatistics,
)

WHO = {"method": "elicitation/create"}


def question(*keys: str, state: str | None = None) -> InputRequired:
    return InputRequired(dict.fromkeys(keys, WHO), state)


def test_a_question_is_asked_and_its_answers_go_back_with_its_state() -> None:
    rounds = Rounds("tools/call", {"name": "t", "arguments": {"a": 1}})
    assert rounds.on_question(question("who", "why", state="s1")) == Ask({"who": WHO, "why": WHO})
    again = rounds.on_answers({"who": {"a": 1}, "why": {}, "unasked": {}})
    assert again == Again(
        {
            "name": "t",
            "arguments": {"a": 1},
            "inputResponses": {"who": {"a": 1}, "why": {}},
            "requestState": "s1",
        }
    )
    # The next question has no state: the last one's is not sent along.
    rounds.on_question(question("where"))
    assert rounds.on_answers({"where": {}}) == Again(
        {"name": "t", "arguments": {"a": 1}, "inputResponses": {"where": {}}}
    )
    assert rounds.statistics() == RoundsStatistics(phase=Phase.SENDING, rounds=2, asked=3)
    assert rounds.on_end() is None
    assert rounds.phase is Phase.ENDED
    rounds.check_invariants()


def test_what_a_caller_left_in_the_parameters_is_not_sent_as_an_answer() -> None:
    own = {"name": "t", "requestState": "stolen", "inputResponses": {"x": {}}}
    rounds = Rounds("tools/call", own)
    rounds.on_question(question("who"))
    assert rounds.on_answers({"who": {}}) == Again({"name": "t", "inputResponses": {"who": {}}})


def test_state_without_a_question_is_sent_back_ever_more_slowly() -> None:
    rounds = Rounds("resources/read", {"uri": "file:///a"})
    delays = []
    for number in range(ROUNDS_MAX):
        again = rounds.on_question(question(state=f"s{number}"))
        assert isinstance(again, Again)
        assert again.params == {"uri": "file:///a", "requestState": f"s{number}"}
        delays.append(again.delay_s)
    assert delays[:6] == [DELAY_S, DELAY_S * 2, DELAY_S * 4, DELAY_S * 8, DELAY_S * 16, DELAY_S_MAX]
    assert set(delays[5:]) == {DELAY_S_MAX}
    assert rounds.on_question(question(state="s")) == End("rounds")


def test_a_question_begins_the_slowing_down_anew() -> None:
    rounds = Rounds("tools/call", {})
    rounds.on_question(question(state="s"))
    rounds.on_question(question("who", state="s"))
    rounds.on_answers({"who": {}})
    again = rounds.on_question(question(state="s"))
    assert isinstance(again, Again)
    assert again.delay_s == DELAY_S


def test_the_slowing_down_needs_no_large_numbers() -> None:
    rounds = Rounds("tools/call", {}, rounds_max=5_000)
    steps = [rounds.on_question(question(state="s")) for _ in range(5_000)]
    assert isinstance(steps[-1], Again)
    assert steps[-1].delay_s == DELAY_S_MAX


@pytest.mark.parametrize(
    ("method", "asked", "reason"),
    [
        ("tools/list", question("who"), "method"),
        ("tasks/get", question(state="s"), "method"),
        ("tools/call", question(*map(str, range(REQUESTS_MAX + 1))), "requests"),
    ],
)
def test_some_questions_end_the_call(method: str, asked: InputRequired, reason: Any) -> None:
    rounds = Rounds(method, {})
    assert rounds.on_question(asked) == End(reason)
    assert rounds.phase is Phase.ENDED
    assert rounds.statistics().rounds == 0


@pytest.mark.parametrize("method", sorted(ASKING_METHODS))
def test_as_many_requests_as_are_allowed_are_asked(method: str) -> None:
    rounds = Rounds(method, {})
    assert isinstance(rounds.on_question(question(*map(str, range(REQUESTS_MAX)))), Ask)


def test_some_methods_may_be_answered_with_a_question() -> None:
    assert set(ASKING_METHODS) == {"tools/call", "prompts/get", "resources/read"}
    assert Again({}) == Again({}, delay_s=0.0)


def test_an_answer_that_is_missing_changes_nothing() -> None:
    rounds = Rounds("tools/call", {})
    rounds.on_question(question("a", "b", "c"))
    assert rounds.on_answers({"a": {}}) == Fault("2 of the requests are not answered")
    assert rounds.phase is Phase.ASKING
    assert isinstance(rounds.on_answers({"a": {}, "b": {}, "c": {}}), Again)


def test_what_does_not_fit_the_phase_is_a_fault() -> None:
    rounds = Rounds("tools/call", {})
    assert rounds.on_answers({}) == Fault("nothing was asked: the call is sending")
    rounds.on_question(question("a"))
    assert rounds.on_question(question("b")) == Fault("nothing was sent: the call is asking")
    assert rounds.on_end() is None
    assert rounds.on_end() == Fault("the call has ended")
    assert rounds.on_question(question("b")) == Fault("nothing was sent: the call is ended")
    assert rounds.on_answers({"a": {}}) == Fault("nothing was asked: the call is ended")


@pytest.mark.parametrize("rounds_max", [-1, 1.5, True, "3", None])
def test_a_bound_is_a_whole_number(rounds_max: Any) -> None:
    with pytest.raises(ValueError, match="rounds_max must be a whole number of at least 0"):
        Rounds("tools/call", {}, rounds_max=rounds_max)


def test_without_rounds_no_question_is_answered() -> None:
    assert Rounds("tools/call", {}, rounds_max=0).on_question(question("a")) == End("rounds")


def test_nothing_leads_out_of_the_end() -> None:
    assert not [event for event in Event if (Phase.ENDED, event) in TABLE]
    assert repr(Rounds("tools/call", {})) == "<Rounds tools/call sending 0/10>"
