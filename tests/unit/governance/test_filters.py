from __future__ import annotations

from typing import Any

import pytest

from sark_trio.errors import InvalidArguments
from sark_trio.governance.filters import Filtered, ParameterFilter, ToolFacts, Widened, restrict


def left(arguments: dict[str, Any], facts: ToolFacts | None = None, **rules: Any) -> Any:
    return ParameterFilter(**rules).apply(arguments, facts).arguments


def test_allow_lets_pass_what_is_below_and_on_the_way() -> None:
    arguments = {"a": {"b": {"c": 1}, "x": 2}, "items": [{"n": 1, "y": 2}, 3], "z": 4}
    assert left(arguments, allow=["/a/b", "/items/*/n"]) == {
        "a": {"b": {"c": 1}},
        "items": [{"n": 1}],
    }


def test_deny_beats_redact_beats_allow() -> None:
    rules = {"allow": ["/a", "/b", "/c"], "deny": ["/a", "/b"], "redact": ["/b", "/c"]}
    assert left({"a": 1, "b": 2, "c": 3, "d": 4}, **rules) == {"c": "[redacted]"}


def test_taking_away_is_not_fooled_by_spelling_and_letting_pass_is_not_either() -> None:
    assert (
        left(
            {"Password": 1, "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44": 2},
            deny=["/password"],
        )
        == {}
    )
    assert left({"Name": 1}, allow=["/name"]) == {}
    assert left({"Name": 1}, allow=[]) == {}
    assert left({"Name": 1}, allow=None) == {"Name": 1}


def test_a_mark_where_a_container_stood_survives_the_second_time() -> None:
    rules = {"allow": ["/a/b"], "redact": ["/a"]}
    once = left({"a": {"b": 1}}, **rules)
    assert once == {"a": "[redacted]"}
    assert left(once, **rules) == once


def test_elements_are_met_by_star_only() -> None:
    arguments = {"items": [1, 2, 3]}
    assert left(arguments, deny=["/items/0"]) == arguments
    assert left(arguments, deny=["/items/*"]) == {"items": []}
    assert left({"items": {"0": 1, "1": 2}}, deny=["/items/0"]) == {"items": {"1": 2}}


def test_paths_of_what_was_taken_are_told() -> None:
    rules = ParameterFilter(deny=["/a/*/x"], redact=["/b"], sensitive="redact")
    filtered = rules.apply(
        {"a": [{"x": 1}, {"x": 2, "y": 3}], "b": 1, "pin": 1},
        ToolFacts(sensitive_params={"pin"}),
    )
    assert filtered == Filtered(
        arguments={"a": [{}, {"y": 3}], "b": "[redacted]", "pin": "[redacted]"},
        removed=("/a/0/x", "/a/1/x"),
        redacted=("/b", "/pin"),
    )


def test_parameters_that_are_taken_whole_are_told() -> None:
    facts = ToolFacts(parameters={"a", "pin"}, sensitive_params={"PIN"})
    filtered = ParameterFilter(unknown="strip").apply({"b~c/d": 1, "pin": 2, "a": 3}, facts)
    assert filtered == Filtered(arguments={"a": 3}, removed=("/b~0c~1d", "/pin"))
    assert "3" not in repr(filtered)


def test_a_rule_set_may_be_compiled_already() -> None:
    made = ParameterFilter(allow=["/a", "/b"], deny=["/b"])
    again = ParameterFilter(allow=made.allow, deny=made.deny, redact=made.deny)
    assert again.apply({"a": 1, "b": 2, "c": 3}).arguments == {"a": 1}


def test_paths_are_listed_up_to_a_bound() -> None:
    filtered = ParameterFilter(deny=["/a/*"]).apply({"a": [0] * 2_000})
    assert len(filtered.removed) == 1_000
    assert filtered.arguments == {"a": []}


@pytest.mark.parametrize(
    ("sensitive", "expected"),
    [
        ("strip", {"user": "u"}),
        ("redact", {"user": "u", "Pin": "[redacted]"}),
        ("keep", {"user": "u", "Pin": 1}),
    ],
)
def test_sensitive_parameters(sensitive: str, expected: dict[str, Any]) -> None:
    facts = ToolFacts(sensitive_params={"pin"})
    assert left({"user": "u", "Pin": 1}, facts, sensitive=sensitive) == expected


def test_undeclared_parameters() -> None:
    facts = ToolFacts(parameters={"a"})
    assert left({"a": 1, "b": 2}, facts, unknown="strip") == {"a": 1}
    assert left({"a": 1, "b": 2}, facts, unknown="keep") == {"a": 1, "b": 2}
    with pytest.raises(InvalidArguments, match="/b: the tool has no such parameter"):
        left({"a": 1, "b": 2}, facts)


def test_the_copy_shares_nothing_that_can_change() -> None:
    arguments = {"a": {"b": [1]}}
    copy = left(arguments)
    arguments["a"]["b"].append(2)
    assert copy == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    "rules",
    [{"deny": ["a"]}, {"allow": [1]}, {"sensitive": "hide"}, {"unknown": "pass"}],
)
def test_bad_rules_are_refused_at_once(rules: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"path|must be in"):
        ParameterFilter(**rules)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ({"a": 1}, {}),
        ({"a": [1, 2, 3]}, {"a": [1, 3]}),
        ({"a": [1, 2, 3]}, {"a": [1]}),
        ({"a": [1, 2]}, {"a": []}),
        ({"a": [{"x": 1, "y": 1}, {"x": 2}]}, {"a": [{"x": 1}, {}]}),
        ({"a": None, "b": True, "c": "s"}, {"a": None, "b": True, "c": "s"}),
    ],
)
def test_a_part_is_taken(have: Any, want: Any) -> None:
    assert restrict(have, want) == want


@pytest.mark.parametrize(
    ("have", "want", "where"),
    [
        ({}, {"a": 1}, "/a"),
        ({"a": 1}, {"a": 2}, "/a"),
        ({"a": True}, {"a": 1}, "/a"),
        ({"a": 1}, {"a": True}, "/a"),
        ({"a": 0}, {"a": False}, "/a"),
        ({"a": "1"}, {"a": 1}, "/a"),
        ({"a": None}, {"a": 0}, "/a"),
        ({"a": 1}, {"a": {}}, "/a"),
        ({"a": {}}, {"a": []}, "/a"),
        ({"a": [1, 2]}, {"a": [2, 1]}, "/a/1"),
        ({"a": [1]}, {"a": [1, 1]}, "/a/1"),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, "/a/c"),
        ({"a": {}}, {"a": 1}, "/a"),
        ({"a": 1}, {"a": 10**400}, "/a"),
        ({"a": 1}, {"a": object()}, "/a"),
        ([], {}, ""),
    ],
)
def test_what_is_added_changed_or_moved_is_refused(have: Any, want: Any, where: str) -> None:
    with pytest.raises(Widened) as caught:
        restrict(have, want)
    assert str(caught.value) == where


def test_numbers_are_sent_as_the_caller_gave_them() -> None:
    have = {"a": 1.0, "b": 1e23, "c": 2}
    found = restrict(have, {"a": 1, "b": 10**23, "c": 2.0})
    assert found == have
    assert [type(value) for value in found.values()] == [float, float, int]


def test_no_rule_is_the_same_however_it_is_said() -> None:
    assert ParameterFilter() == ParameterFilter(allow=None, deny=[], redact=[])


def test_a_number_that_no_double_holds_is_another() -> None:
    with pytest.raises(Widened):
        restrict({"a": 10**400}, {"a": 1.0})
    assert restrict({"a": 10**400}, {"a": 10**400}) == {"a": 10**400}
