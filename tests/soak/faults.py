"""What goes wrong in a soak, how often, and on which wire."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from tests.support.faulty import STREAMED, do

__all__ = ["Errand", "Faults", "planned"]

_STRANGER = b'{"jsonrpc":"2.0","id":"stranger","result":{"content":[]}}'
_FIRST = b'{"jsonrpc":"2.0","id":@ID,"result":{"resultType":"complete","content":[%b]}}'
_PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":@TOKEN,'
#: Seconds: the deadline of a call that is never answered. Others have the client's.
HANG_S = 1.0
#: A process that ends more than five times in half a minute is not started for five (laws, D1):
#: that is right, and would leave little of the wire to soak.
DEATHS_APART_S = 10.0
#: So many calls in a row that die open the breaker of their server.
BURST = 8


@frozen
class Errand:
    """One call: its number, where it goes, and what is to go wrong."""

    number: int
    wire: str
    fault: str = ""
    #: ``None``: the client's.
    timeout_s: float | None = None
    #: After which the caller itself gives up.
    cancel_s: float | None = None
    arguments: Mapping[str, Any] = field(factory=dict, repr=False)


def _said(number: int) -> dict[str, Any]:
    """By fault, what the server says before it answers, or how it ends instead."""
    text = json.dumps({"type": "text", "text": str(number)}).encode()
    return {
        "wrong id": do(_STRANGER, n=number),
        "twice": do(_FIRST % text, n=-1),
        "no JSON": do(b'{"jsonrpc":', n=number),
        "no UTF-8": do(b"\xff\xfe{", n=number),
        "progress": do((_PROGRESS + b'"progress":@N}}', 50), n=number),
        "hangs": do(end="hang", n=number),
        "dies": do(end="die", n=number),
        "cut": do(end="cut", n=number),
    }


_DEADLY = ("dies", "cut")
#: Of a server that answers with one JSON body: what is said first *is* the answer.
_PLAIN = ("wrong id", "no JSON", "no UTF-8", "hangs", "dies", "cut")
_ALL = (*_PLAIN, "twice", "progress")


@define(eq=False)
class Faults:
    """Draws what goes wrong; of calls, *share*, some of it in bursts on one wire."""

    wires: tuple[str, ...]
    share: float
    chance: random.Random = field(factory=lambda: random.Random(1))
    _burst: list[str] = field(factory=list)
    _last_death: float = -DEATHS_APART_S

    def next(self, number: int, now: float) -> Errand:
        """The call with that number."""
        chance = self.chance
        wire = self.wires[number % len(self.wires)]
        if self._burst and wire == self._burst[-1]:
            self._burst.pop()
            return self._errand(number, wire, "dies")
        if chance.random() < self.share / 2:
            # Those who ask give up, too.
            return planned(number, wire, cancel_s=chance.random() * 0.01)
        if chance.random() >= self.share:
            return planned(number, wire)
        if wire != "stdio" and not self._burst and chance.random() < 0.01:
            self._burst = [wire] * BURST
        fault = chance.choice(_ALL if wire in STREAMED else _PLAIN)
        if wire == "stdio" and fault in _DEADLY:
            if now - self._last_death < DEATHS_APART_S:
                fault = "wrong id"
            else:
                self._last_death = now
        return self._errand(number, wire, fault)

    def _errand(self, number: int, wire: str, fault: str) -> Errand:
        return Errand(
            number,
            wire,
            fault,
            timeout_s=HANG_S if fault == "hangs" else None,
            arguments={**_said(number)[fault], "number": number},
        )


def planned(number: int, wire: str, *, cancel_s: float | None = None) -> Errand:
    """A call that the server answers as it should."""
    fault = "" if cancel_s is None else "given up"
    arguments = {**do(n=number), "number": number}
    return Errand(number, wire, fault, cancel_s=cancel_s, arguments=arguments)
