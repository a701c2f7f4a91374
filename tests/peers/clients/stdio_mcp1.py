"""Drive a gateway on its standard streams with the official SDK's client, 1.x.

``stdio_mcp1.py COMMAND...``; prints as JSON what it saw. Run by the interpreter of ``mcp1``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import anyio
from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client


async def drive(command: list[str]) -> dict[str, Any]:
    seen: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append([progress, total])

    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    async with (
        stdio_client(server) as (read, write),
        ClientSession(read, write) as session,
    ):
        agreed = await session.initialize()
        await session.send_ping()
        tools = await session.list_tools()
        added = await session.call_tool("peer__add", {"a": 2, "b": 3})
        await session.call_tool(
            "peer__slow", {"seconds": 0.1, "steps": 3}, progress_callback=on_progress
        )
        failed = await session.call_tool("peer__fail", {"message": "as asked"})
        try:
            await session.call_tool("peer__nothing", {})
        except McpError as exc:
            error = [exc.error.code, exc.error.data["type"]]
        return {
            "version": agreed.protocolVersion,
            "tools": sorted(tool.name for tool in tools.tools),
            "added": added.structuredContent,
            "progress": seen,
            "failed": failed.isError,
            "error": error,
        }


if __name__ == "__main__":
    print(json.dumps(anyio.run(drive, sys.argv[1:])))
