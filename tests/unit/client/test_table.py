"""Reading a table key by key."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.client.table import Table
from sark_trio.errors import ConfigError


def table(**data: Any) -> Table:
    return Table(data, "file.toml", path="top", environ={"A": "one", "B_2": "two"})


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
    assert some.table("missing").path == "top.missing"
    some.take("below", dict)
    some.finish()


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${A}", "one"),
        ("${env:A}-${B_2}", "one-two"),
        ("$A {A} ${} ${1}", "$A {A} ${} ${1}"),
        ("${A", "${A"),
    ],
)
def test_variables_stand_in_braces(text: str, expanded: str) -> None:
    assert table(x=text).take("x", str) == expanded


def test_what_a_variable_holds_is_not_expanded_again() -> None:
    some = Table({"x": "${A}"}, "f", environ={"A": "${A}${B}"})
    assert some.take("x", str) == "${A}${B}"


def test_an_unset_variable_is_named_with_the_key() -> None:
    with pytest.raises(ConfigError, match=r"file.toml: top.x: the environment has no variable C$"):
        table(x="${C}").take("x", str)
    with pytest.raises(ConfigError, match=r"top.env.K: the environment has no variable C$"):
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


def test_unknown_keys_are_refused_with_the_nearest_known_one() -> None:
    some = table(tiemout_s=1, other=2)
    some.number("timeout_s")
    with pytest.raises(
        ConfigError, match=r"top.tiemout_s: unknown key; did you mean 'timeout_s'\?"
    ):
        some.finish()
    some.finish(ignore={"tiemout_s", "other"})
    with pytest.raises(ConfigError, match=r"top.other: unknown key$"):
        some.finish(ignore={"tiemout_s"})


def test_the_environment_is_in_no_repr() -> None:
    assert "one" not in repr(table())
