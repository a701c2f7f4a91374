"""Real servers that ask, offer and announce: both eras, stdio and HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import (
    AllowAll,
    Elicitation,
    GatewayClient,
    HandlerFailed,
    Handlers,
    Http,
    LogMessage,
    Sampling,
    Stdio,
    UrlElicitation,
)
from sark_trio.errors import UsageError
from tests.support.client import audited, check_log
from tests.support.peers import http_server, stdio_server

pytestmark = pytest.mark.anyio

#: Longer than anything here takes on a loaded machine.
HUNG_S = 60.0
SUBJECTS = ["mcp2-stdio", "mcp2-http", "mcp1-stdio", "mcp1-http"]


@pytest.fixture(scope="module")
def urls() -> Iterator[Mapping[str, str]]:
    """Servers behind URLs, started once."""
    with (
        http_server("asking-mcp2") as mcp2,
        http_server("asking-mcp1") as mcp1,
        http_server("everything-node") as node,
    ):
        yield {"mcp2": mcp2, "mcp1": mcp1, "node": node}


def server_of(subject: str, urls: Mapping[str, str]) -> Http | Stdio:
    name, way = subject.split("-")
    if way == "http":
        return Http(urls[name])
    return Stdio(stdio_server(f"asking-{name}" if name != "node" else "everything-node"))


async def enter_name(asked: Elicitation) -> Mapping[str, Any]:
    assert asked.server == "peer"
    assert asked.message == "Who are you?"
    assert [one.name for one in asked.form.fields] == ["name"]
    return {"name": "Ada"}


async def agree(asked: UrlElicitation) -> str:
    assert asked.host == "example.org"
    return "accept"


async def sample(asked: Sampling) -> Mapping[str, Any]:
    text = asked.messages[0]["content"]["text"]
    return {"model": "m", "content": {"type": "text", "text": f"re: {text}"}}


@asynccontextmanager
async def client_of(
    server: Http | Stdio, folder: Path, **options: Any
) -> AsyncIterator[GatewayClient]:
    handlers = Handlers(elicit=enter_name, visit=agree, sample=sample, roots=[folder])
    with anyio.fail_after(HUNG_S):
        async with GatewayClient(
            servers={"peer": server},
            policy=AllowAll(),
            audit=folder / "audit",
            **{"handlers": handlers, **options},
        ) as client:
            yield client


async def decline(_: Elicitation) -> str:
    return "decline"


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_what_a_server_asks_is_answered(
    subject: str, urls: Mapping[str, str], tmp_path: Path
) -> None:
    modern = subject.startswith("mcp2")
    async with client_of(server_of(subject, urls), tmp_path) as client:
        assert (await client.invoke_tool("peer", "greet")).text == "hello Ada"
        declining = Handlers(elicit=decline)
        assert (await client.invoke_tool("peer", "greet", handlers=declining)).text == "decline"
        visited = "accept, " if modern else ""
        consulted = await client.invoke_tool("peer", "consult")
        assert consulted.text == f"re: how many?, {visited}1 roots"
        if not modern:  # and what is asked apart from calls
            assert (await client.invoke_tool("peer", "unasked")).text == "re: aside?"
        assert client.statistics().servers["peer"].breaker.outstanding == 0
    check_log(tmp_path / "audit")
    rounds = [r["reason"] for r in audited(tmp_path / "audit", "attempt")]
    assert rounds == (["input"] * 3 if modern else [])
    assert {r["outcome"] for r in audited(tmp_path / "audit", "outcome")} == {"ok"}


async def test_a_wizard_of_many_pages_is_one_call(urls: Mapping[str, str], tmp_path: Path) -> None:
    async def next_page(asked: Elicitation) -> str:
        return "accept"

    handlers = Handlers(elicit=next_page)
    async with client_of(Http(urls["mcp2"]), tmp_path, handlers=handlers) as client:
        result = await client.invoke_tool("peer", "wizard", {"pages": 5})
        assert result.text == "5 pages"
    (outcome,) = audited(tmp_path / "audit", "outcome")
    assert outcome["attempts"] == 6


async def test_a_handler_that_fails_ends_the_call_with_its_own_error(
    urls: Mapping[str, str], tmp_path: Path
) -> None:
    async def fail(_: Elicitation) -> Mapping[str, Any]:
        raise ValueError("a secret of the handler's")

    async with client_of(Http(urls["mcp2"]), tmp_path, handlers=Handlers(elicit=fail)) as client:
        with pytest.raises(HandlerFailed) as caught:
            await client.invoke_tool("peer", "greet")
        assert "secret" not in str(caught.value)
        assert isinstance(caught.value.__cause__, ValueError)
        assert client.statistics().servers["peer"].breaker.failures == 0


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_what_a_server_offers_and_announces(
    subject: str, urls: Mapping[str, str], tmp_path: Path
) -> None:
    heard: list[LogMessage] = []
    async with client_of(server_of(subject, urls), tmp_path) as client:
        text = {"text": "ho"}
        await client.invoke_tool("peer", "shout", text, on_log=heard.append, log_level="debug")
        (resource,) = await client.list_resources("peer")
        assert resource.uri == "text://hello"
        assert (await client.read_resource("peer", resource.uri)).text == "hello, resource"
        (prompt,) = await client.list_prompts("peer")
        assert [one.name for one in prompt.arguments] == ["code"]
        got = await client.get_prompt("peer", prompt.name, {"code": "x = 1"})
        assert got.messages[0].content["text"] == "review: x = 1"
        await client.ping("peer")
        if subject.startswith("mcp2"):
            (template,) = await client.list_resource_templates("peer")
            assert template.uri_template == "note://{name}"
            found = await client.complete("peer", "code", "x", prompt="review")
            assert found.values == ("xa", "xb")
            with pytest.raises(UsageError, match="log_level"):
                await client.set_log_level("peer", "debug")
        watched = client.subscribe("peer", resources=[resource.uri], tools_list=True)
        async with watched as changes:
            await client.list_tools("peer")
            await client.invoke_tool("peer", "touch", {"uri": resource.uri})
            kinds = {(await anext(changes)).kind, (await anext(changes)).kind}
            assert kinds == {"resource", "tools"}
        assert client.statistics().running_calls == 0
    assert [(line.level, line.data) for line in heard] == [("info", "ho")]
    methods = [r["method"] for r in audited(tmp_path / "audit", "intent")]
    assert methods[:3] == ["tools/call", "resources/read", "prompts/get"]


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_the_reference_server_offers_everything(
    way: str, urls: Mapping[str, str], tmp_path: Path
) -> None:
    async with client_of(server_of(f"node-{way}", urls), tmp_path) as client:
        resources = await client.list_resources("peer")
        assert len(resources) > 3
        read = await client.read_resource("peer", resources[0].uri)
        assert read.contents
        names = {prompt.name for prompt in await client.list_prompts("peer")}
        assert "args-prompt" in names or "complex_prompt" in names
        assert await client.list_resource_templates("peer")
        await client.set_log_level("peer", "debug")
        async with client.subscribe("peer", resources=[resources[0].uri]):
            pass
        tools = {tool.tool_name for tool in await client.list_tools("peer")}
        sampler = next(name for name in sorted(tools) if "ampl" in name)
        result = await client.invoke_tool("peer", sampler, {"prompt": "say", "maxTokens": 5})
        assert "re: " in result.text
