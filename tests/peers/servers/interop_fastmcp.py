"""A server made with FastMCP, for ``tests/interop``.

``interop_fastmcp.py stdio``, or ``http`` or ``sse``, which say their URL on the first line.
"""

from __future__ import annotations

import argparse
import socket

import anyio
import uvicorn
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult
from pydantic import BaseModel

server = FastMCP("interop-fastmcp", version="1.0")


class Name(BaseModel):
    name: str


@server.tool
def add(a: int, b: int) -> dict[str, int]:
    """Add two integers."""
    return {"sum": a + b}


@server.tool
def fail(message: str) -> str:
    """Answer with an error result."""
    raise ToolError(message)


@server.tool
async def slow(seconds: float, steps: int, ctx: Context) -> str:
    """Take *seconds*, with progress after each of *steps* parts."""
    for step in range(1, steps + 1):
        await anyio.sleep(seconds / steps)
        await ctx.report_progress(step, steps, f"step {step}")
    return f"slept {seconds}"


@server.tool
async def shout(text: str, ctx: Context) -> str:
    """Log what is said."""
    await ctx.info(text)
    return text


@server.tool
async def greet(ctx: Context) -> str:
    """Ask for a name and greet it, as until 2025-11-25."""
    answer = await ctx.elicit("Who are you?", Name)
    return f"hello {answer.data.name}" if answer.action == "accept" else answer.action


@server.tool
async def greet_in_rounds(ctx: Context) -> str | InputRequiredResult:
    """Ask for a name and greet it, as since 2026-07-28."""
    if ctx.input_responses is None:
        form = ElicitRequestFormParams(
            message="Who are you?", requested_schema=Name.model_json_schema()
        )
        return InputRequiredResult(input_requests={"name": ElicitRequest(params=form)})
    return f"hello {ctx.input_responses['name'].content['name']}"


@server.resource("text://hello")
def hello() -> str:
    """One text."""
    return "hello, resource"


@server.resource("note://{name}")
def note(name: str) -> str:
    """A note of any name."""
    return f"the note {name}"


@server.prompt
def review(code: str) -> str:
    """Ask for a review."""
    return f"review: {code}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=["stdio", "http", "sse"])
    options = parser.parse_args()
    if options.transport == "stdio":
        server.run("stdio", show_banner=False)
        return
    path = {"http": "/mcp", "sse": "/sse"}[options.transport]
    app = server.http_app(path=path, transport=options.transport)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
