"""Circuit breakers under watch: every event of theirs is given to the naive model as well."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from sark_trio.machines.breaker import Admit, Breaker, Outcome, Permit
from tests.models.breaker import BreakerModel, in_words
from tests.simulation.checks import Violation

__all__ = ["WatchedBreaker"]


@define(eq=False)
class WatchedBreaker:
    """A breaker, and the model that must answer each event as it does (laws, B1 to B20)."""

    breaker: Breaker
    model: BreakerModel = field(init=False)
    #: Places of the permits in the model, by their numbers; and those that are out.
    _places: dict[int, int] = field(factory=dict)
    outstanding: set[int] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.model = BreakerModel(self.breaker.options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.breaker, name)

    def acquire(self, now: float) -> Any:
        answer = self.breaker.acquire(now)
        if isinstance(answer, Admit):
            self._places[answer.permit.seq] = len(self.model.issued)
            self.outstanding.add(answer.permit.seq)
        self._agree(answer, self.model.acquire(now), "acquire")
        return answer

    def settle(self, now: float, permit: Permit, outcome: Outcome, duration_s: float = 0.0) -> Any:
        answer = self.breaker.settle(now, permit, outcome, duration_s)
        place = self._places[permit.seq]
        self.outstanding.discard(permit.seq)
        self._agree(answer, self.model.settle(now, place, outcome, duration_s), f"{outcome}")
        return answer

    def peek(self, now: float) -> Any:
        return self.breaker.peek(now)

    def tick(self, now: float) -> Any:
        answer = self.breaker.tick(now)
        self._agree(answer, self.model.tick(now), "tick")
        return answer

    def _agree(self, answer: object, expected: object, event: str) -> None:
        said = in_words(answer)
        if said != expected and not _close(said, expected):
            raise Violation(f"A breaker moves by its table. {event}: {said}, model {expected}")


def _close(said: Any, expected: Any) -> bool:
    """Equal, but for the last digits of a time."""
    if not said or not expected or said[:2] != expected[:2] or said[0] != "reject":
        return False
    one, other = said[2], expected[2]
    return said[3:] == expected[3:] and one is not None and abs(one - other) < 1e-6
