"""A well-behaved MCP server (2026-07-28) on stdio, standard library only: it starts fast.

Tools: ``echo`` answers its arguments; ``hold`` sends one progress and never answers;
``crash`` ends the process; ``told`` answers the notifications that came.
Every prompt needs input first.
"""

import json
import os
import sys

DISCOVERY = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "plain", "version": "1"}},
    "ttlMs": 0,
    "cacheScope": "private",
}
TOOLS = [
    {"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "hold", "crash", "told")
]
TOLD = []


def send(**members):
    print(json.dumps({"jsonrpc": "2.0", **members}), flush=True)


def call(request_id, params):
    if params["name"] == "hold":
        token = params["_meta"].get("progressToken", request_id)
        progress = {"progressToken": token, "progress": 1}
        send(method="notifications/progress", params=progress)
    elif params["name"] == "crash":
        os._exit(7)
    else:
        said = {"told": TOLD} if params["name"] == "told" else params["arguments"]
        result = {
            "content": [{"type": "text", "text": json.dumps(said)}],
            "structuredContent": said,
        }
        send(id=request_id, result={"resultType": "complete", **result})


for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if "id" not in message:
        TOLD.append(message)
    elif method == "server/discover":
        send(id=message["id"], result={"resultType": "complete", **DISCOVERY})
    elif method == "tools/list":
        listed = {"tools": TOOLS, "ttlMs": 60000, "cacheScope": "private"}
        send(id=message["id"], result={"resultType": "complete", **listed})
    elif method == "tools/call":
        call(message["id"], message["params"])
    elif method == "prompts/get":
        send(id=message["id"], result={"resultType": "input_required", "requestState": "x"})
