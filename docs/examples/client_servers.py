"""Every kind of server in one client, called at once: a URL, a program, a function, a name."""

import sys

import anyio
from trial_gateway import KEY, desk, trial_gateway

from sark_trio import AllowAll, GatewayClient, Http, Memory, RetryConfig, Stdio, ToolRule

PROGRAM = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    result = {"resultType": "complete", "content": [{"type": "text", "text": "from a program"}]}
    if message["method"] == "server/discover":
        result.update(supportedVersions=["2026-07-28"], capabilities={"tools": {}})
    if message["method"] == "tools/list":
        result["tools"] = [{"name": "greet", "inputSchema": {"type": "object"}}]
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


async def main() -> None:
    async with trial_gateway() as url:
        servers = {
            # An MCP endpoint: the gateway's own, where it calls its tools server__tool.
            "web": Http(
                f"{url}/mcp",
                headers={"X-API-Key": KEY},
                timeout_s=10,
                retry=RetryConfig(attempts=2),
                tools={"desk__greet": ToolRule(replay_safe=True)},
            ),
            "program": Stdio([sys.executable, "-c", PROGRAM]),
            "function": Memory(desk),
        }
        async with GatewayClient(
            servers=servers, gateway_url=url, api_key=KEY, policy=AllowAll(), audit="audit"
        ) as client:
            said: dict[str, str] = {}

            async def greet(server: str, tool: str = "greet") -> None:
                said[server] = (await client.invoke_tool(server, tool, {"name": server})).text

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(greet, "web", "desk__greet")
                tasks.start_soon(greet, "program")
                tasks.start_soon(greet, "function")
                tasks.start_soon(greet, "desk")  # configured nowhere: the gateway's

            used = client.statistics().servers
            for server in sorted(said):
                print(f"{server} ({used[server].transport}): {said[server]}")


if __name__ == "__main__":
    anyio.run(main)
