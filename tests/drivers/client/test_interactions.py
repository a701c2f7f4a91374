"""Servers that ask while a call runs, in virtual time: rounds, handlers, deadlines, the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import Decision, Elicitation, HandlerFailed, Handlers, Root, Sampling
from sark_trio.errors import (
    CallTimeout,
    ConfigError,
    ConnectError,
    Denied,
    OutcomeUnknown,
    ProtocolError,
    RemoteError,
    ServerDisconnected,
)
from sark_trio.governance.obligations import parse_obligations
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.mcp.faults import HeaderMismatch
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, audited, check_log, desk, open_client, outcomes, records

FORM = {
    "method": "elicitation/create",
    "params": {
        "message": "who?",
        "requestedSchema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer", "default": 7}},
            "required": ["name"],
        },
    },
}
SAMPLE = {
    "method": "sampling/createMessage",
    "params": {
        "messages": [{"role": "user", "content": {"type": "text", "text": "?"}}],
        "maxTokens": 3,
    },
}


def question(state: str | None = "s-t-a-t-e", **requests: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"resultType": "input_required"}
    if requests:
        made["inputRequests"] = requests
    return made if state is None else {**made, "requestState": state}


class Asker:
    """A tool that asks, round after round, and remembers what it was sent."""

    def __init__(self, *answers: Mapping[str, Any] | BaseException) -> None:
        self.answers = list(answers)
        self.params: list[dict[str, Any]] = []
        self.offered: list[Any] = []

    async def __call__(self, incoming: Incoming) -> Mapping[str, Any]:
        if incoming.method == "tools/list":
            incoming.receive()
            return {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        step = self.answers.pop(0)
        if isinstance(step, BaseException):
            if getattr(step, "delivery", "") != "not_sent":
                incoming.receive()
            raise step
        self.params.append(incoming.receive())
        self.offered.append(incoming.capabilities)
        return step


async def ada(asked: Elicitation) -> Mapping[str, Any]:
    return {"name": "Ada"}


ADA = Handlers(elicit=ada)


@pytest.mark.anyio
async def test_a_question_is_answered_in_a_round_of_the_same_call() -> None:
    disk, server = MemoryDisk(), Asker(question(form=FORM), answer("hi"))
    async with open_client(server, disk, handlers=ADA) as client:
        result = await client.invoke_tool("desk", "echo", {"x": 1})
        assert result.text == "hi"
        breaker = client.statistics().servers["desk"].breaker
        assert (breaker.failures, breaker.outstanding) == (0, 0)
    first, second = server.params
    assert first == {"name": "echo", "arguments": {"x": 1}}
    content = {"name": "Ada", "age": 7}
    assert second == {
        **first,
        "inputResponses": {"form": {"action": "accept", "content": content}},
        "requestState": "s-t-a-t-e",
    }
    assert server.offered == [{"elicitation": {"form": {}}}] * 2
    check_log(disk)
    assert [r["reason"] for r in audited(disk, "attempt")] == ["input"]
    assert audited(disk, "outcome")[0]["attempts"] == 2
    assert "s-t-a-t-e" not in str(records(disk))
    assert "Ada" not in str(records(disk))


@pytest.mark.anyio
async def test_rounds_go_on_until_there_is_a_result_and_the_state_is_of_the_last_one() -> None:
    server = Asker(question("1", a=FORM), question(None, b=FORM), question("3"), answer())
    async with open_client(server, handlers=ADA) as client:
        await client.invoke_tool("desk", "echo")
    assert [params.get("requestState") for params in server.params] == [None, "1", None, "3"]
    assert [list(p.get("inputResponses", {})) for p in server.params] == [[], ["a"], ["b"], []]


@pytest.mark.anyio
async def test_a_server_that_asks_for_ever_is_left_after_ten_rounds() -> None:
    disk, server = MemoryDisk(), Asker(*[question(form=FORM)] * 20)
    async with open_client(server, disk, handlers=ADA) as client:
        with pytest.raises(ProtocolError, match="again and again") as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.delivery == "answered"
    assert len(server.params) == 11
    assert outcomes(disk) == [("error", "answered")]


@pytest.mark.anyio
async def test_what_was_not_offered_is_not_answered() -> None:
    server = Asker(question(model=SAMPLE), question(form=FORM))
    async with open_client(server, handlers=ADA) as client:
        with pytest.raises(ProtocolError, match="not offered"):
            await client.invoke_tool("desk", "echo")
    async with open_client(server) as client:
        with pytest.raises(ProtocolError, match="not offered"):
            await client.invoke_tool("desk", "echo")


@pytest.mark.anyio
async def test_handlers_of_a_call_go_before_those_of_the_client() -> None:
    async def bob(_: Elicitation) -> Mapping[str, Any]:
        return {"name": "Bob"}

    async def model(_: Sampling) -> Mapping[str, Any]:
        return {"model": "m", "content": {"type": "text", "text": "4"}}

    server = Asker(question(form=FORM, model=SAMPLE), answer())
    async with open_client(server, handlers=ADA) as client:
        own = Handlers(elicit=bob, sample=model)
        await client.invoke_tool("desk", "echo", handlers=own)
    answers = server.params[1]["inputResponses"]
    assert answers["form"]["content"]["name"] == "Bob"
    assert answers["model"]["content"]["text"] == "4"
    assert server.offered[0] == {"elicitation": {"form": {}}, "sampling": {}}


@pytest.mark.anyio
async def test_a_handler_that_fails_or_declines_ends_the_call() -> None:
    async def boom(_: Any) -> Any:
        raise RuntimeError("secret")

    async def nothing(_: Any) -> None:
        return None

    async def nonsense(_: Any) -> Any:
        return {"name": 7}

    for handlers, asked, words in (
        (Handlers(elicit=boom), question(form=FORM), "RuntimeError"),
        (Handlers(elicit=nonsense), question(form=FORM), "'name'"),
        (Handlers(sample=nothing), question(model=SAMPLE), "rejected"),
    ):
        disk = MemoryDisk()
        async with open_client(Asker(asked), disk, handlers=handlers) as client:
            with pytest.raises(HandlerFailed, match=words) as caught:
                await client.invoke_tool("desk", "echo")
            assert (caught.value.delivery, caught.value.attempts) == ("answered", 1)
            assert "secret" not in str(caught.value)
        check_log(disk)


@pytest.mark.trio
async def test_handlers_live_within_the_deadline_and_blame_nobody(
    autojump_clock: MockClock,
) -> None:
    ended: list[str] = []

    async def slow(_: Elicitation) -> Mapping[str, Any]:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("handler")

    disk, server = MemoryDisk(), Asker(question(form=FORM))
    async with open_client(server, disk, handlers=Handlers(elicit=slow)) as client:
        began = trio.current_time()
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo")
        assert trio.current_time() - began == pytest.approx(30.0)
        assert (caught.value.phase, caught.value.delivery) == ("input", "unknown")
        assert ended == ["handler"]
        assert client.statistics().servers["desk"].breaker.failures == 0
    check_log(disk)


@pytest.mark.trio
async def test_requests_of_one_question_are_asked_side_by_side(autojump_clock: MockClock) -> None:
    async def a_minute(_: Elicitation) -> Mapping[str, Any]:
        await trio.sleep(20)
        return {"name": "x"}

    server = Asker(question(a=FORM, b=FORM), answer())
    async with open_client(server, handlers=Handlers(elicit=a_minute)) as client:
        began = trio.current_time()
        await client.invoke_tool("desk", "echo")
        assert trio.current_time() - began == pytest.approx(20.0)


@pytest.mark.trio
async def test_state_without_a_question_is_sent_back_after_a_while(
    autojump_clock: MockClock,
) -> None:
    server = Asker(question("1"), question("2"), question("3"), answer())
    async with open_client(server) as client:
        began = trio.current_time()
        await client.invoke_tool("desk", "echo")
        assert trio.current_time() - began == pytest.approx(0.25 + 0.5 + 1.0)


@pytest.mark.trio
async def test_an_attempt_within_a_round_is_retried_like_any_other(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk()
    refused = ConnectError("no")
    server = Asker(question(form=FORM), refused, answer("in the end"))
    async with open_client(server, disk, handlers=ADA) as client:
        assert (await client.invoke_tool("desk", "echo")).text == "in the end"
    assert server.params[1]["requestState"] == "s-t-a-t-e"
    assert [r["reason"] for r in audited(disk, "attempt")] == ["input", "retry"]
    lost = ServerDisconnected("gone", delivery="unknown")
    server = Asker(question(form=FORM), lost)
    async with open_client(server, disk := MemoryDisk(), handlers=ADA) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.attempts == 2
    server = Asker(question(form=FORM), *[refused] * 3)
    async with open_client(server, disk := MemoryDisk(), handlers=ADA) as client:
        with pytest.raises(ConnectError) as failed:
            await client.invoke_tool("desk", "echo")
        assert (failed.value.attempts, failed.value.delivery) == (4, "unknown")


class OnceOnly:
    """A policy whose decisions do not last, and that changes its mind."""

    revision = "1"

    def __init__(self) -> None:
        self.asked = 0

    async def decide(self, _: Any) -> Decision:
        self.asked += 1
        return Decision(allow=self.asked == 1, ttl_s=0)


@pytest.mark.anyio
async def test_every_round_is_decided_again() -> None:
    disk, server, policy = MemoryDisk(), Asker(question(form=FORM), answer()), OnceOnly()
    async with open_client(server, disk, handlers=ADA, policy=policy) as client:
        with pytest.raises(Denied) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.delivery == "unknown"
    assert (policy.asked, len(server.params)) == (2, 1)
    check_log(disk)


@pytest.mark.anyio
async def test_questions_never_open_a_breaker() -> None:
    server = Asker(*[question(form=FORM), answer()] * 6)
    options = BreakerOptions(failures=1)
    async with open_client(server, handlers=ADA, breaker=options) as client:
        for _ in range(6):
            await client.invoke_tool("desk", "echo")


@pytest.mark.anyio
async def test_a_call_can_be_cancelled_at_every_step_of_its_rounds() -> None:
    async def checkpointing(_: Elicitation) -> Mapping[str, Any]:
        await anyio.lowlevel.checkpoint()
        return {"name": "x"}

    ended = 0
    for steps in range(80):
        disk, server = MemoryDisk(), Asker(question(a=FORM, b=FORM), question("2"), answer())
        async with open_client(server, disk, handlers=Handlers(elicit=checkpointing)) as client:

            async def call() -> None:
                nonlocal ended
                await client.invoke_tool("desk", "echo")
                ended += 1

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            snapshot = client.statistics()
            assert snapshot.running_calls == snapshot.audit.open_intents == 0
            assert snapshot.servers["desk"].breaker.outstanding == 0
        check_log(disk)


@pytest.mark.anyio
async def test_a_tool_whose_headers_changed_is_looked_up_and_called_again() -> None:
    disk = MemoryDisk()
    server = desk(HeaderMismatch("headers", code=-32020), answer("now"))
    async with open_client(server, disk) as client:
        assert (await client.invoke_tool("desk", "echo")).text == "now"
        assert server.lists == 2
    assert [r["reason"] for r in audited(disk, "attempt")] == ["headers"]
    server = desk(*[HeaderMismatch("headers", code=-32020)] * 2)
    async with open_client(server, disk := MemoryDisk()) as client:
        with pytest.raises(HeaderMismatch):
            await client.invoke_tool("desk", "echo")
    check_log(disk)


def test_handlers_are_functions_and_roots_are_places() -> None:
    with pytest.raises(ConfigError, match=r"handlers\.elicit"):
        Handlers(elicit="yes")  # type: ignore[arg-type]
    assert not Handlers()
    assert Handlers(tasks=True).capabilities(modern=True) == {
        "extensions": {"io.modelcontextprotocol/tasks": {}}
    }
    assert Handlers(tasks=True).capabilities(modern=False) == {}
    full = Handlers(elicit=ada, visit=ada, sample=ada, sample_tools=True, roots=["/"])
    assert full.capabilities(modern=False) == {
        "elicitation": {"form": {}, "url": {}},
        "sampling": {"tools": {}},
        "roots": {},
    }


@pytest.mark.anyio
async def test_roots_come_from_a_list_or_a_function() -> None:
    async def places() -> list[Any]:
        return [Root("file:///a", "A"), "file:///b"]

    ask = {"method": "roots/list"}
    server = Asker(question(r=ask), answer(), question(r=ask), answer())
    async with open_client(server, handlers=Handlers(roots=["/tmp"])) as client:
        await client.invoke_tool("desk", "echo")
        await client.invoke_tool("desk", "echo", handlers=Handlers(roots=places))
    first, second = (server.params[n]["inputResponses"]["r"]["roots"] for n in (1, 3))
    assert first == [{"uri": "file:///tmp", "name": "tmp"}]
    assert second == [{"uri": "file:///a", "name": "A"}, {"uri": "file:///b"}]


@pytest.mark.trio
async def test_a_person_who_took_most_of_the_time_blames_nobody_for_the_rest(
    autojump_clock: MockClock,
) -> None:
    async def slow(_: Elicitation) -> Mapping[str, Any]:
        await trio.sleep(29)
        return {"name": "Ada"}

    class Late(Asker):
        async def __call__(self, incoming: Incoming) -> Mapping[str, Any]:
            if incoming.method != "tools/list" and not self.answers:
                incoming.receive()
                await trio.sleep(5)
            return await super().__call__(incoming)

    server = Late(question(form=FORM))
    async with open_client(server, handlers=Handlers(elicit=slow)) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.phase == "answer"
        assert client.statistics().servers["desk"].breaker.failures == 0


class Stricter:
    """A policy that is stricter each time it is asked."""

    revision = "1"

    def __init__(self) -> None:
        self.asked = 0

    async def decide(self, _: Any) -> Decision:
        self.asked += 1
        hide = [{"type": "redact_result", "patterns": ["email"]}] if self.asked > 1 else []
        return Decision(allow=True, ttl_s=0, obligations=parse_obligations(hide))


@pytest.mark.anyio
async def test_an_error_is_redacted_as_the_decision_that_then_holds_demands() -> None:
    disk = MemoryDisk()
    server = Asker(
        question(form=FORM),
        RemoteError("canary@example.org", code=-32000, data={"x": "canary@example.org"}),
    )
    async with open_client(server, disk, handlers=ADA, policy=Stricter()) as client:
        with pytest.raises(RemoteError) as caught:
            await client.invoke_tool("desk", "echo")
        assert "canary" not in f"{caught.value} {caught.value.data}"
    assert "canary" not in str(audited(disk, "outcome"))


@pytest.mark.anyio
async def test_new_headers_do_not_make_a_call_forget_what_was_said_in_it() -> None:
    server = Asker(
        question(form=FORM), HeaderMismatch("headers", code=-32020), RemoteError("no", code=-1)
    )
    async with open_client(server, handlers=ADA) as client:
        with pytest.raises(RemoteError) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.attempts == 3


@pytest.mark.anyio
async def test_a_list_that_fails_in_the_middle_of_a_call_does_not_say_that_nothing_was_sent() -> (
    None
):
    disk = MemoryDisk()
    server = desk(HeaderMismatch("headers", code=-32020))
    async with open_client(server, disk) as client:
        await client.list_tools("desk")
        server.list_script = [ConnectError("no")] * 3
        with pytest.raises(ConnectError) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.delivery == "unknown"
    assert outcomes(disk) == [("unknown", "unknown")]
