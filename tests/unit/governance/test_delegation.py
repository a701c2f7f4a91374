"""What no policy may allow an agent, in the order in which it is found out."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.governance.delegation import DEPTH_MAX, Delegation, objection
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import A2A, Query, Question, superset_input

AGENT = Principal(
    id="planner",
    kind="agent",
    trust_level="trusted",
    environment="production",
    agent_type="worker",
    capabilities=("query", "delegate"),
)


def agent(**facts: Any) -> Principal:
    known = {"trust_level": "trusted", "environment": "production", "capabilities": ("query",)}
    return Principal(id="planner", kind="agent", **{**known, **facts})


def asked(**facts: Any) -> Delegation:
    return Delegation(**{"target": "billing", "capability": "query", **facts})


@pytest.mark.parametrize(
    ("source", "question", "word"),
    [
        (AGENT, asked(), None),
        (AGENT, asked(capability="delegate", depth=DEPTH_MAX), None),
        (Principal(id="planner", capabilities=("query",)), asked(), "not_an_agent"),
        (AGENT, asked(claimed_source="planner"), None),
        (AGENT, asked(claimed_source="root"), "source_mismatch"),
        (AGENT, asked(environment="staging", claimed_environment="staging"), None),
        (
            AGENT,
            asked(environment="staging", claimed_environment="production"),
            "environment_mismatch",
        ),
        (agent(trust_level="limited"), asked(environment="staging"), None),
        (agent(trust_level="untrusted"), asked(environment="production"), None),
        (agent(trust_level="untrusted"), asked(environment="staging"), "environment_crossing"),
        # Its own word on where the target runs does not count, nor does silence.
        (
            agent(trust_level="untrusted"),
            asked(claimed_environment="production"),
            "environment_crossing",
        ),
        (agent(trust_level="untrusted"), asked(), "environment_crossing"),
        (agent(trust_level=None), asked(environment="staging"), "environment_crossing"),
        (agent(trust_level="critical"), asked(environment="staging"), "environment_crossing"),
        (agent(trust_level="untrusted", environment=None), asked(), "environment_crossing"),
        (AGENT, asked(capability="execute"), "capability_missing"),
        (agent(capabilities=()), asked(), "capability_missing"),
        (AGENT, asked(depth=DEPTH_MAX + 1), "delegation_too_deep"),
        # The order of the original system.
        (
            agent(trust_level="untrusted", capabilities=()),
            asked(environment="staging", depth=9),
            "environment_crossing",
        ),
        (agent(capabilities=()), asked(depth=9), "capability_missing"),
    ],
)
def test_what_is_refused_before_any_policy_is_asked(
    source: Principal, question: Delegation, word: str | None
) -> None:
    assert objection(source, question) == word


@pytest.mark.parametrize(
    "facts",
    [
        {"target": ""},
        {"target": "a\nb"},
        {"target": 7},
        {"target": "x" * 513},
        {"capability": "rule"},
        {"capability": ["query"]},
        {"depth": -1},
        {"depth": True},
        {"depth": 1.0},
        {"claimed_environment": ""},
        {"environment": 3},
        {"claimed_source": ""},
        {"message_type": "a\u202eb"},
        {"payload_metadata": []},
    ],
)
def test_what_can_be_no_question(facts: dict[str, Any]) -> None:
    (name,) = facts
    with pytest.raises(ValueError, match=name):
        asked(**facts)


def test_what_can_just_be_a_question() -> None:
    shortest = asked(target="b", message_type="m")
    assert (shortest.depth, DEPTH_MAX) == (0, 2)
    assert asked(target="x" * 512).target == "x" * 512
    assert "hunter2" not in repr(asked(payload_metadata={"password": "hunter2"}))


@pytest.mark.fault(21, 26)
def test_policies_see_both_agents_and_the_parameters_in_every_shape() -> None:
    query = Query(
        principal=AGENT,
        action=A2A,
        arguments={"task": "sum"},
        context={"purpose": "report"},
        delegation=asked(environment="staging", claimed_environment="staging", depth=1),
    )
    shown = superset_input(query)
    assert shown["source_agent"] == {
        "id": "planner",
        "type": "worker",
        "trust_level": "trusted",
        "capabilities": ("delegate", "query"),
        "environment": "production",
    }
    assert shown["target_agent"] == {
        "id": "billing",
        "environment": "staging",
        "claimed_environment": "staging",
    }
    assert (shown["capability"], shown["delegation_depth"]) == ("query", 1)
    assert (shown["parameters"], shown["context"]) == ({"task": "sum"}, {"purpose": "report"})
    assert (shown["user"]["id"], shown["action"]) == ("planner", "gateway:a2a:communicate")
    question = Question.of(query)
    assert question.encoded.startswith(b'{"action":"gateway:a2a:communicate","capability":"query"')
    other = Question.of(Query(principal=AGENT, action=A2A, delegation=asked()))
    assert other.key != question.key


def test_an_agents_claims_are_read_and_a_users_are_not() -> None:
    claims = {
        "agent_id": "planner",
        "agent_type": "worker",
        "trust_level": "limited",
        "environment": "staging",
        "capabilities": ["query", "execute"],
    }
    agent = Principal.from_claims(claims)
    assert (agent.kind, agent.agent_type) == ("agent", "worker")
    assert agent.capabilities == ("execute", "query")
    user = Principal.from_claims({"sub": "ann", "capabilities": ["execute"], "agent_type": "x"})
    assert (user.capabilities, user.agent_type) == ((), None)
    with pytest.raises(ValueError, match="capabilities"):
        Principal.from_claims({**claims, "capabilities": {"query": True}})
