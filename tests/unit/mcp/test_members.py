"""Members of objects that a stranger sent."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from sark_trio.mcp.members import object_of, string_of


class Str(str):
    """What no decoder makes."""

    __slots__ = ()


@pytest.mark.parametrize("raw", [None, 1, "a", ["a"], {}, {"b": "x"}])
def test_what_is_not_there_is_nothing(raw: Any) -> None:
    assert string_of(raw, "a") is None
    assert object_of(raw, "a") == {}


@pytest.mark.parametrize("value", [None, 1, True, b"x", ["x"], {"x": 1}, Str("x")])
def test_what_is_no_string_is_none(value: Any) -> None:
    assert string_of({"a": value}, "a") is None


@pytest.mark.parametrize("value", [None, 1, True, "x", [{"x": 1}]])
def test_what_is_no_object_is_empty(value: Any) -> None:
    assert object_of({"a": value}, "a") == {}


def test_what_is_there_is_given_as_it_is() -> None:
    inner = {"x": 1}
    raw = MappingProxyType({"a": "", "b": inner, "c": "d"})
    assert (string_of(raw, "a"), string_of(raw, "c")) == ("", "d")
    assert object_of(raw, "b") is inner
