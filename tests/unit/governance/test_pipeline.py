from __future__ import annotations

import weakref
from typing import Any

import pytest
import trio
import trio.testing

from sark_trio import errors
from sark_trio.governance.audit_record import args_digest
from sark_trio.governance.blocks import Block
from sark_trio.governance.decision import Decision
from sark_trio.governance.delegation import Delegation
from sark_trio.governance.filters import ParameterFilter, ToolFacts
from sark_trio.governance.obligations import parse_obligations
from sark_trio.governance.pipeline import AllowAll, Governor, Verdict
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import DISCOVER, Question
from sark_trio.governance.rego import Rego
from tests.support.governance import Answers, load, query

YES = Decision(allow=True, revision="r")


def decide(governor: Governor, now: float = 0.0, facts: Any = None, **fields: Any) -> Verdict:
    return trio.run(governor.decide, now, query(**fields), facts)


@pytest.mark.fault(18)
def test_no_policy_is_a_no_and_only_allow_all_allows_all() -> None:
    verdict = decide(Governor())
    assert not verdict.allow
    denial = verdict.denial()
    assert isinstance(denial, errors.PolicyUnavailable)
    assert (denial.reason, denial.delivery, denial.server) == ("no_policy", "not_sent", "db")
    assert verdict.fault == "no policy is configured"
    verdict = decide(Governor(policy=AllowAll()))
    assert (verdict.allow, verdict.reason) == (True, "AllowAll")
    assert verdict.revision == AllowAll().revision == "allow-all"


def test_a_verdict_promises_nothing_that_it_was_not_given() -> None:
    verdict = Verdict(allow=False, query=query())
    assert (verdict.arguments, verdict.digest, verdict.reason) == ({}, "", "")
    assert (verdict.ttl_s, verdict.valid_until) == (0.0, float("-inf"))


def test_an_allow_holds_all_that_is_recorded_and_sent() -> None:
    verdict = decide(Governor(policy=load("gateway.rego")), arguments={"sql": "s", "token": "t"})
    assert verdict == Verdict(
        allow=True,
        query=query(arguments={"sql": "s", "token": "t"}),
        arguments={"sql": "s"},
        digest=args_digest({"sql": "s"}),
        reason="allowed by role or permission",
        revision=load("gateway.rego").revision,
        valid_until=2.0,
        ttl_s=2.0,
    )


@pytest.mark.fault(2)
def test_a_denial_says_nothing_of_the_rule() -> None:
    verdict = decide(Governor(policy=load("gateway.rego")), arguments={"sql": "drop table t"})
    denial = verdict.denial()
    assert type(denial) is errors.Denied
    assert verdict.reason == "drop is not for this role"
    assert "drop" not in str(denial)
    assert str(denial) == "policy denies tool 'query' to 'alice'"
    nobody = query(tool=None, action=DISCOVER, principal=Principal.anonymous())
    denied = trio.run(Governor(policy=load("gateway.rego")).decide, 0.0, nobody)
    assert str(denied.denial()) == "policy denies gateway:tool:discover to 'anonymous'"


@pytest.mark.fault(16)
def test_an_empty_set_of_parameters_sends_none() -> None:
    verdict = decide(Governor(policy=Answers(Decision(allow=True, arguments={}))))
    assert (verdict.allow, verdict.arguments) == (True, {})
    assert verdict.digest == args_digest({})


@pytest.mark.parametrize("wanted", [{"more": 1}, {"sql": "drop table users"}, {"sql": None}])
def test_a_policy_that_widens_has_not_decided(wanted: dict[str, Any]) -> None:
    verdict = decide(Governor(policy=Answers(Decision(allow=True, arguments=wanted))))
    assert (verdict.allow, verdict.reason, verdict.arguments) == (False, "widened", {})
    assert isinstance(verdict.denial(), errors.PolicyUnavailable)
    assert verdict.fault is not None


@pytest.mark.parametrize("answer", [True, None, "yes"])
def test_what_is_no_decision_is_told_so(answer: Any) -> None:
    verdict = decide(Governor(policy=Answers(answer)))
    assert (verdict.reason, verdict.fault) == ("malformed", "the policy answered no Decision")


