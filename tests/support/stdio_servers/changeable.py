"""An MCP server (2026-07-28) on stdio whose tools are what a file says whenever it is asked.

``changeable.py TOOLS SEEN``: TOOLS holds a JSON list of definitions, and every line that comes is
appended to SEEN. ``surroundings`` answers environment and arguments, ``crash`` ends the process,
every other tool answers its arguments. Standard library only: it starts fast.
"""

import json
import os
import sys

DISCOVERY = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
TOOLS, SEEN = sys.argv[1:3]


def reply(message, **result):
    line = {"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", **result}}
    print(json.dumps(line), flush=True)


def call(message):
    name, said = message["params"]["name"], message["params"]["arguments"]
    if name == "crash":
        os._exit(7)
    if name == "surroundings":
        said = {"env": dict(os.environ), "argv": sys.argv}
    text = {"type": "text", "text": json.dumps(said)}
    reply(message, content=[text], structuredContent=said)


for line in sys.stdin:
    with open(SEEN, "a") as seen:  # noqa: PTH123 - pathlib takes longer to import than the rest
        seen.write(line)
    message = json.loads(line)
    if message.get("method") == "server/discover":
        reply(message, **DISCOVERY)
    elif message.get("method") == "tools/list":
        with open(TOOLS) as tools:  # noqa: PTH123
            reply(message, tools=json.load(tools), ttlMs=0)
    elif message.get("method") == "tools/call":
        call(message)
