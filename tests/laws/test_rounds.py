"""Laws of multi-round-trip requests: what comes back goes back, unchanged, and not for ever."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sark_trio.mcp.messages import Fault, InputRequired
from sark_trio.mcp.rounds import ASKING_METHODS, Again, Ask, End, Phase, Rounds

#: What somebody might tidy up on the way: blanks, both forms of an accent, JSON, an end of line.
STATES = (
    st.none()
    | st.sampled_from([" a ", "e\u0301", "\u00e9", '{"a": 1.0}', "a=\r\n", "A", ""])
    | st.text(max_size=30)
)
REQUESTS = st.dictionaries(
    st.text(max_size=5), st.just({"method": "elicitation/create"}), max_size=4
)
QUESTIONS = st.builds(InputRequired, REQUESTS, STATES)
PARAMS = st.dictionaries(
    st.sampled_from(["name", "arguments", "_meta", "requestState", "inputResponses"]),
    st.text(max_size=5) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
METHODS = st.sampled_from(sorted(ASKING_METHODS))


def answered(rounds: Rounds, question: InputRequired) -> Again | End:
    """Go through one round."""
    step = rounds.on_question(question)
    if isinstance(step, Ask):
        step = rounds.on_answers({key: {"to": key} for key in step.requests})
    assert isinstance(step, Again | End)
    return step


@pytest.mark.security(13)
@pytest.mark.law("M1")
@given(METHODS, PARAMS, st.lists(QUESTIONS, min_size=1, max_size=10))
def test_m01_the_state_of_the_last_question_comes_back_as_it_is(
    method: str, params: dict[str, Any], questions: list[InputRequired]
) -> None:
    """The request carries the requestState of the question before it, byte for byte, or none."""
    rounds = Rounds(method, params)
    for question in questions:
        step = answered(rounds, question)
        assert isinstance(step, Again)
        if question.request_state is None:
            assert "requestState" not in step.params
        else:
            assert step.params["requestState"] is question.request_state


@pytest.mark.law("M2")
@given(METHODS, st.integers(0, 12), st.lists(QUESTIONS, min_size=13, max_size=20))
def test_m02_a_server_that_asks_for_ever_is_left(
    method: str, rounds_max: int, questions: list[InputRequired]
) -> None:
    """At most rounds_max questions are answered; the next one ends the call."""
    rounds = Rounds(method, {}, rounds_max=rounds_max)
    steps = [rounds.on_question(question) for question in questions[:1]]
    for question in questions[1:]:
        if isinstance(steps[-1], Ask):
            rounds.on_answers({key: {} for key in steps[-1].requests})
        steps.append(rounds.on_question(question))
    assert sum(isinstance(step, Ask | Again) for step in steps) == rounds_max
    assert steps[rounds_max] == End("rounds")
    assert rounds.phase is Phase.ENDED


@pytest.mark.law("M3")
@given(METHODS, PARAMS, st.lists(QUESTIONS, min_size=1, max_size=10))
def test_m03_nothing_else_of_the_request_ever_changes(
    method: str, params: dict[str, Any], questions: list[InputRequired]
) -> None:
    """Every round sends the first round's parameters, with answers and state as the only news."""
    before = copy.deepcopy(params)
    rounds = Rounds(method, params)
    own = {"inputResponses", "requestState"}
    for question in questions:
        step = answered(rounds, question)
        assert isinstance(step, Again)
        kept = {key: value for key, value in step.params.items() if key not in own}
        assert kept == {key: value for key, value in before.items() if key not in own}
    assert params == before


@pytest.mark.law("M4")
@given(METHODS, QUESTIONS, st.dictionaries(st.text(max_size=5), st.just({"x": 1}), max_size=4))
def test_m04_exactly_what_was_asked_for_is_answered(
    method: str, question: InputRequired, others: dict[str, Any]
) -> None:
    """The answers have the keys of the requests and no others; without requests there are none."""
    rounds = Rounds(method, {})
    step = rounds.on_question(question)
    if isinstance(step, Ask):
        partly: dict[str, Any] = {key: {} for key in list(step.requests)[1:]}
        assert isinstance(rounds.on_answers(partly), Fault)
        step = rounds.on_answers({**others, **{key: {} for key in step.requests}})
    assert isinstance(step, Again)
    assert step.params.get("inputResponses", {}).keys() == question.input_requests.keys()
    assert ("inputResponses" in step.params) == bool(question.input_requests)


@pytest.mark.security(13)
@pytest.mark.law("M5")
@given(METHODS, st.binary(min_size=8, max_size=30).map(bytes.hex), REQUESTS)
def test_m05_the_state_is_shown_to_nobody(
    method: str, state: str, requests: dict[str, Any]
) -> None:
    """The state stands in no repr of the machine, of the question, or of a step."""
    question = InputRequired(requests, state)
    rounds = Rounds(method, {})
    shown = [repr(question), repr(answered(rounds, question)), repr(rounds)]
    shown.append(repr(rounds.statistics()))
    assert not [text for text in shown if state in text]


class Conversations(RuleBasedStateMachine):
    """One call, and a peer and a driver that do whatever they like."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Rounds("tools/call", {"name": "t"}, rounds_max=4)

    @rule(question=QUESTIONS)
    def ask(self, question: InputRequired) -> None:
        before = self.machine.statistics()
        step = self.machine.on_question(question)
        assert isinstance(step, Fault) == (before.phase is not Phase.SENDING)
        if isinstance(step, Fault):
            assert self.machine.statistics() == before

    @rule(answers=st.dictionaries(st.text(max_size=5), st.just({}), max_size=4))
    def answer(self, answers: dict[str, Any]) -> None:
        before = self.machine.statistics()
        step = self.machine.on_answers(answers)
        if isinstance(step, Fault):
            assert self.machine.statistics() == before
        else:
            assert before.phase is Phase.ASKING

    @rule()
    def end(self) -> None:
        before = self.machine.phase
        assert isinstance(self.machine.on_end(), Fault) == (before is Phase.ENDED)
        assert self.machine.phase is Phase.ENDED

    @invariant()
    def holds(self) -> None:
        self.machine.check_invariants()


@pytest.mark.law("M6")
class TestM06(Conversations.TestCase):  # type: ignore[name-defined,misc]
    """Total: no input raises, and one that makes no sense changes nothing."""


@pytest.mark.law("M7")
@given(st.lists(st.text(max_size=5), min_size=2, max_size=10))
def test_m07_a_server_that_only_hands_out_state_is_not_asked_in_a_busy_loop(
    states: list[str],
) -> None:
    """Between rounds without a request the waits grow, up to five seconds."""
    rounds = Rounds("tools/call", {})
    steps = [answered(rounds, InputRequired({}, state)) for state in states]
    waits = [step.delay_s for step in steps if isinstance(step, Again)]
    assert waits == sorted(waits)
    assert waits[0] == 0.25
    assert max(waits) <= 5.0


@given(st.sampled_from(["tools/list", "resources/list", "ping"]), QUESTIONS)
def test_other_requests_may_not_be_answered_with_a_question(
    method: str, question: InputRequired
) -> None:
    assert Rounds(method, {}).on_question(question) == End("method")


def test_too_many_requests_at_once_are_refused() -> None:
    many = {str(number): {"method": "roots/list"} for number in range(33)}
    assert Rounds("tools/call", {}).on_question(InputRequired(many)) == End("requests")


@pytest.mark.parametrize("bad", [-1, 1.5, True, None])
def test_a_bound_is_a_whole_number(bad: Any) -> None:
    with pytest.raises(ValueError, match="rounds_max"):
        Rounds("tools/call", {}, rounds_max=bad)
