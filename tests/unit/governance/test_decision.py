from __future__ import annotations

from typing import Any

import pytest

from sark_trio.governance.decision import (
    DELEGATION_TTL_S,
    SENSITIVITY_TTL_S,
    Decision,
    decode_decision,
    no_decision,
)


def test_everything_a_policy_may_say_is_read() -> None:
    decision = decode_decision(
        {
            "allow": True,
            "reason": "why",
            "filtered_parameters": {"a": 1},
            "obligations": [{"type": "limit_result", "bytes_max": 1}],
            "cache_ttl": 7,
            "audit_id": "from the policy",
            "helper_rule": [1, 2, 3],
        },
        decision_id="from the engine",
        revision="r",
    )
    assert decision.allow
    assert (decision.reason, decision.arguments, decision.ttl_s) == ("why", {"a": 1}, 7.0)
    assert (decision.decision_id, decision.revision) == ("from the engine", "r")
    assert len(decision.obligations) == 1


@pytest.mark.fault(16)
def test_an_empty_object_strips_everything_and_null_nothing() -> None:
    assert decode_decision({"allow": True, "filtered_parameters": {}}).arguments == {}
    assert decode_decision({"allow": True, "filtered_parameters": None}).arguments is None
    assert decode_decision({"allow": True}).arguments is None


@pytest.mark.fault(19)
def test_both_names_of_the_reason_and_of_the_id() -> None:
    assert decode_decision({"allow": True, "audit_reason": "x"}).reason == "x"
    assert decode_decision({"allow": True, "reason": "", "audit_reason": "x"}).reason == "x"
    assert decode_decision({"allow": True, "audit_id": "i"}).decision_id == "i"
    assert decode_decision({"allow": True, "decision_id": "i"}).decision_id == "i"
    assert decode_decision(True, decision_id="x" * 128).decision_id == "x" * 128
    for odd in ("x" * 129, "", 7):
        assert decode_decision(True, decision_id=odd).decision_id is None  # type: ignore[arg-type]


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("deny", "reason"),
    [
        (["b", "a", {"no": "text"}], "a; b"),
        ({"z": True, "y": True}, "y; z"),
        ("one", "one"),
        (True, "base"),
        ([1], "base"),
    ],
)
def test_a_denial_beats_an_allow(deny: Any, reason: str) -> None:
    decision = decode_decision({"allow": True, "deny": deny, "reason": "base"})
    assert decision == Decision(allow=False, reason=reason)


@pytest.mark.parametrize("deny", [None, 0, 1, "", 1.5])
def test_a_denial_of_another_kind_is_no_answer(deny: Any) -> None:
    decision = decode_decision({"allow": True, "deny": deny})
    assert not decision.allow
    assert decision.fault is not None


def test_no_and_undefined_are_plain_noes() -> None:
    assert decode_decision(False) == Decision(allow=False)
    assert decode_decision({"allow": False, "obligations": 7}) == Decision(allow=False)
    assert decode_decision({}) == Decision(allow=False, reason="undefined")


@pytest.mark.parametrize(
    ("said", "ttl_s"),
    [(None, None), (3, 3.0), (-1, 0.0), ("3", 0.0), (True, 0.0), (10**400, 86_400.0),
     (float("nan"), 0.0)],
)  # fmt: skip
def test_a_lifetime_never_denies_and_never_grows(said: Any, ttl_s: float | None) -> None:
    decision = decode_decision({"allow": True, "cache_ttl": said})
    assert decision.allow
    assert decision.ttl_s == ttl_s


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (None, "NoneType"),
        ("true", "str"),
        (1, "int"),
        ([True], "list"),
        ({"allow": "yes"}, "'allow' is str"),
        ({"allow": 1}, "'allow' is int"),
        ({"allow": None}, "'allow' is NoneType"),
        ({"allow": True, "filtered_parameters": []}, "'filtered_parameters' is list"),
        ({"allow": True, "filtered_parameters": False}, "'filtered_parameters' is bool"),
        ({"allow": True, "obligations": {}}, "obligations"),
        ({"allow": True, "obligations": [{"type": "notify"}]}, "unknown obligation 'notify'"),
    ],
)
def test_what_can_not_be_read_denies_and_says_why(result: Any, word: str) -> None:
    decision = decode_decision(result, revision="r")
    assert (decision.allow, decision.reason, decision.revision) == (False, "malformed", "r")
    assert decision.fault is not None
    assert word in decision.fault


def test_reasons_are_bounded() -> None:
    assert len(decode_decision({"allow": True, "reason": "x" * 9_999}).reason) == 512
    assert len(decode_decision({"deny": ["x" * 9_999]}).reason) == 512
    assert len(decode_decision({"deny": "x" * 9_999}).reason) == 512


@pytest.mark.parametrize(
    ("said", "ttl_s"),
    [
        (None, None),
        (0.5, 0.5),
        (1, 1.0),
        (86_401, 86_400.0),
        (10**400, 86_400.0),
        (0, 0.0),
        (-1, 0.0),
        (float("nan"), 0.0),
        (True, 0.0),
        ("5", 0.0),
    ],
)
def test_a_lifetime_that_can_not_be_read_is_none_at_all(said: Any, ttl_s: float | None) -> None:
    assert decode_decision({"allow": True, "cache_ttl": said}).ttl_s == ttl_s


def test_no_decision_never_allows() -> None:
    assert no_decision("f", reason="r", revision="v") == Decision(
        allow=False, reason="r", fault="f", revision="v"
    )


def test_a_decision_does_not_show_the_arguments() -> None:
    assert "hunter2" not in repr(Decision(allow=True, arguments={"password": "hunter2"}))


def test_a_decision_allows_by_a_boolean_only() -> None:
    with pytest.raises(TypeError, match="allow"):
        Decision(allow="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("ttl_s", [True, "5", float("nan"), [5]])
def test_a_lifetime_is_a_number(ttl_s: Any) -> None:
    with pytest.raises(TypeError, match="ttl_s must be a number of seconds"):
        Decision(allow=True, ttl_s=ttl_s)
    for good in (None, 0, 0.5, 10**400, float("inf")):
        assert Decision(allow=True, ttl_s=good).ttl_s == good


def test_lifetimes_by_sensitivity_are_the_documented_ones() -> None:
    assert dict(SENSITIVITY_TTL_S) == {
        None: 300.0,
        "low": 1800.0,
        "medium": 300.0,
        "high": 60.0,
        "critical": 0.0,
    }
    assert DELEGATION_TTL_S == 60.0
