"""Drive a gateway on its standard streams with the official SDK's client, 2.x.

``stdio_mcp2.py MODE COMMAND...``; MODE is ``auto`` or ``legacy``. Prints as JSON what it saw. Run
by the interpreter of ``mcp2``.
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


async def drive(mode: str, command: list[str]) -> dict[str, Any]:
    seen: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append([progress, total])

    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    async with Client(stdio_client(server), mode=mode) as client:
        tools = await client.list_tools()
        added = await client.call_tool("peer__add", {"a": 2, "b": 3})
        await client.call_tool(
            "peer__slow", {"seconds": 0.1, "steps": 3}, progress_callback=on_progress
        )
        failed = await client.call_tool("peer__fail", {"message": "as asked"})
        try:
            await client.call_tool("peer__nothing", {})
        except MCPError as exc:
            error = [exc.error.code, exc.error.data["type"]]
        return {
            "version": client.protocol_version,
            "tools": sorted(tool.name for tool in tools.tools),
            "added": added.structured_content,
            "progress": seen,
            "failed": failed.is_error,
            "error": error,
        }


if __name__ == "__main__":
    print(json.dumps(anyio.run(drive, sys.argv[1], sys.argv[2:])))
