"""Every error of the package: its vote, its situation, and what may follow."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio import errors
from sark_trio.errors import GatewayError, status_error
from sark_trio.machines.circuit import Outcome
from sark_trio.machines.failure import RETRY_TABLE, Safety, Situation, classify, safety_of, vote

S, F, N = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL

MEANINGS: list[tuple[GatewayError, Outcome, str]] = [
    (errors.ConnectError("refused"), F, "not_sent"),
    (errors.ConnectTimeout("slow"), F, "not_sent"),
    (errors.TLSError("bad certificate"), F, "broken"),
    (errors.PoolTimeout("full"), N, "not_sent"),
    (errors.ReadTimeout("silent"), F, "unknown"),
    (errors.WriteTimeout("stuck", delivery="not_sent"), F, "not_sent"),
    (errors.ServerDisconnected("gone"), F, "unknown"),
    (errors.ServerDisconnected("stale", delivery="not_sent"), F, "not_sent"),
    (errors.ServerDisconnected("closed after the answer", delivery="answered"), F, "answered"),
    (errors.ProcessStartError("not found"), F, "not_sent"),
    (errors.ProcessExited("died"), F, "unknown"),
    (errors.ProcessUnresponsive("hung"), F, "unknown"),
    (errors.ProtocolError("nonsense"), F, "broken"),
    (errors.MessageTooLarge("big"), F, "broken"),
    (errors.OutcomeUnknown("stream ended"), F, "unknown"),
    (errors.RemoteError("no", code=-32603), S, "answered"),
    (errors.SessionExpired("lost", status=404), S, "answered"),
    *((status_error(status, "no"), S, "answered") for status in (400, 401, 403, 404, 413, 501)),
    *((status_error(status, "no"), F, "server_error") for status in (500, 502, 503, 504)),
    (status_error(500, "no", retry_after_s=1.0), F, "server_error"),
    (status_error(429, "no"), N, "throttled"),
    (status_error(429, "no", retry_after_s=1.0), N, "throttled"),
    (status_error(503, "no", retry_after_s=1.0), N, "throttled"),
    (errors.CircuitOpen("open"), N, "held_back"),
    (errors.Overloaded("full"), N, "held_back"),
    (errors.Denied("no"), N, "final"),
    (errors.PolicyUnavailable("down"), N, "final"),
    (errors.AuditUnavailable("disk"), N, "final"),
    (errors.AuditError("disk"), N, "final"),
    (errors.UsageError("typo"), N, "final"),
    (errors.ClientClosed("closed"), N, "final"),
    (errors.CallTimeout("late"), N, "final"),
    (GatewayError("something"), N, "unknown"),
]


@pytest.mark.parametrize(("error", "outcome", "situation"), MEANINGS)
def test_what_an_error_means(error: GatewayError, outcome: Outcome, situation: str) -> None:
    assert vote(error) is outcome
    failure = classify(error)
    assert failure.situation == situation
    assert failure.error is error
    assert failure.delivery == error.delivery
    assert failure.retry_after_s == error.retry_after_s


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), ValueError("ours")])
def test_what_is_no_error_of_ours_says_nothing_of_the_server(error: BaseException) -> None:
    assert vote(error) is N


def test_an_unknown_outcome_votes_as_what_hid_it() -> None:
    error = errors.OutcomeUnknown("stream ended")
    error.__cause__ = errors.CallTimeout("late")
    assert vote(error) is N
    error.__cause__ = errors.ServerDisconnected("gone")
    assert vote(error) is F


@pytest.mark.fault(6)
def test_a_timeout_is_the_builtin_one() -> None:
    for error in (
        errors.CallTimeout("late"),
        errors.ReadTimeout("silent"),
        errors.WriteTimeout("stuck"),
        errors.ConnectTimeout("slow"),
        errors.PoolTimeout("full"),
    ):
        assert isinstance(error, TimeoutError)
        assert isinstance(error, GatewayError)


@pytest.mark.parametrize(
    ("situation", "safe", "unsafe", "listing"),
    [
        ("not_sent", "retry", "retry", "retry"),
        ("unknown", "retry", "never", "retry"),
        ("throttled", "retry", "if_not_executed", "retry"),
        ("server_error", "retry", "never", "retry"),
        ("answered", "never", "never", "never"),
        ("broken", "never", "never", "never"),
        ("held_back", "never", "never", "never"),
        ("final", "never", "never", "never"),
    ],
)
def test_what_may_be_made_again(situation: str, safe: str, unsafe: str, listing: str) -> None:
    row = RETRY_TABLE[Situation(situation)]
    found = row[Safety.SAFE], row[Safety.UNSAFE], row[Safety.LISTING]
    assert found == (safe, unsafe, listing)


def test_the_table_has_a_cell_for_everything() -> None:
    assert set(RETRY_TABLE) == set(Situation)
    assert all(set(row) == set(Safety) for row in RETRY_TABLE.values())
    assert RETRY_TABLE[Situation.UNKNOWN][Safety.UNSAFE] == "never"


@pytest.mark.security(16)
@pytest.mark.parametrize(
    ("hints", "trusted", "override", "safety"),
    [
        ((None, None), True, None, Safety.UNSAFE),
        ((True, None), True, None, Safety.SAFE),
        ((False, True), True, None, Safety.SAFE),
        ((True, True), False, None, Safety.UNSAFE),
        (("yes", 1), True, None, Safety.UNSAFE),
        ((None, None), False, True, Safety.SAFE),
        ((True, True), True, False, Safety.UNSAFE),
    ],
)
def test_only_trusted_words_make_a_call_safe(
    hints: tuple[Any, Any], trusted: bool, override: bool | None, safety: Safety
) -> None:
    found = safety_of(
        read_only_hint=hints[0], idempotent_hint=hints[1], trusted=trusted, override=override
    )
    assert found is safety
    assert Safety.LISTING.replay_safe
    assert found.replay_safe is (safety is Safety.SAFE)