@pytest.mark.security(1)
@pytest.mark.parametrize("answer", [RuntimeError("secret"), TimeoutError(), True, None, "yes"])
def test_whatever_else_an_engine_does_is_a_no(answer: Any) -> None:
    governor = Governor(policy=Answers(answer, revision="r"))
    verdict = decide(governor)
    assert not verdict.allow
    assert verdict.fault is not None
    assert "secret" not in verdict.fault
    assert governor.cache.statistics().entries == 0


def test_a_policy_without_a_revision_has_not_decided() -> None:
    class Bare:
        async def decide(self, question: object) -> Decision:
            raise AssertionError("it is not even asked")

    class Broken(Bare):
        @property
        def revision(self) -> str:
            raise RuntimeError("secret")

    for policy in (Bare(), Broken()):
        verdict = decide(Governor(policy=policy))  # type: ignore[arg-type]
        assert (verdict.allow, verdict.reason) == (False, "policy_error")
        assert "secret" not in str(verdict.denial())


@pytest.mark.parametrize(
    "wrong",
    [
        {"obligations": ("redact_result",)},
        {"obligations": [{"type": "redact_result", "keys": ["ssn"]}]},
        {"arguments": 5},
        {"arguments": [("sql", "s")]},
        {"ttl_s": "5"},
        {"ttl_s": float("nan")},
        {"revision": 7},
        {"decision_id": b"id"},
        {"reason": None},
    ],
)
def test_an_engine_that_errs_in_a_type_has_not_decided(wrong: dict[str, Any]) -> None:
    class Careless:
        revision = "r"

        async def decide(self, question: object) -> Decision:
            return Decision(allow=True, **wrong)

    governor = Governor(policy=Careless())
    verdict = decide(governor)
    assert (verdict.allow, verdict.reason, verdict.arguments) == (False, "policy_error", {})
    assert governor.cache.statistics().entries == 0


@pytest.mark.parametrize("value", ["drop table users", {1, 2}])
def test_a_policy_can_not_change_what_is_sent(value: Any) -> None:
    class Meddles:
        revision = "r"

        async def decide(self, question: Question) -> Decision:
            question.query.arguments["sql"] = value
            return Decision(allow=True, revision="r")

    governor = Governor(policy=Meddles())
    verdict = decide(governor, arguments={"sql": "s"})
    assert (verdict.allow, verdict.reason, verdict.arguments) == (False, "malformed", {})
    assert verdict.fault == "the policy changed the arguments"
    assert governor.cache.statistics().entries == 0


def test_cancellation_passes_through() -> None:
    async def main() -> None:
        class Hangs:
            revision = None

            async def decide(self, question: object) -> Decision:
                await trio.sleep_forever()
                raise AssertionError

        governor = Governor(policy=Hangs())
        with trio.CancelScope() as scope:
            scope.cancel()
            await governor.decide(0.0, query())
        assert scope.cancelled_caught
        assert governor.cache.statistics().entries == 0

    trio.run(main)


def test_the_policy_sees_the_filtered_candidate_and_that_is_sent() -> None:
    answers = Answers(YES, revision="r")
    governor = Governor(
        policy=answers,
        filter=ParameterFilter(deny=["/password"], redact=["/note"]),
        tool_filters={("db", "query"): ParameterFilter(deny=["/options/*/secret"])},
    )
    arguments = {
        "sql": "s",
        "password": "hunter2",
        "note": "hunter2",
        "options": [{"secret": "hunter2", "x": 1}],
        "pin": "hunter2",
    }
    verdict = decide(governor, facts=ToolFacts(sensitive_params={"pin"}), arguments=arguments)
    assert b"hunter2" not in answers.asked[0]
    assert verdict.arguments == {"sql": "s", "note": "[redacted]", "options": [{"x": 1}]}
    assert verdict.digest == args_digest(verdict.arguments)
    assert verdict.removed == ("/password", "/pin", "/options/0/secret")
    assert verdict.redacted == ("/note",)
    assert "hunter2" not in repr(verdict)


@pytest.mark.parametrize("named", [{"server": None}, {"tool": None}])
def test_rules_of_a_tool_meet_a_query_that_names_none_by_an_empty_name(named: Any) -> None:
    place = ("", "query") if "server" in named else ("db", "")
    governor = Governor(
        policy=AllowAll(), tool_filters={place: ParameterFilter(deny=["/password"])}
    )
    arguments = {"sql": "s", "password": "hunter2"}
    assert decide(governor, arguments=arguments, **named).arguments == {"sql": "s"}
    assert decide(governor, arguments=arguments).arguments == arguments


