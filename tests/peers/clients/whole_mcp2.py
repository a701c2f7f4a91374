"""Use all of MCP through a gateway with the official SDK's client, 2.x, and say what it saw.

``whole_mcp2.py MODE URL`` or ``whole_mcp2.py MODE COMMAND...``; MODE is ``auto`` or ``legacy``. The
gateway stands in front of ``asking_mcp2.py``, under the name ``asks``. ``MODE URL plain`` leaves
out what that server cannot do in revisions before 2026-07-28. Run by the interpreter of the
``mcp2`` peer.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import anyio
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
    PromptReference,
    ResourceTemplateReference,
    Root,
    TextContent,
)

#: For changes to come through; a client that waits so long has missed them.
CHANGE_S = 30.0


class Person:
    """Who is asked, and hears of things."""

    def __init__(self) -> None:
        self.logs: list[Any] = []
        self.progress: list[Any] = []
        self.changed: set[str] = set()

    async def elicit(self, context: Any, params: Any) -> ElicitResult:
        if params.mode == "url":
            return ElicitResult(action="accept")
        return ElicitResult(action="accept", content={"name": "Ada"})

    async def sample(self, context: Any, params: Any) -> CreateMessageResult:
        said = TextContent(type="text", text="seven")
        return CreateMessageResult(role="assistant", content=said, model="none")

    async def roots(self, context: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri="file:///a"), Root(uri="file:///b")])

    async def log(self, params: Any) -> None:
        self.logs.append([params.level, params.data])

    async def hear(self, message: Any) -> None:
        method = getattr(message, "method", "")
        if method.endswith(("list_changed", "updated")):
            self.changed.add(method)

    async def on_progress(self, progress: float, total: float | None, message: Any) -> None:
        self.progress.append([progress, message])


async def drive(mode: str, where: list[str]) -> dict[str, Any]:
    person = Person()
    transport: Any = streamable_http_client(where[0])
    if not where[0].startswith("http"):
        host = StdioServerParameters(command=where[0], args=where[1:], env=dict(os.environ))
        transport = stdio_client(host)
    async with Client(
        transport,
        mode=mode,
        elicitation_callback=person.elicit,
        sampling_callback=person.sample,
        list_roots_callback=person.roots,
        logging_callback=person.log,
        message_handler=person.hear,
        log_level="info" if mode == "auto" else None,
    ) as client:
        plain = where[1:] == ["plain"]
        return {**await look(client), **await call(client, person, mode, plain=plain)}


async def look(client: Client) -> dict[str, Any]:
    """What there is, and what stands in it."""
    resources = (await client.list_resources()).resources
    templates = (await client.list_resource_templates()).resource_templates
    uri = next(str(one.uri) for one in resources)
    template = next(one.uri_template for one in templates)
    read = (await client.read_resource(uri)).contents[0]
    note = (await client.read_resource(template.replace("{name}", "one"))).contents[0]
    prompts = (await client.list_prompts()).prompts
    got = await client.get_prompt(prompts[0].name, {"code": "x"})
    refs = [
        PromptReference(type="ref/prompt", name=prompts[0].name),
        ResourceTemplateReference(type="ref/resource", uri=template),
    ]
    done = [await client.complete(ref, {"name": "code", "value": "ab"}) for ref in refs]
    errors = []
    for name in ("text://nothing", f"{uri}/nothing"):
        try:
            await client.read_resource(name)
        except MCPError as exc:
            errors.append(exc.error.code)
    return {
        "version": client.protocol_version,
        "resources": [uri, template],
        "read": [str(read.uri), read.text, note.text],
        "prompts": [prompts[0].name, got.messages[0].content.text],
        "completed": [one.completion.values for one in done],
        "errors": errors,
    }


async def call(client: Client, person: Person, mode: str, *, plain: bool) -> dict[str, Any]:
    """Calls that ask, tell, and change something."""
    tools = [tool.name for tool in (await client.list_tools()).tools]
    greet, consult, shout, touch = (
        next(name for name in tools if name.endswith(wanted))
        for wanted in ("greet", "consult", "shout", "touch")
    )
    greeted = await client.call_tool(greet, {})
    await client.call_tool(shout, {"text": "hey"}, progress_callback=person.on_progress)
    asked = None
    if not plain:
        asked = (await client.call_tool(consult, {})).content[0].text
        uri = next(str(one.uri) for one in (await client.list_resources()).resources)
        with anyio.fail_after(CHANGE_S):
            await changes(client, person, mode, touch, uri)
    return {
        "greeted": greeted.content[0].text,
        "asked": asked,
        "progress": person.progress,
        "logs": person.logs,
        "changed": sorted(person.changed),
    }


async def changes(client: Client, person: Person, mode: str, touch: str, uri: str) -> None:
    """Touch a resource, and the list of tools, until that is heard."""
    if mode == "legacy":
        await client.subscribe_resource(uri)
        while len(person.changed) < 2:
            await client.call_tool(touch, {"uri": "text://hello"})
        await client.unsubscribe_resource(uri)
        return
    async with client.listen(tools_list_changed=True, resource_subscriptions=[uri]) as events:
        person.changed = seen = set()
        await client.call_tool(touch, {"uri": "text://hello"})
        async for event in events:
            seen.add(type(event).__name__)
            if seen >= {"ResourceUpdated", "ToolsListChanged"}:
                return


if __name__ == "__main__":
    print(json.dumps(anyio.run(drive, sys.argv[1], sys.argv[2:])))
