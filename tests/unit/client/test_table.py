"""Reading a table key by key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, time
from typing import Any

import pytest
from attrs import define, field, validators

from sark_trio.client.table import Table
from sark_trio.errors import ConfigError


def table(**data: Any) -> Table:
    return Table(data, "file.toml", path=("top",), environ={"A": "one", "B_2": "two"})


def test_values_are_taken_with_their_type() -> None:
    some = table(text="x", flag=True, count=3, share=0.5, many=["a", "b"], single="c", below={})
    assert some.take("text", str) == "x"
    assert some.take("flag", bool) is True
    assert some.take("missing", str, "default") == "default"
    assert some.number("count") == 3.0
    assert some.number("share") == 0.5
    assert some.number("missing") is None
    assert some.number("missing", 4.0) == 4.0
    assert some.strings("many") == ("a", "b")
    assert some.strings("single") == ("c",)
    assert some.strings("missing", ("d",)) == ("d",)
    assert some.mapping("missing") == {}
    assert some.table("missing").path == ("top", "missing")
    assert some.table("below").data == {}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${A}", "one"),
        ("${env:A}-${B_2}", "one-two"),
        ("$A {A} ${} ${1}", "$A {A} ${} ${1}"),
        ("${A", "${A"),
        ("${C:-three}${C:-}${A:-x}", "threeone"),
    ],
)
def test_variables_stand_in_braces(text: str, expanded: str) -> None:
    assert table(x=text).take("x", str) == expanded


def test_what_a_variable_holds_is_not_expanded_again() -> None:
    some = Table({"x": "${A}"}, "f", environ={"A": "${A}${B}"})
    assert some.take("x", str) == "${A}${B}"


def test_an_unset_variable_is_named_with_the_key() -> None:
    with pytest.raises(
        ConfigError, match=r"file.toml: top.x: the environment has no variable C: set it$"
    ):
        table(x="${C}").take("x", str)
    with pytest.raises(ConfigError, match=r"top.env.K: the environment has no variable C: set it$"):
        table(env={"K": "${C}"}).mapping("env")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"file.toml: top.x: missing"):
        table().take("x", str)
    with pytest.raises(ConfigError, match=r"top.x: missing"):
        table().strings("x")


def test_a_boolean_is_no_number() -> None:
    with pytest.raises(ConfigError, match="expected a number"):
        table(x=True).number("x")
    with pytest.raises(ConfigError, match="expected a string or a list, got 3"):
        table(x=3).strings("x")


def test_tables_know_where_they_are() -> None:
    deeper = table(servers={"db": {"x": 1}}).tables("servers")["db"]
    with pytest.raises(ConfigError, match=r"top\.servers.db.x: expected a string, got 1"):
        deeper.take("x", str)
    with pytest.raises(ConfigError, match=r"top\.servers.db: wrong"):
        raise deeper.error("wrong")
    assert str(Table({}, "f").error("wrong")) == "f: wrong"


def test_what_only_an_editor_asks_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"top.x: nobody is asked for \$\{input:key\}: use"):
        table(x="${input:key}").take("x", str)


def test_an_odd_key_is_quoted_as_in_the_file() -> None:
    assert str(table().error("wrong", "tools", "*")) == 'file.toml: top.tools."*": wrong'


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("tiemout_s", "; did you mean 'timeout_s'?"),
        ("timeout-s", "; did you mean 'timeout_s'?"),
        ("URL", "; did you mean 'url'?"),
        ("other", "; there are timeout_s, url"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_known_one(key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(url=1, **{key: 2}).only("timeout_s", "url")
    assert str(caught.value) == f"file.toml: top.{key}: unknown key{hint}"
    table(url=1, **{key: 2}).only("timeout_s", "url", key)
    with pytest.raises(ConfigError, match=r"unknown key$"):
        table(zebra=1).only(*(f"key_{number}" for number in range(13)))


def test_a_key_of_another_kind_says_of_which() -> None:
    kinds = {"a": ("x", "both"), "b": ("y", "both"), "c": ("y",)}
    table(x=1, both=2, none=3).for_kind("a", kinds)
    with pytest.raises(ConfigError, match=r"top\.y: is for 'b' and 'c', not for 'a'$"):
        table(x=1, y=2).for_kind("a", kinds)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"token": "hunter2"}, "a table"),
        (["hunter2"], "a list"),
        (True, "true"),
        (None, "null"),
        (date(2026, 1, 1), "a date or time"),
        (time(1), "a date or time"),
        (3, "3"),
        (10**80, "1" + "0" * 59 + "..."),
    ],
)
def test_a_wrong_value_is_shown_as_the_file_has_it(value: object, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(x=value).take("x", str)
    assert caught.value.message == f"file.toml: top.x: expected a string, got {shown}"


def test_numbers_of_seconds_are_asked_for_as_such() -> None:
    with pytest.raises(ConfigError, match="expected a number of seconds, got '30s'"):
        table(wait_s="30s").number("wait_s")
    with pytest.raises(ConfigError, match="expected a number, got '9'"):
        table(per_s="9").number("per_s")


@define
class Made:
    size: int = field(default=1, validator=validators.in_([1, 2]))


def test_what_is_made_of_a_table_is_placed_at_the_member_that_is_wrong() -> None:
    def locate(path: Sequence[str]) -> int:
        return {("sizes", "size"): 7, ("sizes",): 6}[tuple(path)]

    some = Table({"sizes": {"size": 3}}, "f", locate=locate)
    with pytest.raises(ConfigError) as caught:
        some.options("sizes", Made)
    assert str(caught.value).startswith("f:6: sizes: 'size' must be in [1, 2]")
    with pytest.raises(ConfigError) as caught:
        some.table("sizes").made(refuse)
    assert str(caught.value) == "f:7: sizes: size: no"


def refuse() -> None:
    raise ConfigError("no", source="size")


def test_the_environment_is_in_no_repr() -> None:
    assert "one" not in repr(table())