def test_changing_the_arguments_meanwhile_changes_nothing() -> None:
    arguments: dict[str, Any] = {"rows": [1]}

    async def main() -> Verdict:
        class Slow:
            revision = None

            async def decide(self, question: object) -> Decision:
                arguments["rows"].append(2)
                return YES

        return await Governor(policy=Slow()).decide(0.0, query(arguments=arguments))

    verdict = trio.run(main)
    assert verdict.arguments == {"rows": [1]}
    assert verdict.digest == args_digest({"rows": [1]})


def test_arguments_that_can_not_be_sent_are_the_callers_fault() -> None:
    answers = Answers(YES)
    for arguments in ({"a": float("nan")}, {"a": 1, "A": 2}, [1], {"__proto__": 1}):
        with pytest.raises(errors.InvalidArguments) as caught:
            decide(Governor(policy=answers), arguments=arguments)
        assert caught.value.server == "db"
    with pytest.raises(errors.InvalidArguments, match="/b: the tool has no such parameter"):
        decide(Governor(policy=answers), facts=ToolFacts(parameters={"a"}), arguments={"b": 1})
    assert answers.asked == []


def test_parameters_are_stripped_as_the_obligations_say() -> None:
    obligations = parse_obligations(
        [{"type": "strip_parameters", "paths": ["/b"]}, {"type": "limit_result", "bytes_max": 9}]
    )
    governor = Governor(policy=Answers(Decision(allow=True, obligations=obligations)))
    verdict = decide(governor, arguments={"a": 1, "b": 2})
    assert verdict.arguments == {"a": 1}
    assert verdict.digest == args_digest({"a": 1})
    assert verdict.removed == ("/b",)
    assert verdict.obligations == obligations


@pytest.mark.fault(15)
def test_a_decision_is_kept_for_its_question_only() -> None:
    answers = Answers(YES, revision="r")
    governor = Governor(policy=answers)
    assert not decide(governor, 0.0).cached
    assert decide(governor, 4.9).cached
    assert not decide(governor, 5.0).cached
    for other in ({"server": "prod"}, {"arguments": {}}, {"principal": Principal(id="bob")}):
        assert not decide(governor, 5.0, **other).cached
    assert len(answers.asked) == 5


@pytest.mark.parametrize(
    ("sensitivity", "ttl_s", "ends"),
    [("critical", 60.0, 0.0), ("low", None, 5.0), ("low", 1.5, 1.5), ("high", 0.0, 0.0)],
)
def test_lifetimes(sensitivity: str, ttl_s: float | None, ends: float) -> None:
    answers = Answers(Decision(allow=True, ttl_s=ttl_s, revision="r"), revision="r")
    governor = Governor(policy=answers)
    assert decide(governor, sensitivity=sensitivity).valid_until == ends
    assert governor.cache.statistics().entries == (ends > 0)


@pytest.mark.fault(22)
def test_a_denial_is_asked_again() -> None:
    answers = Answers(Decision(allow=False, revision="r"), YES, revision="r")
    governor = Governor(policy=answers)
    for allow, cached in ((False, False), (True, False), (True, True)):
        verdict = decide(governor)
        assert (verdict.allow, verdict.cached) == (allow, cached)


def test_a_later_denial_drops_an_allow_that_came_meanwhile() -> None:
    async def main() -> None:
        class Slow:
            revision = "r"
            asked = 0

            async def decide(self, question: object) -> Decision:
                self.asked += 1
                if self.asked == 1:  # while it thinks, another task asks the same and may
                    assert (await governor.decide(0.0, query())).allow
                    assert governor.cache.statistics().entries == 1
                    return Decision(allow=False, revision="r")
                return YES

        governor = Governor(policy=Slow())
        assert not (await governor.decide(0.0, query())).allow
        assert governor.cache.statistics().entries == 0

    trio.run(main)


def test_a_kept_decision_shares_nothing_that_can_change() -> None:
    wanted = {"rows": [1]}
    governor = Governor(
        policy=Answers(Decision(allow=True, arguments=wanted, revision="r"), revision="r")
    )
    first = decide(governor, arguments={"rows": [1, 2]})
    first.arguments["rows"].append(9)
    assert decide(governor, arguments={"rows": [1, 2]}).arguments == {"rows": [1]}


