"""What the client does in the scenarios of the suite that are not about authorization."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio

from sark_trio import AllowAll, Elicitation, GatewayClient, Handlers, Http

__all__ = ["SCENARIOS"]


class Run(Protocol):
    """One run of the program."""

    @property
    def context(self) -> Mapping[str, Any]:
        """What else the scenario needs."""

    def server(self) -> Http:
        """The server under test."""


async def accept(asked: Elicitation) -> Mapping[str, Any] | str:
    """A user who agrees to whatever is asked, and enters nothing that there is a default for."""
    return (
        {one.name: True for one in asked.form.fields if one.kind == "boolean"}
        if not any(one.has_default for one in asked.form.fields)
        else "accept"
    )


async def answer(_: Any) -> Mapping[str, Any]:
    """A model that always says the same."""
    return {"model": "none", "content": {"type": "text", "text": "yes"}, "stopReason": "endTurn"}


@asynccontextmanager
async def client_of(run: Run) -> AsyncIterator[GatewayClient]:
    """A client that offers all there is."""
    with tempfile.TemporaryDirectory() as folder:
        async with GatewayClient(
            servers={"server": run.server()},
            policy=AllowAll(),
            audit=Path(folder) / "audit",
            handlers=Handlers(elicit=accept, sample=answer, roots=["/tmp"]),
        ) as client:
            yield client


async def connect(run: Run) -> None:
    """Agree on a version, and look at what there is."""
    async with client_of(run) as client:
        await client.connect("server")
        await client.list_tools("server")


async def call_all(run: Run) -> None:
    """Call every tool that is offered, with numbers where it wants them."""
    async with client_of(run) as client:
        for tool in await client.list_tools("server"):
            wanted = tool.input_schema.get("properties") or {}
            await client.invoke_tool("server", tool.tool_name, dict.fromkeys(wanted, 2))


async def call_given(run: Run) -> None:
    """Make the calls that the scenario names."""
    async with client_of(run) as client:
        for call in run.context["toolCalls"]:
            await client.invoke_tool("server", call["name"], call["arguments"])


async def call_at_once(run: Run) -> None:
    """Call every tool, all at the same time."""
    async with client_of(run) as client:
        tools = await client.list_tools("server")
        async with anyio.create_task_group() as calling:
            for tool in tools:
                calling.start_soon(client.invoke_tool, "server", tool.tool_name)


async def call_text(run: Run) -> None:
    """Call every tool that is left in the list with a text."""
    async with client_of(run) as client:
        for tool in await client.list_tools("server"):
            wanted = tool.input_schema.get("properties") or {}
            await client.invoke_tool("server", tool.tool_name, dict.fromkeys(wanted, "x"))


async def use_everything(run: Run) -> None:
    """Every kind of request with a name in it."""
    async with client_of(run) as client:
        for tool in await client.list_tools("server"):
            await client.invoke_tool("server", tool.tool_name)
        for resource in await client.list_resources("server"):
            await client.read_resource("server", resource.uri)
        for prompt in await client.list_prompts("server"):
            await client.get_prompt("server", prompt.name)


async def echo_schema(run: Run) -> None:
    """Give back the schema as it was understood."""
    async with client_of(run) as client:
        schemas = {tool.tool_name: tool.input_schema for tool in await client.list_tools("server")}
        schema = schemas["json_schema_2020_12_tool"]
        await client.invoke_tool("server", "json_schema_echo", {"schema": dict(schema)})


SCENARIOS: Mapping[str, Callable[[Run], Awaitable[None]]] = {
    "elicitation-sep1034-client-defaults": call_all,
    "http-custom-headers": call_given,
    "http-invalid-tool-headers": call_text,
    "http-standard-headers": use_everything,
    "initialize": connect,
    "json-schema-2020-12-preservation": echo_schema,
    "json-schema-ref-no-deref": connect,
    "request-metadata": connect,
    "sep-2322-client-request-state": call_at_once,
    "sse-retry": call_all,
    "tools_call": call_all,
}
