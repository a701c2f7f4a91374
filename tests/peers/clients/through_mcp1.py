"""Drive an MCP endpoint with the official SDK's client, 1.x, and say as JSON what it saw.

``through_mcp1.py URL [HEADER VALUE]``. Run by the interpreter of the ``mcp1`` peer.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def drive(url: str, headers: dict[str, str]) -> dict[str, Any]:
    seen: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append([progress, total, message])

    async with (
        create_mcp_http_client(headers) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        agreed = await session.initialize()
        await session.send_ping()
        tools = await session.list_tools()
        added = await session.call_tool("peer__add", {"a": 2, "b": 3})
        slow = await session.call_tool(
            "peer__slow", {"seconds": 0.1, "steps": 3}, progress_callback=on_progress
        )
        failed = await session.call_tool("peer__fail", {"message": "as asked"})
        errors = []
        for name in ("peer__nothing", "nobody__add", "add"):
            try:
                await session.call_tool(name, {})
            except McpError as exc:
                errors.append([exc.error.code, exc.error.data["type"]])
        return {
            "version": agreed.protocolVersion,
            "tools": sorted(tool.name for tool in tools.tools),
            "added": added.structuredContent,
            "slow": slow.content[0].text,
            "progress": seen,
            "failed": [failed.isError, failed.content[0].text],
            "errors": errors,
        }


if __name__ == "__main__":
    url, *header = sys.argv[1:]
    headers = dict([header]) if header else {}
    print(json.dumps(anyio.run(drive, url, headers)))