@pytest.mark.security(38)
def test_replacing_the_policy_is_atomic() -> None:
    governor = Governor(policy=load("gateway.rego"))
    assert decide(governor).allow
    with pytest.raises(errors.ConfigError):
        governor.replace_policy(Rego(texts={"p.rego": "nonsense"}))
    assert decide(governor).cached
    governor.replace_policy(Rego(texts={"p.rego": "package a\nallow := false"}))
    assert not decide(governor).allow


def test_a_decision_of_a_replaced_policy_is_bound_to_it_and_not_kept() -> None:
    async def main() -> None:
        class Old:
            revision = "old"

            async def decide(self, question: object) -> Decision:
                governor.replace_policy(Answers(Decision(allow=False), revision="new"))
                return Decision(allow=True, revision="old")

        governor = Governor(policy=Old())
        verdict = await governor.decide(7.0, query())
        assert (verdict.allow, verdict.revision, verdict.valid_until) == (True, "old", 7.0)
        assert not verdict.cached
        assert not (await governor.decide(7.0, query())).allow

    trio.run(main)


@pytest.mark.fault(20)
@pytest.mark.parametrize("how", ["replaced by itself", "another revision was seen"])
def test_an_answer_to_a_question_from_before_a_flush_is_not_kept(how: str) -> None:
    async def main() -> None:
        class Slow:
            revision = "old"
            asked = 0

            async def decide(self, question: Question) -> Decision:
                self.asked += 1
                if question.query.arguments == {"sql": "slow"} and self.asked == 1:
                    await go_on.wait()
                    return Decision(allow=True, revision="old")
                return Decision(allow=True, revision=self.revision)

        go_on, engine = trio.Event(), Slow()
        governor = Governor(policy=engine)
        slow = query(arguments={"sql": "slow"})

        async def first() -> None:
            assert not (await governor.decide(0.0, slow)).cached

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            if how == "replaced by itself":
                governor.replace_policy(engine)
            else:
                engine.revision = "new"
                await governor.decide(0.0, query(arguments={"sql": "quick"}))
            go_on.set()
        engine.revision = "old"  # as an engine has it whose last answer was the slow one
        asked = engine.asked
        assert not (await governor.decide(0.1, slow)).cached
        assert engine.asked == asked + 1

    trio.run(main)


def test_a_closed_governor_denies_and_lets_its_engine_go() -> None:
    loaded = Rego(texts={"p.rego": "package p\nallow := true\n"}).load()
    engine = weakref.ref(loaded)
    governor = Governor(policy=loaded)
    del loaded
    assert decide(governor).allow
    governor.close()
    assert engine() is None  # by reference count: no collector, no other thread
    verdict = decide(governor)
    assert (verdict.allow, verdict.reason) == (False, "no_policy")


def test_an_engine_that_holds_something_is_told_to_let_go_of_it() -> None:
    class Holding(Answers):
        retired = 0

        def retire(self) -> None:
            self.retired += 1

    engine = Holding(YES)
    governor = Governor(policy=engine)
    assert decide(governor).allow
    governor.close()
    governor.close()
    assert engine.retired == 1


def test_what_is_blocked_is_denied_and_no_policy_is_asked() -> None:
    policy = Answers(YES)
    governor = Governor(policy=policy)
    governor.blocks.add(Block(server="db", tool="query", reason="incident 7"))
    verdict = decide(governor)
    assert (verdict.allow, verdict.reason, verdict.fault) == (False, "blocked: incident 7", None)
    denial = verdict.denial()
    assert (denial.reason, denial.server) == ("blocked", "db")
    assert "incident" not in denial.message
    assert policy.asked == []
    assert decide(governor, tool="other").allow


@pytest.mark.parametrize(
    ("fields", "ttl_s"),
    [
        ({"sensitivity": "low"}, 1800.0),
        ({"sensitivity": "critical"}, 0.0),
        ({"tool": None}, 300.0),
        ({"delegation": Delegation(target="billing", capability="query")}, 60.0),
    ],
)
def test_how_long_somebody_else_may_keep_an_allow(fields: dict[str, Any], ttl_s: float) -> None:
    assert decide(Governor(policy=Answers(YES)), **fields).ttl_s == ttl_s
    brief = Answers(Decision(allow=True, ttl_s=1.5))
    assert decide(Governor(policy=brief), **fields).ttl_s == min(ttl_s, 1.5)
