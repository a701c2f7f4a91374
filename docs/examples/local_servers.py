"""A server that the application starts, limits, calls and ends."""

import json
import sys

import anyio

from sark_trio import AllowAll, GatewayClient, ResourceLimits

#: Any command will do; this one needs nothing installed.
SERVER = """
import json, os, sys

def reply(message, **result):
    line = {"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", **result}}
    print(json.dumps(line), flush=True)

for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "server/discover":
        reply(message, supportedVersions=["2026-07-28"], capabilities={"tools": {}})
    elif message["method"] == "tools/list":
        greet = {"name": "greet", "inputSchema": {"type": "object"}}
        reply(message, tools=[greet], ttlMs=60000)
    elif message["method"] == "tools/call":
        text = os.environ["GREETING"] + ", " + message["params"]["arguments"]["name"]
        reply(message, content=[{"type": "text", "text": text}])
"""


async def main() -> None:
    async with GatewayClient(policy=AllowAll(), audit="audit") as client:
        server = await client.connect_local_server(
            [sys.executable, "-c", SERVER],
            env={"GREETING": "Good morning"},
            server_id="greeter",
            limits=ResourceLimits(rss_bytes_max=256 * 1024 * 1024, open_files_max=64),
        )
        print(server.server_id, "runs:", server.is_running)
        result = await client.invoke_tool("greeter", "greet", {"name": "Ada"})
        print(result.text)
        listed = await server.send_request("tools/list", timeout_s=5)
        print(json.dumps([tool["name"] for tool in listed["tools"]]))
        await client.disconnect_local_server("greeter")
        print(server.server_id, "runs:", server.is_running)


if __name__ == "__main__":
    anyio.run(main)
