"""Resources, prompts and completions, governed: what is decided is what is sent and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mcp_types
import pytest
from mcp_types import methods

from sark_trio import Decision, GatewayClient, Prompt, Resource
from sark_trio.errors import (
    CallTimeout,
    ConnectError,
    Denied,
    InvalidArguments,
    PolicyUnavailable,
    ProtocolError,
    RemoteError,
    UsageError,
)
from sark_trio.governance.obligations import parse_obligations
from sark_trio.mcp import meta
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, check_log, hang, open_client, outcomes
from tests.support.http_servers import Peer, serve

pytestmark = pytest.mark.anyio
CONTENTS = {"contents": [{"uri": "file:///a", "text": "mail ada@example.org"}]}
MESSAGES = {"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}]}


class Offering:
    """A server with scripted answers by method; a list of them is used up one by one."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {name.replace("_", "/"): value for name, value in answers.items()}
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, incoming: Incoming) -> Mapping[str, Any]:
        found = self.answers[incoming.method]
        answer = found.pop(0) if isinstance(found, list) else found
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            result: Mapping[str, Any] = await answer(incoming)
            return result
        params = incoming.receive()
        self.seen.append((incoming.method, params))
        return answer  # type: ignore[no-any-return]


class Rule:
    """A policy that is a function of action and parameters."""

    revision = "1"

    def __init__(self, decide: Any) -> None:
        self._decide = decide
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def decide(self, question: Any) -> Decision:
        query = question.query
        self.asked.append((query.action, query.arguments))
        decided = self._decide(query)
        return decided if isinstance(decided, Decision) else Decision(allow=decided)


def wire(method: str, params: Mapping[str, Any]) -> Any:
    """*params* as the official models read them, in both eras."""
    about = meta.request_meta(
        "2026-07-28", client_info={"name": "c", "version": "1"}, client_capabilities={}
    )
    methods.validate_client_request(method, "2025-11-25", dict(params))
    return methods.parse_client_request(
        method, "2026-07-28", meta.with_meta(dict(params), about)
    ).params


async def test_a_resource_is_read_as_policy_lets_it_be_seen() -> None:
    disk, server = MemoryDisk(), Offering(resources_read=CONTENTS)
    redact = parse_obligations([{"type": "redact_result", "patterns": ["email"]}])
    policy = Rule(lambda _: Decision(allow=True, obligations=redact))
    async with open_client(server, disk, policy=policy) as client:
        result = await client.read_resource("desk", "file:///a", context={"why": "test"})
    assert result.text == "mail [redacted:email]"
    assert policy.asked == [("gateway:resource:read", {"uri": "file:///a"})]
    assert isinstance(wire(*server.seen[0]), mcp_types.ReadResourceRequestParams)
    check_log(disk)
    (intent,) = audited(disk, "intent")
    assert (intent["method"], intent.get("tool")) == ("resources/read", None)
    assert intent["args"] == {"uri": "file:///a"}
    assert outcomes(disk) == [("ok", "answered")]


async def test_what_is_denied_is_not_sent_and_recorded() -> None:
    disk, server = MemoryDisk(), Offering(resources_read=CONTENTS, prompts_get=MESSAGES)
    async with open_client(server, disk, policy=Rule(lambda _: False)) as client:
        with pytest.raises(Denied, match="gateway:resource:read"):
            await client.read_resource("desk", "file:///a")
        with pytest.raises(Denied):
            await client.get_prompt("desk", "p")
    assert server.seen == []
    assert [r["method"] for r in audited(disk, "denied")] == ["resources/read", "prompts/get"]
    async with open_client(server, policy=None) as client:
        with pytest.raises(PolicyUnavailable):
            await client.read_resource("desk", "file:///a")


async def test_policy_may_take_arguments_away_but_not_what_a_request_is_about() -> None:
    def narrow(query: Any) -> Decision:
        if query.action == "gateway:prompt:get":
            return Decision(allow=True, arguments={"name": "p", "arguments": {"a": "1"}})
        return Decision(allow=True, arguments={})

    disk, server = MemoryDisk(), Offering(resources_read=CONTENTS, prompts_get=MESSAGES)
    async with open_client(server, disk, policy=Rule(narrow)) as client:
        await client.get_prompt("desk", "p", {"a": "1", "secret": "2"})
        with pytest.raises(Denied) as caught:
            await client.read_resource("desk", "file:///a")
    assert caught.value.reason == "subject_changed"
    assert server.seen == [("prompts/get", {"name": "p", "arguments": {"a": "1"}})]
    check_log(disk)
    assert len(audited(disk, "denied")) == 1


async def test_prompts_and_completions_are_the_official_requests() -> None:
    done = {"completion": {"values": ["python"], "hasMore": False}}
    server = Offering(prompts_get=MESSAGES, completion_complete=done)
    async with open_client(server) as client:
        got = await client.get_prompt("desk", "review", {"code": "x"})
        assert got.messages[0].content["text"] == "hi"
        found = await client.complete("desk", "lang", "py", prompt="review", given={"x": "1"})
        assert found.values == ("python",)
        await client.complete("desk", "path", "a", template="file:///{path}")
    for method, params in server.seen:
        wire(method, params)
    assert server.seen[1][1]["context"] == {"arguments": {"x": "1"}}
    assert server.seen[2][1]["ref"] == {"type": "ref/resource", "uri": "file:///{path}"}


