"""An MCP server on stdio that misbehaves on request. Standard library only: it starts fast.

Flags: ``--era modern|legacy|silent|dies|garbage`` (how it takes the probe), ``--ignore-eof``,
``--ignore-term``, ``--stderr TEXT``.
What a ``tools/call`` does is its tool name: a function of this module named ``tool_NAME``.
"""

# pathlib takes longer to import than all the rest.
# ruff: noqa: PTH109, PTH110, PTH208
import argparse
import base64
import json
import os
import resource
import signal
import subprocess
import sys

MODERN = "2026-07-28"
HELD = []  # ids of calls that got no answer
SEEN = []  # every message received, in order


def send(message):
    write(json.dumps(message).encode() + b"\n")


def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def answer(request_id, result):
    send({"jsonrpc": "2.0", "id": request_id, "result": {"resultType": "complete", **result}})


def notify(method, **params):
    send({"jsonrpc": "2.0", "method": method, "params": params})


def tool_echo(_id, arguments):
    return arguments


def tool_hold(request_id, _arguments):
    HELD.append(request_id)


def tool_held(_id, _arguments):
    return {"held": HELD}


def tool_release(_id, _arguments):
    """Answer every call that is held, newest first, with its own id."""
    while HELD:
        late = HELD.pop()
        answer(late, {"late": late})
    return {}


def tool_seen(_id, _arguments):
    return {"seen": SEEN}


def tool_pid(_id, _arguments):
    return {"pid": os.getpid(), "pgid": os.getpgid(0), "sid": os.getsid(0)}


def tool_surroundings(_id, _arguments):
    return {
        "env": dict(os.environ),
        "fds": sorted(
            int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
        ),
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "as": resource.getrlimit(resource.RLIMIT_AS),
        "nproc": resource.getrlimit(resource.RLIMIT_NPROC),
    }


def tool_error(request_id, arguments):
    send({"jsonrpc": "2.0", "id": request_id, "error": arguments})


def tool_raw(_id, arguments):
    """Write these bytes, then answer as one should."""
    data = base64.b64decode(arguments["base64"])
    for _ in range(arguments.get("times", 1)):
        write(data)
    write(base64.b64decode(arguments.get("then", "")))
    return {}


def tool_as_raw(request_id, arguments):
    """Answer with these bytes; ``@ID`` in them stands for the request's id."""
    template = base64.b64decode(arguments["base64"])
    write(template.replace(b"@ID", json.dumps(request_id).encode()))


def tool_progress(request_id, arguments):
    token = SEEN[-1]["params"]["_meta"]["progressToken"]
    for step in range(arguments["steps"]):
        notify("notifications/progress", progressToken=token, progress=step + 1)
    if arguments.get("hold"):
        HELD.append(request_id)
        return None
    return {}


def tool_notify(_id, arguments):
    notify(arguments["method"], **arguments.get("params", {}))
    return {}


def tool_ask(request_id, arguments):
    """Send a request to the client; the answer to it is this call's result."""
    for count in range(arguments.get("times", 1)):
        send({"jsonrpc": "2.0", "id": f"ask-{count}", "method": arguments["method"], "params": {}})
    HELD.append(request_id)


def tool_exit(request_id, arguments):
    if arguments.get("stderr"):
        os.write(2, arguments["stderr"].encode())
    if arguments.get("answer_first"):
        answer(request_id, {"last": True})
    os._exit(arguments.get("code", 0))


def tool_close_stdout(_id, _arguments):
    os.close(1)


def tool_close_stdin(_id, _arguments):
    os.close(0)
    answer(_id, {})
    signal.pause()


def tool_stop_reading(request_id, _arguments):
    answer(request_id, {})
    signal.pause()


def tool_stderr(_id, arguments):
    block = b"e" * 65536
    for _ in range(arguments["mebibytes"] * 16):
        os.write(2, block)
    return {}


def tool_line(_id, arguments):
    """A line of so many bytes that is no message, and then the answer."""
    block = b"x" * 65536
    for _ in range(arguments["mebibytes"] * 16):
        os.write(1, block)
    os.write(1, b"\n")
    return {}


def tool_spawn(_id, arguments):
    """Leave a grandchild that holds our pipes; its pid is the answer."""
    ready_read, ready_write = os.pipe()
    child = subprocess.Popen(
        [
            sys.executable, "-S", "-I", "-c",
            f"import os, time; os.write({ready_write}, b'x'); time.sleep(600)",
        ],
        pass_fds=(ready_write,),
        start_new_session=arguments.get("escape", False),
    )  # fmt: skip
    os.read(ready_read, 1)
    child.returncode = 0  # never waited for: nobody is meant to
    return {"pid": child.pid}


def tool_eat(_id, arguments):
    """Use so much memory, for good; in a child, if that is what was asked for."""
    child = os.fork() if arguments.get("in_child") else 0
    if child:
        return {"pid": child}
    HELD.append(b"x" * (arguments["mebibytes"] << 20))
    while True:
        signal.pause()


def tool_spin(_id, _arguments):
    while True:
        pass


def discover(request_id, options):
    if options.era == "modern":
        answer(
            request_id,
            {
                "supportedVersions": [MODERN],
                "capabilities": {"tools": {}},
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "scripted"}},
                "ttlMs": 0,
                "cacheScope": "private",
            },
        )
    elif options.era == "legacy":
        send({"jsonrpc": "2.0", "id": request_id, "error": {"code": -32601, "message": "no"}})
    elif options.era == "garbage":
        send({"jsonrpc": "2.0", "id": request_id, "result": [], "error": 1})
    elif options.era == "dies":
        os.write(2, b"what is server/discover?\n")
        os._exit(7)


def initialize(request_id, params):
    answer(
        request_id,
        {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"},
        },
    )


def handle(message, options):
    method, request_id = message.get("method"), message.get("id")
    if method is None:
        SEEN[-1] = {"answer": message}
        if HELD and str(request_id).startswith("ask-"):
            answer(HELD.pop(), {"reply": message})
    elif request_id is None:
        pass
    elif method == "server/discover":
        discover(request_id, options)
    elif method == "initialize":
        initialize(request_id, message["params"])
    elif method == "subscriptions/listen":
        HELD.append(request_id)
    elif method == "ping":
        answer(request_id, {})
    elif method == "tools/call":
        result = globals()["tool_" + message["params"]["name"]](
            request_id, message["params"].get("arguments", {})
        )
        if result is not None:
            answer(request_id, result)
    else:
        error = {"code": -32601, "message": f"Unknown method {method}"}
        send({"jsonrpc": "2.0", "id": request_id, "error": error})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--era", default="modern")
    parser.add_argument("--ignore-eof", action="store_true")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--stderr", default="")
    options = parser.parse_args()
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(2, options.stderr.encode())
    for line in sys.stdin.buffer:
        message = json.loads(line)
        SEEN.append(message)
        handle(message, options)
    while options.ignore_eof:
        signal.pause()


main()
