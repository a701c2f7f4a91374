"""A server made with the official SDK, 1.x, that asks its client: the session era only.

``asking_mcp1.py stdio`` or ``asking_mcp1.py http [--port 0]``; otherwise as
``everything_mcp1.py``, whose options it has.
"""

from __future__ import annotations

import everything_mcp1
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import AnyUrl, BaseModel

server = FastMCP("asking-mcp1")
everything_mcp1.server = server


class Name(BaseModel):
    name: str


@server.tool(structured_output=False)
async def greet(ctx: Context) -> str:
    """Ask for a name and greet it."""
    result = await ctx.elicit("Who are you?", Name)
    return f"hello {result.data.name}" if result.action == "accept" else result.action


@server.tool(structured_output=False)
async def consult(ctx: Context) -> str:
    """Ask a model, and for the roots."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text="how many?"))
    answer = await ctx.session.create_message(
        [message], max_tokens=10, related_request_id=ctx.request_id
    )
    roots = await ctx.session.list_roots()
    return f"{answer.content.text}, {len(roots.roots)} roots"


@server.tool(structured_output=False)
async def unasked(ctx: Context) -> str:
    """Ask on the stream that belongs to no call."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text="aside?"))
    answer = await ctx.session.create_message([message], max_tokens=10)
    return answer.content.text


@server.tool(structured_output=False)
async def shout(text: str, ctx: Context) -> str:
    """Log what is said."""
    await ctx.info(text)
    return text


@server.tool(structured_output=False)
async def touch(uri: str, ctx: Context) -> str:
    """Say that a resource, and the list of tools, have changed."""
    await ctx.session.send_resource_updated(AnyUrl(uri))
    await ctx.session.send_tool_list_changed()
    return uri


@server._mcp_server.subscribe_resource()
async def subscribe(uri: AnyUrl) -> None:
    """Whoever wants to may hear of anything."""


@server._mcp_server.unsubscribe_resource()
async def unsubscribe(uri: AnyUrl) -> None:
    """And may stop."""


@server.resource("text://hello")
def hello() -> str:
    """One text."""
    return "hello, resource"


@server.prompt()
def review(code: str) -> str:
    """Ask for a review."""
    return f"review: {code}"


if __name__ == "__main__":
    everything_mcp1.main()