async def test_lists_hold_what_policy_lets_one_see_page_by_page() -> None:
    pages = [
        {
            "resources": [{"uri": "a", "name": "A"}, {"uri": "secret", "name": "S"}, 7],
            "nextCursor": "",
        },
        {"resources": [], "nextCursor": "2"},
        {"resources": [{"uri": "b", "name": "B"}]},
    ]
    server = Offering(
        resources_list=pages,
        resources_templates_list={"resourceTemplates": [{"uriTemplate": "{x}", "name": "X"}]},
        prompts_list={"prompts": [{"name": "p"}, {"name": "secret"}]},
    )
    policy = Rule(lambda q: "secret" not in q.arguments.values())
    async with open_client(server, policy=policy) as client:
        found = [one async for one in client.stream_resources("desk")]
        assert [one.uri for one in found] == ["a", "b"]
        assert all(isinstance(one, Resource) for one in found)
        (template,) = await client.list_resource_templates("desk")
        assert template.uri_template == "{x}"
        (prompt,) = await client.list_prompts("desk")
        assert isinstance(prompt, Prompt)
    assert [params for method, params in server.seen if method == "resources/list"] == [
        {},
        {"cursor": ""},
        {"cursor": "2"},
    ]
    assert {action for action, _ in policy.asked} == {
        "gateway:resource:discover",
        "gateway:prompt:discover",
    }


async def test_a_list_that_goes_round_in_circles_is_left() -> None:
    page = {"resources": [], "nextCursor": "again"}
    async with open_client(Offering(resources_list=page)) as client:
        with pytest.raises(ProtocolError, match="repeats"):
            await client.list_resources("desk")


async def test_a_list_is_retried_and_a_policy_that_cannot_decide_is_no_empty_list() -> None:
    def broken(_: Any) -> Decision:
        raise RuntimeError

    page = {"prompts": [{"name": "p"}]}
    server = Offering(prompts_list=page)
    async with open_client(server, policy=Rule(broken)) as client:
        with pytest.raises(PolicyUnavailable):
            await client.list_prompts("desk")


@pytest.mark.trio
async def test_a_list_that_hangs_ends(autojump_clock: Any) -> None:
    async with open_client(Offering(prompts_list=hang)) as client:
        with pytest.raises(CallTimeout):
            await client.list_prompts("desk")
        assert client.statistics().running_calls == 0


@pytest.mark.trio
async def test_reads_are_safe_to_repeat(autojump_clock: Any) -> None:
    disk = MemoryDisk()
    server = Offering(resources_read=[ConnectError("no"), CONTENTS])
    async with open_client(server, disk) as client:
        assert (await client.read_resource("desk", "file:///a")).contents
    assert [r["reason"] for r in audited(disk, "attempt")] == ["retry"]


async def test_errors_are_typed_and_answers_checked() -> None:
    missing = RemoteError("gone", code=-32602)
    server = Offering(resources_read=[missing, {"contents": 7}], prompts_get={"messages": 7})
    disk = MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(RemoteError):
            await client.read_resource("desk", "file:///a")
        with pytest.raises(ProtocolError, match="malformed"):
            await client.read_resource("desk", "file:///a")
        with pytest.raises(ProtocolError, match="malformed"):
            await client.get_prompt("desk", "p")
    check_log(disk)


async def mistakes(client: GatewayClient) -> None:
    with pytest.raises(InvalidArguments, match="uri"):
        await client.read_resource("desk", "")
    with pytest.raises(InvalidArguments, match="strings"):
        await client.get_prompt("desk", "p", {"a": 1})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="either"):
        await client.complete("desk", "a", "b")
    with pytest.raises(UsageError, match="timeout_s"):
        await client.read_resource("desk", "x", timeout_s=-1)
    with pytest.raises(UsageError, match="log level"):
        await client.set_log_level("desk", "loud")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2026-07-28"):
        await client.set_log_level("desk", "debug")


async def test_mistakes_are_named_before_anything_is_sent() -> None:
    server = Offering()
    async with open_client(server) as client:
        await mistakes(client)
    assert server.seen == []


async def test_a_ping_is_what_the_era_has() -> None:
    server = Offering(server_discover={"supportedVersions": ["2026-07-28"]})
    async with open_client(server) as client:
        await client.ping("desk")
    assert server.seen == [("server/discover", {})]


@pytest.mark.parametrize("how", ["ping", "log level"])
async def test_connecting_is_within_the_deadline_of_what_it_is_for(how: str) -> None:
    async def never(peer: Peer) -> None:
        await peer.wait_closed()

    async with serve(never) as server, open_client(Offering()) as client:
        await client.add_server("hung", server.url)
        with pytest.raises(CallTimeout, match=r"no connection within 0\.05 s") as caught:
            if how == "ping":
                await client.ping("hung", timeout_s=0.05)
            else:
                await client.set_log_level("hung", "debug", timeout_s=0.05)
        assert (caught.value.delivery, caught.value.phase) == ("not_sent", "connect")
