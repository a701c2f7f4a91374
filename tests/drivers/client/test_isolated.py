"""A policy in a process of its own: it decides as in ours, and takes nothing but the child."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from trio.testing import MockClock

from sark_trio import AllowAll, Decision, Isolation, Rego
from sark_trio.client import isolated
from sark_trio.client.isolated import IsolatedRego, isolate
from sark_trio.errors import CallTimeout, ConfigError, PolicyUnavailable
from sark_trio.governance.query import Question
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, check_log, desk, open_client
from tests.support.governance import POLICIES, load, query, read

TEXT = """package mcp.gateway
import rego.v1

allow if input.action == "gateway:tool:discover"
allow if input.parameters.how == "plain"
allow if { input.parameters.how == "endless"
  some x in numbers.range(1, 100000); some y in numbers.range(1, 100000); x * y == -1 }
pad := numbers.range(1, 100000000) if input.parameters.how == "memory"
pad := [input.parameters.pad | some _ in numbers.range(1, 2000)] if input.parameters.how == "large"
reason := v if { some v in ["a", input.parameters.how]; input.parameters.how == "conflict" }
"""
#: Longer than any machine takes for a question of these; only those that do not end meet it.
PATIENT = Isolation(evaluation_s=60, processes=1)


def ask(how: str, **more: Any) -> Question:
    return Question.of(query(arguments={"how": how, **more}))


@contextmanager
def isolating(isolation: Isolation = PATIENT, text: str = TEXT) -> Iterator[IsolatedRego]:
    engine = isolate(Rego(texts={"policy.rego": text}, isolation=isolation), read)
    try:
        yield engine
    finally:
        engine.retire()


def pids(engine: IsolatedRego) -> list[int]:
    return [child.process.pid for child in engine._idle]


@pytest.mark.anyio
@pytest.mark.parametrize("sql", ["select 1", "SELECT 1; DROP TABLE users", "drop table users"])
async def test_a_child_and_this_process_decide_alike(sql: str) -> None:
    question = Question.of(query(arguments={"sql": sql, "token": "t"}))
    engine = isolate(Rego(POLICIES / "gateway.rego", isolation=PATIENT), read)
    try:
        here = load("gateway.rego")
        assert engine.revision == here.revision
        assert await engine.decide(question) == here.evaluate(question.encoded)
    finally:
        engine.retire()


@pytest.mark.anyio
async def test_one_child_serves_one_question_after_the_other() -> None:
    with isolating() as engine:
        assert pids(engine) == []
        assert (await engine.decide(ask("plain"))).allow
        (first,) = pids(engine)
        large = ask("plain", pad="x" * 300_000)  # more than a pipe holds
        assert (await engine.decide(large)).allow
        assert not (await engine.decide(ask("else"))).allow
        assert pids(engine) == [first]


@pytest.mark.row(48)
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("how", "reason", "fault", "survives"),
    [
        ("memory", "policy_error", "process ended", False),
        ("large", "policy_error", "more than 1048576 bytes", True),
        ("conflict", "policy_error", "multiple outputs", True),
    ],
)
async def test_what_breaks_in_a_child_denies(
    how: str, reason: str, fault: str, survives: bool
) -> None:
    with isolating() as engine:
        assert (await engine.decide(ask("plain"))).allow
        before = pids(engine)
        decision = await engine.decide(ask(how, pad="x" * 1000))
        assert (decision.allow, decision.reason) == (False, reason)
        assert fault in (decision.fault or "")
        assert (pids(engine) == before) is survives
        assert (await engine.decide(ask("plain"))).allow


@pytest.mark.row(48)
@pytest.mark.anyio
async def test_a_policy_that_does_not_end_is_killed_and_replaced() -> None:
    with isolating(Isolation(evaluation_s=0.01)) as engine:
        decision = await engine.decide(ask("endless"))
        assert (decision.allow, decision.reason) == (False, "timeout")
        assert decision.fault == "the policy took more than 0.01 s"
        assert pids(engine) == []


@pytest.mark.row(48)
@pytest.mark.trio
async def test_after_an_evaluation_without_end_the_next_one_decides(mock_clock: MockClock) -> None:
    with isolating(Isolation(evaluation_s=0.5, processes=1)) as engine:
        assert (await engine.decide(ask("plain"))).allow
        async with anyio.create_task_group() as tasks:
            said: list[Decision] = []

            async def endless() -> None:
                said.append(await engine.decide(ask("endless")))

            tasks.start_soon(endless)
            await anyio.wait_all_tasks_blocked()
            mock_clock.jump(0.5)
        assert [one.reason for one in said] == ["timeout"]
        # In a new child; on a clock that stands still no machine is too slow for it.
        assert (await engine.decide(ask("plain"))).allow


@pytest.mark.row(48)
@pytest.mark.anyio
async def test_the_loop_and_other_questions_go_on_meanwhile() -> None:
    with isolating(Isolation(evaluation_s=60, processes=2)) as engine:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.decide, ask("endless"))
            for _ in range(20):
                assert (await engine.decide(ask("plain"))).allow
            tasks.cancel_scope.cancel()
        assert len(pids(engine)) == 1


@pytest.mark.anyio
async def test_a_child_that_died_while_nobody_asked_is_replaced() -> None:
    with isolating() as engine:
        assert (await engine.decide(ask("plain"))).allow
        (first,) = pids(engine)
        process = engine._idle[0].process
        process.signal_group(signal.SIGKILL)
        assert await process.wait_exited() == -signal.SIGKILL
        assert (await engine.decide(ask("plain"))).allow
        assert pids(engine) not in ([], [first])


@pytest.mark.anyio
async def test_a_child_that_dies_while_it_is_asked_is_a_no() -> None:
    with isolating() as engine:
        await engine.decide(ask("plain"))
        child = engine._idle[0]
        async with anyio.create_task_group() as tasks:

            async def endless() -> None:
                assert (await engine.decide(ask("endless"))).reason == "policy_error"

            tasks.start_soon(endless)
            await anyio.wait_all_tasks_blocked()
            child.process.signal_group(signal.SIGKILL)
        assert pids(engine) == []


@pytest.mark.anyio
async def test_a_question_to_a_child_that_reads_no_more_is_a_no(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with isolating() as engine:
        await engine.decide(ask("plain"))
        process = engine._idle[0].process
        process.signal_group(signal.SIGKILL)
        await process.wait_exited()
        monkeypatch.setattr(type(process), "has_exited", lambda self: False)
        assert (await engine.decide(ask("plain"))).reason == "policy_error"


@pytest.mark.anyio
async def test_too_many_who_wait_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "WAITING_MAX", 1)
    with isolating() as engine:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(engine.decide, ask("endless"))
            await anyio.wait_all_tasks_blocked()
            assert (await engine.decide(ask("plain"))).reason == "busy"
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_child_that_cannot_be_started_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    with isolating() as engine:
        monkeypatch.setattr(engine, "_command", ["/nowhere/python"])
        decision = await engine.decide(ask("plain"))
        assert (decision.allow, decision.reason) == (False, "unreachable")


@pytest.mark.anyio
async def test_a_child_that_does_not_say_it_is_ready_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolated, "START_S", 0.01)
    with isolating() as engine:
        monkeypatch.setattr(engine, "_command", ["/bin/sleep", "1000"])
        assert (await engine.decide(ask("plain"))).reason == "policy_error"
        assert pids(engine) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("allow := {", "policy.rego:3:"),
        ("allow if not_there", "not_there"),
        ("pad := numbers.range(1, 100000000)", "time or memory"),
    ],
)
def test_what_is_wrong_is_told_when_it_is_loaded(text: str, says: str) -> None:
    policy = Rego(texts={"policy.rego": f"package p\nimport rego.v1\n{text}"}, isolation=PATIENT)
    with pytest.raises(ConfigError, match=says):
        isolate(policy, read)


def test_a_policy_that_decides_nothing_at_all_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolated, "START_S", 0.0)
    endless = TEXT.replace('input.parameters.how == "endless"', "true")
    policy = Rego(texts={"p.rego": endless}, isolation=Isolation(evaluation_s=0.01))
    with pytest.raises(ConfigError, match="had not decided after"):
        isolate(policy, read)


def test_without_an_interpreter_there_is_no_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "")
    with pytest.raises(ConfigError, match="interpreter"):
        isolate(Rego(texts={"p.rego": TEXT}, isolation=PATIENT), read)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ConfigError, match="could not be started"):
        isolate(Rego(texts={"p.rego": TEXT}, isolation=PATIENT), read)


@pytest.mark.security(7)
@pytest.mark.anyio
async def test_a_child_sees_neither_our_variables_nor_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "swordfish")
    with isolating() as engine:
        await engine.decide(ask("plain"))
        folder = Path("/proc") / str(*pids(engine))
        assert b"swordfish" not in (folder / "environ").read_bytes()
        limits = (folder / "limits").read_text().splitlines()
        (files,) = [line.split() for line in limits if line.startswith("Max open files")]
        assert files[3:5] == ["0", "0"]
        (space,) = [line.split() for line in limits if line.startswith("Max address space")]
        taken = int(space[3]) - PATIENT.memory_bytes_max
        assert 0 < taken < PATIENT.memory_bytes_max


# -- in a client ----------------------------------------------------------------------------------


@pytest.mark.row(48)
@pytest.mark.anyio
async def test_a_call_is_never_longer_than_its_deadline() -> None:
    server, disk = desk(), MemoryDisk()
    policy = Rego(texts={"policy.rego": TEXT}, isolation=PATIENT)
    async with open_client(server, disk, policy=policy) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo", {"how": "endless"}, timeout_s=0.05)
        assert caught.value.delivery == "not_sent"
        assert (await client.invoke_tool("desk", "echo", {"how": "plain"})).text == "done"
    assert server.arrived == [{"how": "plain"}]
    check_log(disk)


@pytest.mark.row(48)
@pytest.mark.security(1)
@pytest.mark.anyio
async def test_an_evaluation_without_end_is_a_denial_on_record() -> None:
    server, disk = desk(), MemoryDisk()
    policy = Rego(texts={"p.rego": TEXT}, isolation=Isolation(evaluation_s=0.01))
    async with open_client(server, disk, policy=policy) as client:
        with pytest.raises(PolicyUnavailable, match="timeout"):
            await client.invoke_tool("desk", "echo", {"how": "endless"})
    assert server.arrived == []
    assert len(audited(disk, "denied")) == 1


@pytest.mark.anyio
async def test_a_policy_that_is_replaced_leaves_no_child() -> None:
    server = desk()
    one = partial(Rego, texts={"policy.rego": TEXT}, isolation=PATIENT)
    async with open_client(server, policy=one()) as client:
        await client.invoke_tool("desk", "echo", {"how": "plain"})
        engine = client._caller.governor.policy
        assert isinstance(engine, IsolatedRego)
        with pytest.raises(ConfigError):
            client.reload_policy(Rego(texts={"p": "package p\nallow := {"}, isolation=PATIENT))
        assert client._caller.governor.policy is engine
        async with anyio.create_task_group() as tasks:

            async def asked_before() -> None:
                decision = await engine.decide(ask("plain"))
                assert decision.allow

            tasks.start_soon(asked_before)
            await anyio.lowlevel.checkpoint()
            client.reload_policy(AllowAll())
        assert pids(engine) == []
