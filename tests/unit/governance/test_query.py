from __future__ import annotations

from types import MappingProxyType

import pytest

from sark_trio import errors, jsontext
from sark_trio.governance import query as module
from sark_trio.governance.delegation import Delegation
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


def test_the_input_is_what_policies_were_written_for() -> None:
    """Word by word: a member by another name is undefined to a policy, and decides nothing."""
    who = Principal(
        id="planner",
        kind="agent",
        roles=("r",),
        permissions=("p",),
        teams=("t",),
        email="e@x.org",
        claims={"tenant": "acme"},
        trust_level="trusted",
        environment="production",
        agent_type="worker",
        capabilities=("query",),
        credential_hash="c0ffee",
    )
    delegation = Delegation(
        target="billing",
        capability="query",
        environment="staging",
        claimed_environment="staging",
        claimed_source="planner",
        depth=1,
        message_type="ask",
        payload_metadata={"rows": 2},
    )
    asked = query(
        principal=who, sensitivity="high", context={"purpose": "audit"}, delegation=delegation
    )
    assert superset_input(asked) == {
        "user": {
            "id": "planner",
            "kind": "agent",
            "roles": ("r",),
            "permissions": ("p",),
            "teams": ("t",),
            "email": "e@x.org",
            "trust_level": "trusted",
            "environment": "production",
            "claims": {"tenant": "acme"},
        },
        "action": "gateway:tool:invoke",
        "server": {"name": "db"},
        "tool": {
            "name": "query",
            "parameters": {"sql": "select 1"},
            "sensitivity_level": "high",
        },
        "resource": {"type": "tool", "server": "db", "tool": "query", "sensitivity": "high"},
        "parameters": {"sql": "select 1"},
        "server_name": "db",
        "tool_name": "query",
        "context": {"purpose": "audit"},
        "source_agent": {
            "id": "planner",
            "type": "worker",
            "trust_level": "trusted",
            "capabilities": ("query",),
            "environment": "production",
        },
        "target_agent": {
            "id": "billing",
            "environment": "staging",
            "claimed_environment": "staging",
        },
        "capability": "query",
        "delegation_depth": 1,
        "message_type": "ask",
        "payload_metadata": {"rows": 2},
    }


def test_actions_are_the_documented_words() -> None:
    """Policies compare with them."""
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, str) and value.startswith("gateway:")
    }
    assert found == {
        "INVOKE": "gateway:tool:invoke",
        "DISCOVER": "gateway:tool:discover",
        "LIST_SERVERS": "gateway:server:list",
        "SERVER_INFO": "gateway:server:info",
        "REQUEST": "gateway:server:request",
        "NOTIFY": "gateway:server:notify",
        "RESOURCE_DISCOVER": "gateway:resource:discover",
        "RESOURCE_READ": "gateway:resource:read",
        "RESOURCE_SUBSCRIBE": "gateway:resource:subscribe",
        "PROMPT_DISCOVER": "gateway:prompt:discover",
        "PROMPT_GET": "gateway:prompt:get",
        "COMPLETE": "gateway:completion:complete",
        "TASK_GET": "gateway:task:get",
        "TASK_UPDATE": "gateway:task:update",
        "TASK_CANCEL": "gateway:task:cancel",
        "LISTEN": "gateway:server:listen",
        "PING": "gateway:server:ping",
        "SET_LOG_LEVEL": "gateway:server:log",
        "A2A": "gateway:a2a:communicate",
        "AUDIT_READ": "gateway:audit:read",
        "EVENTS_READ": "gateway:events:read",
    }


def test_arguments_are_taken_in_a_copy_of_their_own() -> None:
    given = {"a": 1}
    asked = query(arguments=MappingProxyType(given), context=MappingProxyType({"b": 2}))
    given["a"] = 3
    assert (asked.arguments, asked.context) == ({"a": 1}, {"b": 2})
    assert query(arguments=[1]).arguments == [1]  # for check_arguments to refuse


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


def test_an_engine_that_changes_the_arguments_is_noticed() -> None:
    question = Question.of(query(arguments={"rows": [1, {"a": "b"}]}))
    assert question.is_intact()
    question.query.arguments["rows"][1]["a"] = "c"
    assert not question.is_intact()
    question.query.arguments["rows"][1]["a"] = "b"
    assert question.is_intact()
    question.query.arguments["rows"].append(object())
    assert question.is_intact() is False


def test_a_repr_shows_no_arguments() -> None:
    asked = query(arguments={"password": "hunter2"}, context={"k": "hunter2"})
    assert "hunter2" not in repr(asked) + repr(Question.of(asked))


def test_an_unknown_sensitivity_is_refused() -> None:
    for known in ("low", "medium", "high", "critical"):
        assert query(sensitivity=known).sensitivity == known
    with pytest.raises(ValueError, match="sensitivity"):
        query(sensitivity="secret")
