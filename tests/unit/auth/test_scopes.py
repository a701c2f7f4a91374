from __future__ import annotations

import pytest

from sark_trio.auth.scopes import (
    SCOPES_MAX,
    StepUps,
    first_scopes,
    more_scopes,
    parse_scope,
    with_offline,
)


def test_scopes_are_words_each_once() -> None:
    assert parse_scope('a  b a c"d e\\f \u00e9 g:h') == ("a", "b", "g:h")
    assert parse_scope(None) == parse_scope(7) == parse_scope("") == ()
    assert len(parse_scope(" ".join(map(str, range(999))))) == SCOPES_MAX


@pytest.mark.parametrize(
    ("configured", "challenged", "supported", "expected"),
    [
        (("x",), "a", ("b",), ("x",)),
        ((), "a", ("b",), ()),
        (None, "a", ("b",), ("a",)),
        (None, None, ("b", "c"), ("b", "c")),
        (None, "", None, ()),
    ],
)
def test_the_order_of_selection(
    configured: tuple[str, ...] | None,
    challenged: str | None,
    supported: tuple[str, ...] | None,
    expected: tuple[str, ...],
) -> None:
    assert first_scopes(configured, challenged, supported) == expected


def test_nothing_is_lost_on_the_way_up() -> None:
    assert more_scopes(("a", "b"), "b c") == ("a", "b", "c")
    assert more_scopes((), None) == ()


def test_refresh_tokens_are_asked_for_where_they_are_to_be_had() -> None:
    assert with_offline(("a",), ("a", "offline_access")) == ("a", "offline_access")
    assert with_offline((), ("offline_access",)) == ()
    assert with_offline(("a",), None) == ("a",)
    assert with_offline(("offline_access",), ("offline_access",)) == ("offline_access",)


def test_step_ups_end() -> None:
    ups = StepUps(challenges_max=2)
    assert not ups.may_try(("a",), ("a",))
    assert not ups.may_try((), ())
    assert [ups.may_try((), ("a",)) for _ in range(3)] == [True, True, False]
    assert ups.may_try((), ("b",))
    assert not ups.may_try((), ("c",))
    assert ups.may_try((), ("b",))
