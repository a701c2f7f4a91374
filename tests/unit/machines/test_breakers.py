"""The registry of breakers: one for each key, bounded, and a switch for all."""

from __future__ import annotations

import pytest

from sark_trio.machines.breaker import Breaker, BreakerOptions
from sark_trio.machines.breakers import BreakerRegistry, RegistryFull
from sark_trio.machines.circuit import CircuitState, Mode, Outcome, Reject


def get(registry: BreakerRegistry, server: str, now: float = 0.0) -> Breaker:
    found = registry.get(now, server, "https://x")
    assert isinstance(found, Breaker)
    return found


def test_a_key_has_one_breaker_with_its_own_options() -> None:
    registry = BreakerRegistry()
    options = BreakerOptions(failures=1)
    one = registry.get(0.0, "a", "https://x", options)
    assert isinstance(one, Breaker)
    assert one.options is options
    assert get(registry, "a") is one
    assert registry.get(0.0, "a", "https://y") is not one
    assert [breaker.key for breaker in registry] == ["a https://x", "a https://y"]
    assert (len(registry), repr(registry)) == (2, "<BreakerRegistry 2/4096 auto>")


@pytest.mark.law("B16")
def test_b16_only_closed_breakers_without_permits_make_room() -> None:
    """A full registry forgets the longest unused closed and idle key, and never another."""
    registry = BreakerRegistry(options=BreakerOptions(failures=1), breakers_max=3)
    busy, broken = get(registry, "busy"), get(registry, "open")
    permit = busy.acquire(0.0).permit  # type: ignore[union-attr]
    broken.settle(0.0, broken.acquire(0.0).permit, Outcome.FAILURE)  # type: ignore[union-attr]
    idle = get(registry, "idle")
    get(registry, "new")
    assert get(registry, "busy") is busy
    assert get(registry, "open") is broken
    assert idle not in list(registry)
    forced = get(registry, "new")
    forced.force(0.0, Mode.FORCED_CLOSED)
    assert registry.get(0.0, "more", "https://x") == RegistryFull(("more", "https://x"))
    busy.settle(0.0, permit, Outcome.SUCCESS)
    assert get(registry, "more").state is CircuitState.CLOSED
    assert busy not in list(registry)
    registry.check_invariants()


def test_the_switch_holds_for_breakers_to_come() -> None:
    registry = BreakerRegistry(breakers_max=2)
    old = get(registry, "old")
    assert len(registry.force(1.0, Mode.FORCED_OPEN)) == 1
    assert registry.force(1.0, Mode.FORCED_OPEN) == ()
    assert old.acquire(1.0) == get(registry, "new").acquire(1.0) == Reject("forced")
    registry.force(2.0, Mode.AUTO)
    assert get(registry, "newer", 2.0).mode is old.mode is Mode.AUTO


def test_its_size_is_bounded() -> None:
    with pytest.raises(ValueError, match="breakers_max must be from 1 to 4096, not 4097"):
        BreakerRegistry(breakers_max=4_097)
