"""All that a server made with the official SDK, 2.x, can offer, for ``tests/interop``.

``interop_mcp2.py stdio``, or any other transport and option of ``everything_mcp2.py``.
"""

from __future__ import annotations

import asking_mcp2
import everything_mcp2

server = asking_mcp2.server
server.add_tool(everything_mcp2.add)
for tool in (everything_mcp2.slow, everything_mcp2.fail):
    server.add_tool(tool, structured_output=False)

if __name__ == "__main__":
    everything_mcp2.main()
