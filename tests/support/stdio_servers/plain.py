"""A well-behaved MCP server (2026-07-28) on stdio, standard library only: it starts fast.

Tools: ``echo`` answers its arguments; ``hold`` sends one progress and never answers;
``crash`` ends the process.
"""

import json
import os
import sys

DISCOVERY = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "plain", "version": "1"}},
}
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "hold", "crash")]


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
        content = [{"type": "text", "text": json.dumps(params["arguments"])}]
        result = {"content": content, "structuredContent": params["arguments"]}
        send(id=request_id, result={"resultType": "complete", **result})


for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "server/discover":
        send(id=message["id"], result={"resultType": "complete", **DISCOVERY})
    elif method == "tools/list":
        send(id=message["id"], result={"resultType": "complete", "tools": TOOLS, "ttlMs": 60000})
    elif method == "tools/call":
        call(message["id"], message["params"])
