"""How large a world is, who is in it, and what its callers want: drawn from the seed.

Most worlds are small, so that there can be many; some have everybody and everything in them.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from tests.simulation.checks import Asked
from tests.simulation.dice import Dice

__all__ = ["BURST", "CALLERS", "CALLS_EACH", "SERVERS", "Plan"]

#: Streamable HTTP, HTTP+SSE, WebSocket, processes on stdio.
SERVERS = ("s0", "s1", "e0", "w0", "p0", "p1")
CALLERS, CALLS_EACH = 6, 5
#: Calls at one moment to one server: more than it may have connections.
BURST = 12


@frozen
class Plan:
    """One world, in numbers."""

    servers: tuple[str, ...]
    callers: int
    calls_each: int
    #: Servers whose changes somebody wants to hear of.
    heard: tuple[str, ...]
    has_burst: bool

    @classmethod
    def draw(cls, dice: Dice) -> Plan:
        """The world of the seed."""
        chance = dice.stream("plan")

        def few(most: int) -> int:
            """From 1 to *most*, and seldom many."""
            return 1 + int(most * chance.random() ** 4)

        some = chance.sample(SERVERS, few(len(SERVERS)))
        servers = tuple(name for name in SERVERS if name in some)
        heard = tuple(chance.sample(servers, min(len(servers), few(2))))
        return cls(
            servers=servers,
            callers=few(CALLERS),
            calls_each=few(CALLS_EACH),
            heard=heard if dice.exists("listeners") else (),
            has_burst=dice.exists("a burst of calls") and chance.random() < 0.5,
        )

    def calls(self, dice: Dice) -> list[Asked]:
        """What the callers want, one after the other."""
        numbers = (
            caller * 1000 + round_
            for caller in range(self.callers)
            for round_ in range(self.calls_each)
        )
        return [self.call(dice, n) for n in numbers]

    def burst(self, dice: Dice) -> list[Asked]:
        """What is wanted of one server in one moment."""
        server = dice.stream("burst").choice(self.servers)
        return [self.call(dice, 100_000 + n, server=server) for n in range(BURST)]

    def call(self, dice: Dice, n: int, **given: Any) -> Asked:
        """The call of that number."""
        chance = dice.chance(f"call {n}")
        impatient = dice.exists("impatient callers") and chance.random() < 0.25
        plan = {
            "server": chance.choice(self.servers),
            "tool": chance.choice(("read", "put", "write", "write", "admin")),
            "timeout_s": chance.choice((0.5, 5.0, 30.0)),
            "patience_s": chance.random() * 10 if impatient else None,
        }
        return Asked(n=n, **(plan | given))
