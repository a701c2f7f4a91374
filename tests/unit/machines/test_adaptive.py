from __future__ import annotations

from math import inf, nan

import pytest

from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ConnectError,
    OutcomeUnknown,
    Overloaded,
    PoolTimeout,
    ProtocolError,
    ReadTimeout,
    RemoteError,
    TLSError,
    status_error,
)
from sark_trio.machines.adaptive import (
    AdaptiveConcurrency,
    AdaptiveLimiter,
    AdaptiveStatistics,
    Admitted,
    Fault,
    Queued,
    Refused,
    Signal,
    signal_of,
)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit_min": 0}, "limit_min must be from 1 to 100000, not 0"),
        ({"limit_max": 100_001}, "limit_max must be from 1 to 100000"),
        ({"limit_min": 5, "limit_max": 4}, "limit_max must be limit_min or more, not 4"),
        ({"limit_start": 0}, "limit_start"),
        ({"keep_percent": 96}, "keep_percent must be from 1 to 95"),
        ({"slow_ratio": 1.0}, "slow_ratio must be from 1.1 to 1000"),
        ({"slow_ratio": nan}, "slow_ratio"),
        ({"waiters_max": -1}, "waiters_max"),
        ({"wait_s": inf}, "wait_s must be from 0.001 to 300"),
    ],
)
def test_an_option_out_of_its_bounds_is_named(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdaptiveConcurrency(**options)  # type: ignore[arg-type]


def test_an_option_of_another_type_is_named() -> None:
    with pytest.raises(TypeError, match=r"limit_max must be a whole number, not 2\.5"):
        AdaptiveConcurrency(limit_max=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="slow_ratio must be a number"):
        AdaptiveConcurrency(slow_ratio="2")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bounds", "limit"),
    [({}, 10), ({"limit_max": 4}, 4), ({"limit_min": 20}, 20), ({"limit_start": 7}, 7)],
)
def test_the_first_limit_is_within_the_bounds(bounds: dict[str, int], limit: int) -> None:
    assert AdaptiveLimiter(AdaptiveConcurrency(**bounds)).limit == limit  # type: ignore[arg-type]


def test_a_place_a_place_in_the_line_and_none() -> None:
    machine = AdaptiveLimiter(AdaptiveConcurrency(limit_start=1, waiters_max=1))
    assert machine.want(1.0) == Admitted(1)
    assert machine.want(1.0) == Queued(2)
    assert machine.want(1.0) == Refused(1, 1)
    assert repr(machine) == "<AdaptiveLimiter 1/1 out, 1 waiting, 0 cuts>"
    assert machine.done(2.0, 1, Signal.DROPPED) == (2,)
    assert machine.done(2.0, 1, Signal.DROPPED) == Fault("unknown_ticket")
    assert machine.next_deadline() is None
    assert machine.statistics() == AdaptiveStatistics(
        limit=1, out=1, waiting=0, fastest_s=None, admitted=2, refused=1, cuts=1, raises=0
    )


def test_the_fastest_is_known_after_a_round_and_the_clock_does_not_go_back() -> None:
    machine = AdaptiveLimiter(AdaptiveConcurrency(limit_start=1))
    now = 100.0
    for number in range(1, 11):
        assert machine.want(now) == Admitted(number)
        machine.done(nan if number == 4 else now + 2.0, number, Signal.ANSWERED)
        now += 2.0
        assert machine.want(0.0) == Admitted(number + 1) if number == 10 else True
    assert machine.statistics().fastest_s == 0.0  # the fourth: a time that is none passes by
    assert machine.limit == 2
    assert machine.statistics().raises == 1


def test_a_call_takes_its_time_from_when_it_went_out() -> None:
    machine = AdaptiveLimiter()
    for number in range(1, 11):
        machine.want(number * 10.0)
        machine.done(number * 10.0 + 2.0, number, Signal.ANSWERED)
    assert machine.statistics().fastest_s == 2.0


def test_only_an_unknown_outcome_is_judged_by_its_cause() -> None:
    refused = status_error(404, "no")
    refused.__cause__ = ConnectError("refused")
    assert signal_of(refused) is Signal.IGNORED


def test_each_error_says_what_it_says_of_the_load() -> None:
    unknown = OutcomeUnknown("?")
    unknown.__cause__ = ReadTimeout("slow")
    said = {
        Signal.DROPPED: [
            *(status_error(status, "no") for status in (429, 503, 504)),
            *(ReadTimeout("slow"), PoolTimeout("full"), ConnectError("refused")),
            *(Overloaded("full"), unknown),
        ],
        Signal.IGNORED: [
            *(status_error(status, "no") for status in (400, 401, 404, 500, 502)),
            *(TLSError("bad"), ProtocolError("odd"), RemoteError("no", code=-1)),
            *(CircuitOpen("open"), CallTimeout("late"), OutcomeUnknown("?")),
            *(KeyboardInterrupt(), ValueError()),
        ],
    }
    for signal, errors in said.items():
        assert [error for error in errors if signal_of(error) is not signal] == []
