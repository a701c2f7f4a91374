"""A server made with the official SDK, 1.x: the session era only, over any of its transports.

``everything_mcp1.py stdio``, ``everything_mcp1.py http [--port 0] [--json] [--stateless]``, or
``sse`` or ``ws`` with ``[--port 0]``. But for stdio the first line on stdout is the URL. Run by
the interpreter of the ``mcp1`` peer.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import Any, TypedDict

import anyio
import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.fastmcp.exceptions import ToolError
from mcp.server.websocket import websocket_server
from mcp.types import ToolAnnotations

READ_ONLY = ToolAnnotations(readOnlyHint=True)
UNSAFE = ToolAnnotations(readOnlyHint=False, idempotentHint=False)

server = FastMCP("everything-mcp1", instructions="For tests.")
effects: list[str] = []


class Person(TypedDict):
    name: str
    email: str
    age: int


@server.tool(annotations=READ_ONLY)
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


@server.tool(annotations=READ_ONLY, structured_output=False)
def echo(text: str) -> str:
    """Say the same again."""
    return text


@server.tool(annotations=READ_ONLY, structured_output=False)
async def slow(seconds: float, steps: int, ctx: Context) -> str:
    """Take *seconds*, with progress after each of *steps* parts."""
    for step in range(1, steps + 1):
        await anyio.sleep(seconds / steps)
        await ctx.report_progress(step, steps, f"step {step}")
    return f"slept {seconds}"


@server.tool(annotations=READ_ONLY, structured_output=False)
def fail(message: str) -> str:
    """Answer with an error result."""
    raise ToolError(message)


@server.tool(annotations=READ_ONLY, structured_output=False)
def big(size: int) -> str:
    """Answer with *size* letters."""
    return "x" * size


@server.tool(annotations=READ_ONLY)
def person(name: str) -> Person:
    """Answer with structured content that has personal data in it."""
    return Person(name=name, email=f"{name}@example.org", age=42)


@server.tool(annotations=READ_ONLY)
def login(user: str, password: str) -> dict[str, Any]:
    """Repeat a secret parameter, so that a test sees whether it arrived."""
    return {"user": user, "password": password}


@server.tool(annotations=UNSAFE)
def effect(name: str) -> int:
    """Do something that must not be done twice; answers how often it was done."""
    effects.append(name)
    return effects.count(name)


@server.tool(annotations=UNSAFE, structured_output=False)
def die(code: int) -> str:
    """End the whole process in the middle of the call."""
    print(f"dying with {code}", file=sys.stderr, flush=True)
    os._exit(code)


@server.tool(annotations=READ_ONLY, structured_output=False)
def environment(name: str) -> str:
    """The value of an environment variable of the server process; empty if unset."""
    return os.environ.get(name, "")


async def websocket_app(scope: Any, receive: Any, send: Any) -> None:
    """The server over WebSockets, as an ASGI application."""
    if scope["type"] != "websocket":
        return
    inner = server._mcp_server
    async with websocket_server(scope, receive, send) as (reading, writing):
        await inner.run(reading, writing, inner.create_initialization_options())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=["stdio", "http", "sse", "ws"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="answer with JSON, not with SSE")
    parser.add_argument("--stateless", action="store_true", help="no sessions in the legacy era")
    options = parser.parse_args()
    if options.transport == "stdio":
        server.run("stdio")
        return
    server.settings.json_response = options.json
    server.settings.stateless_http = options.stateless
    app, scheme, path = {
        "http": (server.streamable_http_app, "http", "/mcp"),
        "sse": (server.sse_app, "http", "/sse"),
        "ws": (lambda: websocket_app, "ws", "/ws"),
    }[options.transport]
    listener = socket.create_server(("127.0.0.1", options.port), backlog=256)
    print(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)
    config = uvicorn.Config(app(), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
