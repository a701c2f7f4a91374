from __future__ import annotations

import math
from typing import Any

import pytest

from sark_trio.errors import InvalidArguments
from sark_trio.governance.hygiene import check_arguments

_DIFFER = "differ only by case, width or invisible characters"
_REACHES = "it reaches into a server's object model"


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"a": [1, 2.5, None, True, "x", {"b": ()}]},
        {"straße": 1, "b": "é"},
        {"__typename": 1, "constructor": {"team": "ferrari"}, "____": 1, "hello__": 1},
        {"constructor": "prototype", "other": {"prototype": {}, "constructor": 7}},
        {"n": 2**53 - 1, "m": -(2**53) + 1},
        nested(64),
        {"a": [0] * 99_998},
    ],
)
def test_plain_arguments_pass(arguments: dict[str, Any]) -> None:
    check_arguments(arguments)


@pytest.mark.security(26)
@pytest.mark.parametrize(
    ("arguments", "where", "what"),
    [
        ([], "", "must be an object"),
        (None, "", "must be an object"),
        ({"a": [1, {"b": math.nan}]}, "/a/1/b", "not a JSON number"),
        ({"a": math.inf}, "/a", "not a JSON number"),
        ({"a": 2**53}, "/a", "an integer beyond 2**53 - 1 must be sent as a text"),
        ({"a": -(2**53)}, "/a", "sent as a text"),
        ({"a": {"_____": 1}}, "/a", f"the name '_____' is refused: {_REACHES}"),
        ({"a": b"x"}, "/a", "bytes is not a JSON type"),
        ({"a": {1, 2}}, "/a", "set is not a JSON type"),
        ({"a": "\ud800"}, "/a", "holds a lone surrogate"),
        ({"a": {"\udc00": 1}}, "/a", "the name of a member holds a lone surrogate"),
        ({"a": {1: 2}}, "/a", "the name of a member is not a text"),
        ({1: 2, "1": 3}, "arguments", "not a text"),
        ({"user": {"Id": 1, "id": 2}}, "/user", f"'Id' and 'id' {_DIFFER}"),
        ({"a": 1, "\uff41": 2}, "arguments", _DIFFER),
        ({"ab": 1, "a\u200bb": 2}, "arguments", _DIFFER),
        ({"a": {"__proto__": {}}}, "/a", _REACHES),
        ({"__class__": 1}, "arguments", _REACHES),
        (
            {"constructor": {"prototype": {}}},
            "arguments",
            f"constructor.prototype is refused: {_REACHES}",
        ),
        (nested(65), "/a/a", "nested deeper than 64 levels"),
        ({"a": [0] * 99_999}, "", "more than 100000 values"),
    ],
)
def test_what_two_parsers_may_read_differently_is_refused(
    arguments: Any, where: str, what: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_arguments(arguments)
    assert caught.value.message.startswith(where)
    assert caught.value.message.endswith(what)


def test_a_refusal_does_not_quote_the_value() -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_arguments({"password": "hunter2\ud800"})
    assert "hunter2" not in caught.value.message


def test_a_subclass_of_a_type_is_not_the_type() -> None:
    class Text(str):
        __slots__ = ()

    with pytest.raises(InvalidArguments, match="Text is not a JSON type"):
        check_arguments({"a": Text("x")})
