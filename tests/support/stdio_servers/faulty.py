"""An MCP server (2026-07-28) on stdio that does as the arguments of a call say.

See ``tests/support/faulty.py``. The file named by its argument has a byte for each call; one
that a second argument names, a line with each call's ``number``.
Standard library only: it starts fast.
"""

# pathlib takes longer to import than all the rest.
import json
import os
import signal
import sys

TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
DISCOVERY = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "faulty", "version": "1"}},
    "ttlMs": 0,
    "cacheScope": "private",
}
HELD = [None]


def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def send(**members):
    write(json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n")


def answer(message, **result):
    send(id=message["id"], result={"resultType": "complete", **result})


def call(message, log, numbers):
    os.write(log, b".")
    params = message["params"]
    arguments = params["arguments"]
    if numbers is not None and "number" in arguments:
        os.write(numbers, b"%d\n" % arguments["number"])
    token = params["_meta"].get("progressToken")
    names = {b"@ID": message["id"], b"@TOKEN": token, b"@HELD": HELD[0]}
    for text, times in arguments.get("say", ()):
        data = text.encode("latin-1") + b"\n"
        for name, value in names.items():
            data = data.replace(name, json.dumps(value).encode())
        for number in range(times):
            write(data.replace(b"@N", b"%d" % (number + 1)))
    end = arguments.get("end", "answer")
    if end.endswith(" first"):
        end = end.split()[0] if os.fstat(log).st_size == 1 else "answer"
    if end == "cut":
        write(b'{"jsonrpc":"2.0","id":')
    if end == "held":
        end = "answer" if os.access(sys.argv[1] + "-freed", os.F_OK) else "hang"
    if end.startswith("raw"):
        for text, times in arguments["raw"]:
            for _ in range(times):
                write(text.encode("latin-1"))
    if end in {"cut", "die"}:
        os._exit(9)
    if end == "close stdout":
        os.close(1)
    if end == "close stdin":
        os.close(0)
        signal.pause()
    if end == "stderr":
        os.write(2, b"x" * 65_535 + b"\n")
        end = "answer"
    if end == "hang":
        HELD[0] = message["id"]
    if end == "answer":
        answer(message, content=[{"type": "text", "text": str(arguments.get("n", ""))}])


def appending(path):
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def main():
    log = appending(sys.argv[1])
    numbers = appending(sys.argv[2]) if len(sys.argv) > 2 else None
    for line in sys.stdin.buffer:
        message = json.loads(line)
        method = message.get("method")
        if "id" not in message or method is None:
            continue
        if method == "server/discover":
            answer(message, **DISCOVERY)
        elif method == "tools/list":
            answer(message, tools=TOOLS, ttlMs=60_000, cacheScope="private")
        elif method == "tools/call":
            call(message, log, numbers)
        elif method == "ping":
            answer(message)


if __name__ == "__main__":
    main()
