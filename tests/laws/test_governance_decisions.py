"""Laws of authorisation (2.8), as far as no wire is needed: Z1, Z2, Z3, Z4."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from sark_trio import errors, jsontext
from sark_trio.governance.audit_record import args_digest
from sark_trio.governance.decision import Decision, decode_decision
from sark_trio.governance.decision_cache import DecisionCache
from sark_trio.governance.opa import Opa, read_answer
from sark_trio.governance.pipeline import Governor
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import Query, Question, superset_input
from tests.support.governance import Answers, load, query
from tests.support.json_values import any_json, objects, small_json

# The default profile checks two thousand answers, the deep one the 100,000 of the law.
_EXAMPLES = settings().max_examples
_MANY = settings(max_examples=_EXAMPLES * 10 if _EXAMPLES > 1000 else min(_EXAMPLES * 40, 5_000))
#: Seconds: the deep profile takes its time, and a stuck test is still found.
_LONG = pytest.mark.timeout(3_600)

_GOOD_OBLIGATIONS: list[Any] = [
    {"type": "redact_result", "keys": ["ssn"]},
    {"type": "redact_result", "paths": ["/a/*"], "patterns": ["email"]},
    {"type": "strip_parameters", "paths": ["/a"]},
    {"type": "limit_result", "bytes_max": 10},
]
_BAD_OBLIGATIONS: list[Any] = [
    {"type": "redact_result"},
    {"type": "redact_result", "keys": "ssn"},
    {"type": "redact_result", "patterns": ["no such pattern"]},
    {"type": "strip_parameters", "paths": ["a"]},
    {"type": "strip_parameters"},
    {"type": "limit_result", "bytes_max": True},
    {"type": "limit_result", "bytes_max": -1},
    {"type": "limit_result", "bytes_max": 1, "unless": "friday"},
    {"type": "notify"},
    {},
    "redact_result",
    None,
]
_ODD: list[Any] = [None, 0, 1, "true", "false", "", [], {}, "yes", 1.0, [True], {"allow": True}]
_missing = object()


def _maybe(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([_missing, _missing, *values])


@st.composite
def _results(draw: st.DrawFn) -> Any:
    """Results near the border between yes and no, and some from nowhere near it."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([True, False, *_ODD]) | any_json())
    obligations = st.lists(st.sampled_from([*_GOOD_OBLIGATIONS, *_BAD_OBLIGATIONS[:1]]), max_size=3)
    members = {
        "allow": draw(st.sampled_from([True, True, True, True, False, _missing, *_ODD])),
        "deny": draw(_maybe([], {}, False, ["no"], {"no": True}, "no", True, None, 0, "")),
        "filtered_parameters": draw(_maybe(None, {}, {"a": 1}, [], "x", False)),
        "obligations": draw(
            _maybe(None, [], *_GOOD_OBLIGATIONS, *([bad] for bad in _BAD_OBLIGATIONS)) | obligations
        ),
        "reason": draw(_maybe("why", 1, None)),
        "cache_ttl": draw(_maybe(0, 5, -1, "5", None, True, 1e300)),
        "audit_id": draw(_maybe("id", 7)),
    }
    return {name: value for name, value in members.items() if value is not _missing}


def _oracle(result: Any) -> bool:
    """The law, in the order of its sentence."""
    if result is True:
        return True
    if not isinstance(result, dict) or result.get("allow") is not True:
        return False
    deny = result.get("deny", False)
    if not (deny is False or (type(deny) in {list, dict} and not deny)):
        return False
    if not isinstance(result.get("filtered_parameters"), dict | None):
        return False
    obligations = result.get("obligations")
    if obligations is None:
        return True
    return isinstance(obligations, list) and all(
        any(obligation == good for good in _GOOD_OBLIGATIONS) for obligation in obligations
    )


@pytest.mark.security(1)
@pytest.mark.law("Z1")
@pytest.mark.fault(19, 24)
@_LONG
@_MANY
@given(result=_results())
def test_z01_an_answer_allows_iff_the_law_says_so(result: Any) -> None:
    """Allowed iff result or result.allow is true, nothing denies, and obligations parse."""
    decision = decode_decision(result)
    assert decision.allow is _oracle(result)
    assert not (decision.allow and decision.fault)


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[int, bytes]:
    body: Any = {"decision_id": "d", "result": draw(_results())}
    if draw(st.integers(0, 5)) == 0:
        body = draw(st.sampled_from([{}, [], None, {"results": True}, {"decision_id": "d"}]))
    text = json.dumps(body).encode()
    mutation = draw(st.integers(0, 5))
    if mutation == 0:
        text = text[: draw(st.integers(0, len(text)))]
    elif mutation == 1:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(min_size=1, max_size=2)) + text[at:]
    elif mutation == 2:
        text = b'{"result":true,' + text[1:]
    return draw(st.sampled_from([200, 200, 200, 204, 302, 404, 500])), text


def _body_oracle(status: int, body: bytes) -> bool:
    if status != 200:
        return False
    pairs: list[list[tuple[str, Any]]] = []

    def collect(members: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append(members)
        return dict(members)

    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=collect)
    except ValueError:
        return False
    if any(len(dict(members)) != len(members) for members in pairs):
        return False
    return isinstance(value, dict) and "result" in value and _oracle(value["result"])


@pytest.mark.security(1)
@pytest.mark.law("Z1")
@_LONG
@_MANY
@given(answer=_bodies())
def test_z01_bytes_from_opa_allow_iff_the_law_says_so(answer: tuple[int, bytes]) -> None:
    """Status 200, one JSON text without duplicate keys, a result, and that result allows."""
    assert read_answer(*answer).allow is _body_oracle(*answer)


