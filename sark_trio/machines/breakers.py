"""The breakers of all upstreams: one for each (server, origin), created when first asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from attrs import define, field, frozen

from sark_trio.machines.breaker import Breaker
from sark_trio.machines.checks import whole
from sark_trio.machines.circuit import BreakerOptions, CircuitState, Mode, Transition

__all__ = ["BreakerRegistry", "Key", "RegistryFull"]

Key = tuple[str, str]

#: Keys come from configuration and resolved origins, never from what a caller sends; hosts
#: have dozens. A breaker weighs about a kilobyte.
BREAKERS_MAX: Final = 4_096


@final
@frozen
class RegistryFull:
    """There is no room for a breaker of *key*: every other one is open or in use."""

    key: Key


@final
@define(kw_only=True, eq=False, repr=False)
class BreakerRegistry:
    """Breakers by (server, origin). One sick origin is one sick origin.

    :param options: options of breakers that are asked for without their own.
    :param breakers_max: more than these are not kept. Only a breaker that is closed by itself
        and has no permit out makes room, the one longest unused first.
    """

    options: BreakerOptions = field(factory=BreakerOptions)
    breakers_max: int = field(default=BREAKERS_MAX, validator=whole(1, BREAKERS_MAX))
    _breakers: dict[Key, Breaker] = field(factory=dict, init=False)
    _mode: Mode = field(default=Mode.AUTO, init=False)

    def __repr__(self) -> str:
        return f"<BreakerRegistry {len(self._breakers)}/{self.breakers_max} {self._mode}>"

    def __len__(self) -> int:
        return len(self._breakers)

    def __iter__(self) -> Iterator[Breaker]:
        """All breakers, the one longest unused first."""
        return iter(tuple(self._breakers.values()))

    def get(
        self, now: float, server: str, origin: str, options: BreakerOptions | None = None
    ) -> Breaker | RegistryFull:
        """The breaker of that key, made if need be (then with *options*)."""
        key = (server, origin)
        breaker = self._breakers.pop(key, None)
        if breaker is None:
            if len(self._breakers) >= self.breakers_max and not self._evict():
                return RegistryFull(key)
            breaker = Breaker(self.options if options is None else options, f"{server} {origin}")
            breaker.force(now, self._mode)
        self._breakers[key] = breaker
        return breaker

    def force(self, now: float, mode: Mode) -> tuple[Transition, ...]:
        """Force every breaker, those to come included: the switch that stops everything."""
        self._mode = mode
        moves = (breaker.force(now, mode) for breaker in self._breakers.values())
        return tuple(move for move in moves if move is not None)

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert len(self._breakers) <= self.breakers_max
        for breaker in self._breakers.values():
            breaker.check_invariants()

    def _evict(self) -> bool:
        for key, breaker in self._breakers.items():
            closed = breaker.state is CircuitState.CLOSED and breaker.mode is self._mode
            if closed and not breaker.outstanding:
                del self._breakers[key]
                return True
        return False
