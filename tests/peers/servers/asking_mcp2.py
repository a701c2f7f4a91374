"""A server made with the official SDK, 2.x, that asks: elicitation, sampling, roots, in rounds.

``asking_mcp2.py stdio`` or ``asking_mcp2.py http [--port 0]``; otherwise as
``everything_mcp2.py``, whose options it has.
"""

from __future__ import annotations

from typing import Any

import everything_mcp2
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CallToolResult,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel

server = MCPServer("asking-mcp2", version="1.0")
everything_mcp2.server = server
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


class Name(BaseModel):
    name: str


def said(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


@server.tool(structured_output=False)
async def greet(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Ask for a name, in the way of the era, and greet it."""
    if ctx.protocol_version != "2026-07-28":
        result = await ctx.elicit("Who are you?", Name)
        return said(f"hello {result.data.name}" if result.action == "accept" else result.action)
    answers = ctx.input_responses
    if answers is None:
        form = ElicitRequestFormParams(message="Who are you?", requested_schema=NAME)
        return InputRequiredResult(
            input_requests={"name": ElicitRequest(params=form)}, request_state="asked for a name"
        )
    answer = answers["name"]
    accepted = answer.action == "accept"
    return said(f"hello {answer.content['name']}" if accepted else answer.action)


@server.tool(structured_output=False)
async def wizard(pages: int, ctx: Context) -> CallToolResult | InputRequiredResult:
    """Ask page after page; the state counts them."""
    done = int(ctx.request_state or 0)
    if done >= pages:
        return said(f"{done} pages")
    schema = {"type": "object", "properties": {"page": {"type": "integer", "default": done}}}
    form = ElicitRequestFormParams(message=f"page {done}", requested_schema=schema)
    return InputRequiredResult(
        input_requests={f"page-{done}": ElicitRequest(params=form)}, request_state=str(done + 1)
    )


@server.tool(structured_output=False)
async def consult(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Ask a model, for the roots, and to visit a page, all at once."""
    answers = ctx.input_responses
    if answers is None:
        message = SamplingMessage(role="user", content=TextContent(type="text", text="how many?"))
        sample = CreateMessageRequestParams(messages=[message], max_tokens=10)
        page = ElicitRequestURLParams(
            message="look", url="https://example.org/look", elicitation_id="look-1"
        )
        return InputRequiredResult(
            input_requests={
                "model": CreateMessageRequest(params=sample),
                "page": ElicitRequest(params=page),
                "roots": ListRootsRequest(),
            }
        )
    model, page, roots = answers["model"], answers["page"], answers["roots"]
    return said(f"{model.content.text}, {page.action}, {len(roots.roots)} roots")


@server.tool(structured_output=False)
async def shout(text: str, ctx: Context) -> str:
    """Log what is said, and report progress."""
    await ctx.info(text)
    await ctx.report_progress(1, 1, text)
    return text


@server.tool(structured_output=False)
async def touch(uri: str, ctx: Context) -> str:
    """Say that a resource, and the list of tools, have changed."""
    await ctx.notify_resource_updated(uri)
    await ctx.notify_tools_changed()
    return uri


@server.resource("note://{name}")
def note(name: str) -> str:
    """A note of any name."""
    return f"the note {name}"


@server.resource("text://hello")
def hello() -> str:
    """One text."""
    return "hello, resource"


@server.prompt()
def review(code: str) -> str:
    """Ask for a review."""
    return f"review: {code}"


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Any:
    """Complete whatever is asked for."""
    return Completion(values=[f"{argument.value}{end}" for end in ("a", "b")], total=2)


if __name__ == "__main__":
    everything_mcp2.main()
