"""An adaptive limit told naively: from the whole history, which is read anew for each question."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

from attrs import define, field, frozen

from sark_trio.machines.adaptive import (
    ROUND_MIN,
    AdaptiveConcurrency,
    Admitted,
    Fault,
    Queued,
    Refused,
    Signal,
)

#: ``answer``, ``drop`` and ``ignore`` end a call that is out, ``leave`` one that waits.
EVENTS = (
    *("want", "want", "want", "want", "want", "want", "want", "want"),
    *("answer", "answer", "answer", "drop", "ignore", "leave", "forge"),
)
SIGNALS = {"answer": Signal.ANSWERED, "drop": Signal.DROPPED}


@frozen
class Moment:
    """What happened to a ticket: ``let``, or how it ended."""

    what: str
    ticket: int
    at: float


@define
class AdaptiveModel:
    """The oracle. Calls and answers are those of ``AdaptiveLimiter``."""

    options: AdaptiveConcurrency
    round_min: int = ROUND_MIN
    now: float = 0.0
    tickets: int = 0
    line: list[int] = field(factory=list)
    history: list[Moment] = field(factory=list)

    def story(self) -> Iterator[tuple[int, list[int]]]:
        """The limit, and who is out, after each moment of the history."""
        o = self.options
        limit = sorted([o.limit_min, o.limit_start, o.limit_max])[1]
        let: dict[int, float] = {}
        heard: list[int] = []  # let out since the last cut
        out: list[int] = []
        took: list[float] = []
        busy, ever = False, inf
        yield limit, out
        for moment in self.history:
            ticket = moment.ticket
            if moment.what == "let":
                let[ticket] = moment.at
                heard.append(ticket)
                out.append(ticket)
                busy = busy or len(out) >= limit
                yield limit, out
                continue
            out.remove(ticket)
            cut = moment.what == "drop" and ticket in heard
            if moment.what == "answer" and ticket in heard:
                took.append(moment.at - let[ticket])
            over = len(took) == max(limit, self.round_min)
            if over:
                ever = min(took) if limit == o.limit_min else min(ever, *took)
                cut = o.slow_ratio is not None and min(took) > o.slow_ratio * ever
            if cut:
                heard = []
                limit = max(o.limit_min, int(limit * o.keep_percent / 100 + 1e-9))
            elif over and busy:
                limit = min(o.limit_max, limit + 1)
            if over or cut:
                took, busy = [], False
            yield limit, out

    def present(self) -> tuple[int, list[int]]:
        """The limit, and who is out."""
        *_, last = self.story()
        return last

    def want(self, now: float) -> Admitted | Queued | Refused:
        self.now = max(self.now, now)
        limit, out = self.present()
        if len(out) >= limit and len(self.line) >= self.options.waiters_max:
            return Refused(limit, len(self.line))
        self.tickets += 1
        self.line.append(self.tickets)
        return Admitted(self.tickets) if self.let_in() else Queued(self.tickets)

    def done(self, now: float, ticket: int, signal: Signal) -> tuple[int, ...] | Fault:
        self.now = max(self.now, now)
        if ticket in self.line:
            self.line.remove(ticket)
            return ()
        if ticket not in self.present()[1]:
            return Fault("unknown_ticket")
        what = next((word for word, meant in SIGNALS.items() if meant is signal), "ignore")
        self.history.append(Moment(what, ticket, self.now))
        return self.let_in()

    def let_in(self) -> tuple[int, ...]:
        found = []
        while self.line and len(self.present()[1]) < self.present()[0]:
            found.append(self.line.pop(0))
            self.history.append(Moment("let", found[-1], self.now))
        return tuple(found)


@define
class Crowd:
    """Calls that want to go out, go out and end, told by small numbers."""

    machine: Any
    now: float = 0.0
    out: list[int] = field(factory=list)
    line: list[int] = field(factory=list)
    #: Tickets in the order in which they were let out.
    let: list[int] = field(factory=list)
    refused: int = 0

    def do(self, event: str, pick: int = 0, dt: float = 0.0) -> Any:
        """One event; *pick* chooses the ticket. The machine's answer; ``None`` if there is none."""
        self.now += dt
        if event == "want":
            return self._want()
        if event == "forge":
            return self.machine.done(self.now, 10**9 + pick, Signal.ANSWERED)
        whose = self.line if event == "leave" else self.out
        if not whose:
            return None
        ticket = whose.pop(pick % len(whose))
        signal = SIGNALS.get(event, Signal.IGNORED)
        woken = self.machine.done(self.now, ticket, signal)
        self._in(woken)
        return woken

    def _want(self) -> Admitted | Queued | Refused:
        answer: Admitted | Queued | Refused = self.machine.want(self.now)
        if isinstance(answer, Admitted):
            self._in((answer.ticket,))
        elif isinstance(answer, Queued):
            self.line.append(answer.ticket)
        else:
            self.refused += 1
        return answer

    def _in(self, tickets: tuple[int, ...]) -> None:
        for ticket in tickets:
            if ticket in self.line:
                self.line.remove(ticket)
            self.out.append(ticket)
            self.let.append(ticket)
