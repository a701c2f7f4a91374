from __future__ import annotations

import pytest

from sark_trio import errors, jsontext
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import LIST_SERVERS, Query, Question, superset_input
from tests.support.governance import query


@pytest.mark.fault(14, 21, 26)
def test_the_input_carries_every_shape() -> None:
    who = Principal(id="u", roles=("r",), permissions=("p",), teams=("t",), email="e@x.org")
    asked = query(principal=who, arguments={"sql": "s"}, context={"purpose": "report"})
    found = superset_input(asked)
    assert (
        found["user"].items()
        >= {
            "id": "u",
            "roles": ("r",),
            "permissions": ("p",),
            "teams": ("t",),
            "email": "e@x.org",
        }.items()
    )
    assert found["tool"]["name"] == found["tool_name"] == found["resource"]["tool"] == "query"
    assert found["server"]["name"] == found["server_name"] == found["resource"]["server"] == "db"
    assert found["tool"]["parameters"] == found["parameters"] == {"sql": "s"}
    assert found["context"] == {"purpose": "report"}
    assert "token" not in jsontext.canonical(found).decode()


def test_a_query_about_no_tool() -> None:
    asked = Query(principal=Principal.anonymous(), action=LIST_SERVERS)
    found = superset_input(asked)
    assert (found["tool"], found["server"], found["tool_name"]) == (None, None, None)
    assert found["resource"]["type"] == "server"
    assert Question.of(asked).encoded == jsontext.canonical(found)


@pytest.mark.security(11)
@pytest.mark.fault(15)
@pytest.mark.parametrize(
    "other",
    [
        query(principal=Principal(id="bob", roles=("analyst",))),
        query(server="prod"),
        query(tool="export"),
        query(arguments={"sql": "drop table users"}),
        query(sensitivity="high"),
        query(context={"a": 1}),
        query(action="gateway:tool:discover"),
    ],
)
def test_whatever_differs_makes_another_key(other: Query) -> None:
    assert Question.of(other).key != Question.of(query()).key


def test_what_is_equal_makes_the_same_key() -> None:
    one, two = query(arguments={"a": 1, "b": 2.0}), query(arguments={"b": 2, "a": 1.0})
    assert Question.of(one).key == Question.of(two).key


@pytest.mark.parametrize("context", [{"a": object()}, {"a": float("nan")}, {"a": "\ud800"}])
def test_what_can_not_be_encoded_is_refused(context: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidArguments, match="can not be encoded") as caught:
        Question.of(query(context=context))
    assert caught.value.server == "db"


def test_a_repr_shows_no_arguments() -> None:
    asked = query(arguments={"password": "hunter2"}, context={"k": "hunter2"})
    assert "hunter2" not in repr(asked) + repr(Question.of(asked))


def test_an_unknown_sensitivity_is_refused() -> None:
    with pytest.raises(ValueError, match="sensitivity"):
        query(sensitivity="secret")
