"""What one caller gets, without a socket."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio import Principal
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.limits import Limits, Turnstile, caller_of
from sark_trio.machines.limiter import RateOptions


def test_the_rate_is_told_and_kept() -> None:
    turnstile = Turnstile(Limits(rate=RateOptions(per_s=0.5, burst=2)))
    policy = ("ratelimit-policy", '"caller";q=2;w=4')
    assert turnstile.take(10.0, "a") == (policy, ("ratelimit", '"caller";r=1;t=2'))
    assert turnstile.take(10.0, "a") == (policy, ("ratelimit", '"caller";r=0;t=4'))
    with pytest.raises(Refused) as caught:
        turnstile.take(10.5, "a")
    assert (caught.value.fault.status, caught.value.fault.reason) == (429, "rate")
    assert dict(caught.value.headers) == {
        "retry-after": "2",
        "ratelimit-policy": '"caller";q=2;w=4',
        "ratelimit": '"caller";r=0;t=4',
    }
    turnstile.take(10.5, "b")


def test_so_many_at_once_and_streams_apart() -> None:
    turnstile = Turnstile(Limits(concurrent=1, streams=1))
    with turnstile.inside("a", streaming=False), turnstile.inside("a", streaming=True):
        for streaming in (False, True):
            with (
                pytest.raises(Refused) as caught,
                turnstile.inside("a", streaming=streaming),
            ):
                raise AssertionError
            assert caught.value.fault.status == 429
        with turnstile.inside("b", streaming=False):
            pass
    with turnstile.inside("a", streaming=False):
        pass


def test_a_place_comes_back_whatever_happens() -> None:
    turnstile = Turnstile(Limits(concurrent=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), turnstile.inside("a", streaming=False):
            raise ZeroDivisionError


def test_a_newer_token_gives_no_new_count() -> None:
    old = Principal(id="ann", credential_hash="a")
    new = Principal(id="ann", credential_hash="b", roles=("admin",))
    assert caller_of(old) == caller_of(new)
    assert caller_of(Principal(id="ann", kind="service")) != caller_of(old)
    assert caller_of(None) not in {caller_of(old), caller_of(Principal.anonymous())}


@pytest.mark.parametrize("options", [{"concurrent": 0}, {"streams": 0}, {"concurrent": 10**6}])
def test_limits_are_positive_and_finite(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Limits(**options)
