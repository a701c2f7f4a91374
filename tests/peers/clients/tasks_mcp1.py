"""Call tools as tasks with the official SDK's client, 1.x, and say as JSON what it saw.

``tasks_mcp1.py URL HEADER VALUE``. Run by the interpreter of the ``mcp1`` peer.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import CallToolResult


async def drive(url: str, headers: dict[str, str]) -> dict[str, Any]:
    async with (
        create_mcp_http_client(headers) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        agreed = await session.initialize()
        tasks = session.experimental
        (slow,) = [t for t in (await session.list_tools()).tools if t.name == "peer__slow"]
        begun = await tasks.call_tool_as_task("peer__slow", {"seconds": 0.1, "steps": 3})
        statuses = [one.status async for one in tasks.poll_task(begun.task.taskId)]
        result = await tasks.get_task_result(begun.task.taskId, CallToolResult)
        endless = await tasks.call_tool_as_task("peer__slow", {"seconds": 600, "steps": 1})
        cancelled = await tasks.cancel_task(endless.task.taskId)
        errors = []
        for task_id in (endless.task.taskId, "nothing"):
            try:
                await tasks.cancel_task(task_id)
            except McpError as exc:
                errors.append(exc.error.code)
        return {
            "version": agreed.protocolVersion,
            "offered": agreed.capabilities.tasks.requests.tools.call is not None,
            "support": slow.execution.taskSupport,
            "statuses": sorted(set(statuses)),
            "result": result.content[0].text,
            "cancelled": cancelled.status,
            "errors": errors,
        }


if __name__ == "__main__":
    url, *header = sys.argv[1:]
    print(json.dumps(anyio.run(drive, url, dict([header]))))
