"""A request that a server answers with a question: MCP 2026-07-28, "Multi Round-Trip Requests".

Theory of operation. Each round is a request of its own. The server that answers it with
``input_required`` has forgotten it; what it wants to remember stands in ``requestState``. We
gather what it asks for and send the *original* request again, under a new id, with the answers
and the state of the *last* question, and of no other::

    sending --question--> asking --answers--> sending --result--> ended
       |                     '--- given up --> ended
       '--- one question too many, or one that may not be asked here --> ended

What comes back goes into this request and into no other one: a machine lives as long as its
call. The state is copied and never looked at; it is in no ``repr`` and in no message.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal, final

from attrs import define, field, frozen

from sark_trio.mcp.messages import Fault, InputRequired

__all__ = [
    "ASKING_METHODS",
    "TABLE",
    "Again",
    "Ask",
    "End",
    "Event",
    "Phase",
    "Rounds",
    "RoundsStatistics",
]

#: The requests that may be answered with a question ("Supported Requests").
ASKING_METHODS: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
#: Questions of one call: a wizard has fewer pages, and a server that asks for ever has none.
ROUNDS_MAX: Final = 10
#: Requests in one question; each may bother a person.
REQUESTS_MAX: Final = 32
#: Seconds before a request is sent again that was answered with state and no question: the
#: server waits for something, and asking at once would be a busy loop.
DELAY_S: Final = 0.25
DELAY_S_MAX: Final = 5.0
_DOUBLINGS_MAX: Final = 10

_RESPONSES: Final = "inputResponses"
_STATE: Final = "requestState"


@final
@frozen
class Ask:
    """Gather the answers to these requests, then tell ``on_answers``; keys are the server's."""

    requests: Mapping[str, Mapping[str, Any]] = field(repr=False)


@final
@frozen
class Again:
    """Send the request with these parameters, under a new id, after so many seconds."""

    params: Mapping[str, Any] = field(repr=False)
    delay_s: float = 0.0


@final
@frozen
class End:
    """The call goes no further with this server.

    ``rounds``: it asked too often. ``requests``: it asked for too much at once. ``method``: it
    may not ask here.
    """

    reason: Literal["rounds", "requests", "method"]


class Phase(Enum):
    """Where a call stands."""

    SENDING = "sending"
    ASKING = "asking"
    ENDED = "ended"


class Event(Enum):
    """What moves it."""

    QUESTION = "the server asks"
    NUDGE = "the server hands out state and asks nothing"
    ANSWERS = "the answers are there"
    CLOSED = "a result, an error, or a question that ends it"


#: Everything else changes nothing.
TABLE: Final[Mapping[tuple[Phase, Event], Phase]] = {
    (Phase.SENDING, Event.QUESTION): Phase.ASKING,
    (Phase.SENDING, Event.NUDGE): Phase.SENDING,
    (Phase.SENDING, Event.CLOSED): Phase.ENDED,
    (Phase.ASKING, Event.ANSWERS): Phase.SENDING,
    (Phase.ASKING, Event.CLOSED): Phase.ENDED,
}


@final
@frozen(kw_only=True)
class RoundsStatistics:
    """A snapshot."""

    phase: Phase
    #: Questions so far, those without a request included.
    rounds: int
    #: Requests in them.
    asked: int


def _check_bound(_: object, attribute: Any, value: int) -> None:
    if type(value) is not int or value < 0:
        raise ValueError(f"{attribute.name} must be a whole number of at least 0, not {value!r}")


@final
@define(eq=False, repr=False)
class Rounds:
    """The rounds of one call. Total: no input raises.

    :param method: of the request.
    :param params: as they are sent first; never changed.
    :param rounds_max: questions that are answered; 0 answers none.
    :raises ValueError: *rounds_max* is negative.
    """

    method: str
    params: Mapping[str, Any]
    rounds_max: int = field(default=ROUNDS_MAX, kw_only=True, validator=_check_bound)
    _phase: Phase = field(default=Phase.SENDING, init=False)
    _question: InputRequired | None = field(default=None, init=False)
    _rounds: int = field(default=0, init=False)
    _nudges: int = field(default=0, init=False)
    _asked: int = field(default=0, init=False)

    @property
    def phase(self) -> Phase:
        """Where the call stands."""
        return self._phase

    def on_question(self, question: InputRequired) -> Ask | Again | End | Fault:
        """The server answered with *question*."""
        if self._phase is not Phase.SENDING:
            return Fault(f"nothing was sent: the call is {self._phase.value}")
        if (reason := self._reason_to_end(question)) is not None:
            self._move(Event.CLOSED)
            return End(reason)
        self._question = question
        self._rounds += 1
        self._asked += len(question.input_requests)
        if question.input_requests:
            self._nudges = 0
            self._move(Event.QUESTION)
            return Ask(question.input_requests)
        # "MAY retry the original request immediately", and may as well give the server time.
        self._move(Event.NUDGE)
        delay_s = min(DELAY_S * 2 ** min(self._nudges, _DOUBLINGS_MAX), DELAY_S_MAX)
        self._nudges += 1
        return Again(self._next_params(None), delay_s)

    def on_answers(self, answers: Mapping[str, Mapping[str, Any]]) -> Again | Fault:
        """All that was asked for; answers to what was not are left out."""
        if self._phase is not Phase.ASKING or self._question is None:
            return Fault(f"nothing was asked: the call is {self._phase.value}")
        missing = self._question.input_requests.keys() - answers.keys()
        if missing:
            return Fault(f"{len(missing)} of the requests are not answered")
        self._move(Event.ANSWERS)
        wanted = {key: answers[key] for key in self._question.input_requests}
        return Again(self._next_params(wanted))

    def on_end(self) -> Fault | None:
        """A result or an error came, or the caller gave up."""
        if self._phase is Phase.ENDED:
            return Fault("the call has ended")
        self._move(Event.CLOSED)
        return None

    def statistics(self) -> RoundsStatistics:
        """A snapshot."""
        return RoundsStatistics(phase=self._phase, rounds=self._rounds, asked=self._asked)

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert 0 <= self._rounds <= self.rounds_max
        assert self._nudges <= self._rounds
        assert self._asked <= self._rounds * REQUESTS_MAX
        assert (self._question is None) == (self._rounds == 0)
        assert self._phase is not Phase.ASKING or self._asked > 0

    def __repr__(self) -> str:
        return f"<Rounds {self.method} {self._phase.value} {self._rounds}/{self.rounds_max}>"

    def _move(self, event: Event) -> None:
        self._phase = TABLE[self._phase, event]

    def _reason_to_end(
        self, question: InputRequired
    ) -> Literal["rounds", "requests", "method"] | None:
        if self.method not in ASKING_METHODS:
            return "method"
        if self._rounds >= self.rounds_max:
            return "rounds"
        return "requests" if len(question.input_requests) > REQUESTS_MAX else None

    def _next_params(self, answers: Mapping[str, Any] | None) -> dict[str, Any]:
        assert self._question is not None
        kept = (_RESPONSES, _STATE)
        params = {key: value for key, value in self.params.items() if key not in kept}
        if answers is not None:
            params[_RESPONSES] = answers
        if self._question.request_state is not None:
            params[_STATE] = self._question.request_state
        return params