@pytest.mark.security(3)
@pytest.mark.law("Z2")
@pytest.mark.fault(15, 16)
@given(arguments=objects(), kept=st.sets(st.sampled_from(["a", "b", "secret", "0"])))
def test_z02_the_verdict_is_over_exactly_the_decided_arguments(
    arguments: dict[str, Any], kept: set[str]
) -> None:
    """Digest, arguments and the policy's answer are one: nothing else can be sent under it."""
    wanted = {name: value for name, value in arguments.items() if name in kept}
    answers = Answers(Decision(allow=True, arguments=wanted))
    verdict = trio.run(Governor(policy=answers).decide, 0.0, query(arguments=arguments))
    assert verdict.allow
    assert verdict.arguments == wanted
    assert verdict.digest == args_digest(wanted)
    assert verdict.digest == f"sha256:{hashlib.sha256(jsontext.canonical(wanted)).hexdigest()}"
    assert jsontext.decode(answers.asked[0])["parameters"] == jsontext.decode(
        jsontext.canonical(arguments)
    )


@pytest.mark.law("Z2")
@given(arguments=objects(), context=st.dictionaries(st.text(max_size=4), small_json()))
def test_z02_the_question_is_the_canonical_superset_input(
    arguments: dict[str, Any], context: dict[str, Any]
) -> None:
    """The bytes that engine, cache and digest share are RFC 8785 of the documented input."""
    asked = query(arguments=arguments, context=context)
    question = Question.of(asked)
    assert question.encoded == jsontext.canonical(superset_input(asked))
    assert question.arguments == jsontext.canonical(arguments)


_rights = st.tuples(
    st.sets(st.sampled_from(["admin", "analyst", "viewer"])),
    st.sets(st.sampled_from(["db/query", "db/export", "files/read"])),
)
_SQL = ["select 1", "SELECT 1; DROP TABLE users", "drop table t", "select 1;", "delete from t", 7]


@pytest.mark.law("Z3")
@pytest.mark.fault(24, 25, 26)
@given(
    rights=_rights,
    fewer=_rights,
    server=st.sampled_from(["db", "files"]),
    tool=st.sampled_from(["query", "export", "read"]),
    sql=st.sampled_from(_SQL),
)
def test_z03_removing_rights_never_allows_more(
    rights: tuple[set[str], set[str]],
    fewer: tuple[set[str], set[str]],
    server: str,
    tool: str,
    sql: Any,
) -> None:
    """Whoever has fewer roles and permissions is allowed no call that more would not allow."""
    engine = load("gateway.rego")

    def allowed(roles: set[str], permissions: set[str]) -> bool:
        who = Principal(id="p", roles=tuple(roles), permissions=tuple(permissions))
        asked = Query(principal=who, server=server, tool=tool, arguments={"sql": sql})
        decision = engine.evaluate(Question.of(asked).encoded)
        assert decision.fault is None
        return decision.allow

    less = allowed(rights[0] & fewer[0], rights[1] & fewer[1])
    assert not less or allowed(*rights)


@pytest.mark.security(2)
@pytest.mark.law("Z4")
@_LONG
@settings(max_examples=_EXAMPLES * 4)
@given(answer=_bodies(), arguments=objects())
def test_z04_a_denied_call_has_nothing_to_send(
    answer: tuple[int, bytes], arguments: dict[str, Any]
) -> None:
    """A verdict that does not allow holds no arguments, no digest, and one typed error."""

    async def exchange(*_: Any) -> Any:
        return answer[0], [], answer[1]

    governor = Governor(policy=Opa("http://127.0.0.1:8181", exchange=exchange))
    verdict = trio.run(governor.decide, 0.0, query(arguments=arguments))
    assert not verdict.allow or _body_oracle(*answer)
    if not verdict.allow:
        assert (verdict.arguments, verdict.digest, verdict.obligations) == ({}, "", ())
        denial = verdict.denial()
        assert isinstance(denial, PermissionError)
        assert isinstance(denial, errors.PolicyUnavailable) is (verdict.fault is not None)
        assert denial.delivery == "not_sent"


_KEYS = [bytes([number]) * 32 for number in range(6)]


@pytest.mark.law("Z1")
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["get", "put", "put_denial"]),
            st.sampled_from(_KEYS),
            st.sampled_from(["r1", "r2"]),
            st.floats(-1, 3),
            st.floats(0, 10),
        ),
        max_size=60,
    )
)
def test_z01_the_cache_answers_only_living_allows_of_this_revision(steps: list[Any]) -> None:
    """A hit is the last allow put for that key, under that revision, within 5 s of asking."""
    cache = DecisionCache(entries_max=4)
    now, latest = 0.0, float("-inf")
    put: dict[bytes, tuple[float, Decision]] = {}
    seen = None
    for action, key, revision, dt, ttl_s in steps:
        now += dt
        latest = max(latest, now)
        if revision != seen:
            seen = revision
            put.clear()
        if action == "get":
            hit = cache.get(now, key, revision)
            if hit is None:
                put.pop(key, None)  # ended, or made room: in neither case may it come back
            else:
                assert hit == (put[key][1], put[key][0])
                assert latest < hit[1]
        else:
            decision = Decision(allow=action == "put", revision=revision)
            ends = cache.put(now, key, decision, ttl_s=ttl_s, size=100)
            assert ends <= now + 5.0
            put.pop(key, None)
            if decision.allow:
                put[key] = (ends, decision)
        cache.check_invariants()
