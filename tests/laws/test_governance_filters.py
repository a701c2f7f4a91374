"""Laws of parameter filtering (2.8).

F1 idempotent, F2 never widens, F3 total, F4 order-free, F5 a policy's own parameters never widen
either.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sark_trio import errors, jsontext
from sark_trio.governance.filters import ParameterFilter, ToolFacts, Widened, restrict
from sark_trio.governance.hygiene import check_arguments
from sark_trio.governance.paths import MARK
from tests.support.json_values import NAMES, any_json, objects, paths, small_json

_facts = st.builds(
    ToolFacts,
    parameters=st.none() | st.sets(st.sampled_from(NAMES)),
    sensitive_params=st.sets(st.sampled_from([*NAMES, "A"]), max_size=2),
)


@st.composite
def _filters(draw: st.DrawFn) -> ParameterFilter:
    return ParameterFilter(
        allow=draw(st.none() | paths()),
        deny=draw(paths()),
        redact=draw(paths()),
        sensitive=draw(st.sampled_from(["strip", "redact", "keep"])),
        unknown=draw(st.sampled_from(["strip", "keep"])),
    )


def _within(part: Any, whole: Any) -> bool:
    """Naively: is *part* what is left of *whole*?"""
    if part == MARK:
        return True
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            name in whole and _within(value, whole[name]) for name, value in part.items()
        )
    if isinstance(part, list):
        if not isinstance(whole, list):
            return False
        rest = iter(whole)
        return all(any(_within(item, other) for other in rest) for item in part)
    return type(part) is type(whole) and part == whole


@pytest.mark.law("F1")
@given(rules=_filters(), arguments=objects(), facts=_facts)
def test_f01_filtering_twice_is_filtering_once(
    rules: ParameterFilter, arguments: dict[str, Any], facts: ToolFacts
) -> None:
    """f(f(x)) = f(x), and the second time nothing is removed."""
    once = rules.apply(arguments, facts)
    twice = rules.apply(once.arguments, facts)
    assert twice.arguments == once.arguments
    assert twice.removed == ()


@pytest.mark.law("F2")
@given(rules=_filters(), arguments=objects(), facts=_facts)
def test_f02_filtering_never_widens(
    rules: ParameterFilter, arguments: dict[str, Any], facts: ToolFacts
) -> None:
    """f(x) ⊆ x: every name and value that is left was there, or is a mark where one was."""
    filtered = rules.apply(arguments, facts)
    assert _within(filtered.arguments, arguments)
    if filtered.arguments == arguments:
        assert filtered.removed == ()
    if not filtered.removed and not filtered.redacted:
        assert filtered.arguments == arguments


@pytest.mark.law("F3")
@given(arguments=st.dictionaries(st.text(max_size=6), any_json()), rules=_filters())
def test_f03_whatever_passes_hygiene_is_filtered_and_encodable(
    arguments: dict[str, Any], rules: ParameterFilter
) -> None:
    """Total: arguments either are refused with a path, or filter and encode without an error."""
    try:
        check_arguments(arguments)
    except errors.InvalidArguments as refused:
        assert refused.delivery == "not_sent"
        return
    jsontext.canonical(arguments)
    jsontext.canonical(rules.apply(arguments).arguments)


@pytest.mark.law("F4")
@given(allow=paths(), deny=paths(), redact=paths(), arguments=objects(), data=st.data())
def test_f04_the_order_of_rules_changes_nothing(
    allow: list[str],
    deny: list[str],
    redact: list[str],
    arguments: dict[str, Any],
    data: st.DataObject,
) -> None:
    """A set of rules is a set: any permutation gives the same arguments."""
    shuffled = (data.draw(st.permutations(rules)) for rules in (allow, deny, redact))
    one = ParameterFilter(allow=allow, deny=deny, redact=redact)
    mixed_allow, mixed_deny, mixed_redact = shuffled
    other = ParameterFilter(allow=mixed_allow, deny=mixed_deny, redact=mixed_redact)
    assert one.apply(arguments) == other.apply(arguments)


@pytest.mark.law("F5")
@given(arguments=objects(), wanted=objects())
def test_f05_a_policy_never_widens_arguments(
    arguments: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """What restrict returns is within the arguments, or it refuses."""
    try:
        left = restrict(arguments, wanted)
    except Widened:
        assert not _numerically_within(wanted, arguments)
    else:
        assert _numerically_within(wanted, arguments)
        assert _within(left, arguments)


@pytest.mark.law("F5")
@given(arguments=objects(), rules=_filters())
def test_f05_what_a_filter_leaves_is_accepted_as_it_is(
    arguments: dict[str, Any], rules: ParameterFilter
) -> None:
    """A policy that answers with a filtered copy is obeyed exactly."""
    left = rules.apply(arguments)
    assume(not left.redacted)
    assert restrict(arguments, left.arguments) == left.arguments


@pytest.mark.law("F5")
@given(arguments=objects(), name=st.sampled_from(NAMES), value=small_json())
def test_f05_an_added_or_changed_member_is_refused(
    arguments: dict[str, Any], name: str, value: Any
) -> None:
    """Replacing one member by anything that is not a part of it is refused."""
    wanted = {**arguments, name: value}
    assume(name not in arguments or not _numerically_within(value, arguments[name]))
    with pytest.raises(Widened):
        restrict(arguments, wanted)


def _numerically_within(part: Any, whole: Any) -> bool:
    """As :func:`_within` without marks, and with numbers that engines write their own way."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            name in whole and _numerically_within(value, whole[name])
            for name, value in part.items()
        )
    if isinstance(part, list):
        if not isinstance(whole, list):
            return False
        rest = iter(whole)
        return all(any(_numerically_within(item, other) for other in rest) for item in part)
    if {type(part), type(whole)} <= {int, float}:
        return bool(part == whole or float(part) == float(whole))
    return type(part) is type(whole) and part == whole
