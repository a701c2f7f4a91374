"""All that a server made with the official SDK, 1.x, can offer, for ``tests/interop``.

``interop_mcp1.py stdio``, or any other transport and option of ``everything_mcp1.py``.
"""

from __future__ import annotations

from typing import Any

import asking_mcp1
import everything_mcp1
from mcp.server.fastmcp import Context
from mcp.types import Completion

server = asking_mcp1.server
server.add_tool(everything_mcp1.add)
for tool in (everything_mcp1.slow, everything_mcp1.fail):
    server.add_tool(tool, structured_output=False)


@server.tool(structured_output=False)
async def visit(ctx: Context) -> str:
    """Ask that a page be visited."""
    result = await ctx.elicit_url("Look.", "https://example.org/look", "look-1")
    return result.action


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion:
    """Complete whatever is asked for."""
    return Completion(values=[f"{argument.value}{end}" for end in ("a", "b")], total=2)


if __name__ == "__main__":
    everything_mcp1.main()
