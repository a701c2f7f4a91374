"""Programs on this machine: two at once, their messages by hand, a crash, and an end."""

import sys

import anyio

from sark_trio import AllowAll, GatewayClient, GatewayError

PROGRAM = """
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    result = {"resultType": "complete"}
    if message["method"] == "server/discover":
        result.update(supportedVersions=["2026-07-28"], capabilities={"tools": {}})
    elif message["method"] == "tools/list":
        result["tools"] = [{"name": name, "inputSchema": {"type": "object"}}
                           for name in ("whoami", "crash")]
    elif message["params"]["name"] == "crash":
        sys.exit(3)
    else:
        result["content"] = [{"type": "text", "text": os.environ["NAME"]}]
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


async def main() -> None:
    command = [sys.executable, "-c", PROGRAM]
    async with GatewayClient(policy=AllowAll(), audit="audit") as client:
        left = await client.connect_local_server(command, env={"NAME": "left"}, server_id="left")
        right = await client.connect_local_server(command, env={"NAME": "right"}, server_id="right")
        for server in (left, right):
            answer = await server.send_request("tools/call", {"name": "whoami"}, timeout_s=5)
            print(server.server_id, "says", answer["content"][0]["text"])

        try:
            await client.invoke_tool("left", "crash")
        except GatewayError as error:
            print(f"{type(error).__name__}, because of {type(error.__cause__).__name__}")
        # The next call starts it again; the other one has noticed nothing.
        print("left again:", (await client.invoke_tool("left", "whoami")).text)
        print("restarts:", [each.statistics().wire.restarts for each in (left, right)])

        await right.stop()
        print("running:", left.is_running, right.is_running)


if __name__ == "__main__":
    anyio.run(main)
