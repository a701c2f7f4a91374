"""Drive an MCP endpoint with the official SDK's client, 2.x, and say as JSON what it saw.

``through_mcp2.py URL MODE [HEADER VALUE]``; MODE is ``auto`` or ``legacy``. Run by the
interpreter of the ``mcp2`` peer.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def drive(url: str, mode: str, headers: dict[str, str]) -> dict[str, Any]:
    seen: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append([progress, total, message])

    async with create_mcp_http_client(headers) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode) as client:
            tools = await client.list_tools()
            added = await client.call_tool("peer__add", {"a": 2, "b": 3})
            slow = await client.call_tool(
                "peer__slow", {"seconds": 0.1, "steps": 3}, progress_callback=on_progress
            )
            failed = await client.call_tool("peer__fail", {"message": "as asked"})
            errors = []
            for name in ("peer__nothing", "nobody__add", "add"):
                try:
                    await client.call_tool(name, {})
                except MCPError as exc:
                    errors.append([exc.error.code, exc.error.data["type"]])
            return {
                "version": client.protocol_version,
                "tools": sorted(tool.name for tool in tools.tools),
                "added": added.structured_content,
                "slow": slow.content[0].text,
                "progress": seen,
                "failed": [failed.is_error, failed.content[0].text],
                "errors": errors,
            }


if __name__ == "__main__":
    url, mode, *header = sys.argv[1:]
    headers = dict([header]) if header else {}
    print(json.dumps(anyio.run(drive, url, mode, headers)))
