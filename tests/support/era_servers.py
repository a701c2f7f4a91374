"""Servers of one era or of both, as scripts: what each answers, and how it is served.

Run as a program, ``era_servers.py ERA`` is such a server on stdin and stdout; *ERA* may be a file
that names it, read once at the start. Standard library only, but for what serves it elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

__all__ = ["LEGACY", "MODERN", "Era", "command", "reply", "web_script", "web_socket_script"]

Era = Literal["modern", "legacy", "dual"]

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSION = "io.modelcontextprotocol/protocolVersion"
TOOLS = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
CALLED = {"content": [{"type": "text", "text": "done"}]}


def reply(message: dict[str, Any], era: str) -> dict[str, Any] | None:
    """What a server of *era* answers to *message*: MCP 2026-07-28, "Compatibility Matrix"."""
    if "id" not in message or "method" not in message:
        return None
    body = _answer(message["method"], message.get("params", {}), era)
    return {"jsonrpc": "2.0", "id": message["id"], **body}


def _answer(method: str, params: dict[str, Any], era: str) -> dict[str, Any]:
    results = {"tools/list": TOOLS, "tools/call": CALLED, "ping": {}}
    named = params.get("_meta", {}).get(VERSION)
    if named is not None and era != "legacy":
        if named != MODERN:
            data = {"supported": [MODERN], "requested": named}
            return {"error": {"code": -32022, "message": "unsupported", "data": data}}
        about = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}
        result = {**results, "server/discover": about}.get(method)
        if result is not None:
            return {"result": {"resultType": "complete", **result}}
    elif era == "modern":
        # Whom else could a legacy client's user ask what is wrong?
        message = f"a request says its version in _meta; {MODERN} is spoken here"
        return {"error": {"code": -32020, "message": message}}
    else:
        about = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": {}}
        result = {**results, "initialize": about}.get(method)
        if result is not None:
            return {"result": result}
    return {"error": {"code": -32601, "message": f"unknown method {method}"}}


def command(era: str | Path) -> list[str]:
    """Its command line."""
    return [sys.executable, "-S", "-I", __file__, str(era)]


def web_script(era: Any) -> Any:
    """It behind a URL, as a script for ``http_servers``; *era* is called for each request."""
    from tests.support.http_servers import Peer, Received, response

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.method != "POST":
                # Nothing else is ever needed, in either era.
                await peer.send(response(status="405 Method Not Allowed", content_type=""))
                continue
            refusal = _refusal(received, era())
            if refusal:
                await peer.send(refusal)
                continue
            answer = reply(received.json, era())
            if answer is None:
                await peer.send(response(status="202 Accepted", content_type=""))
                continue
            status = "400 Bad Request" if "error" in answer else "200 OK"
            more = {"Mcp_Session_Id": f"of-{era()}"} if received.rpc == "initialize" else {}
            await peer.send(response(json.dumps(answer).encode(), status, **more))

    def _refusal(received: Received, present: str) -> bytes:
        """What is answered to a request of the older era that is in no session."""
        named = received.headers.get("mcp-session-id")
        modern = received.headers.get("mcp-protocol-version") == MODERN
        if present == "modern" or (present == "dual" and modern) or received.rpc == "initialize":
            return b""
        if named is not None:
            known = named == f"of-{present}"
            return b"" if known else response(status="404 Not Found", content_type="")
        # The words of the official SDK, 1.x.
        error = {"code": -32600, "message": "Bad Request: Missing session ID"}
        message = {"jsonrpc": "2.0", "id": received.id, "error": error}
        return response(json.dumps(message).encode(), "400 Bad Request")

    return script


def web_socket_script(era: Any, seen: list[str]) -> Any:
    """It on a WebSocket; the methods that arrive are added to *seen*."""
    from tests.support.http_servers import Peer
    from tests.support.websocket_servers import accepted

    async def script(peer: Peer) -> None:
        socket, present = await accepted(peer), era()
        while True:
            message = await socket.receive()
            seen.append(message.get("method", ""))
            answer = reply(message, present)
            if answer is not None:
                await socket.send(answer)

    return script


def main() -> None:
    named = Path(sys.argv[1])
    era = named.read_text() if named.is_file() else sys.argv[1]
    for line in sys.stdin.buffer:
        answer = reply(json.loads(line), era)
        if answer is not None:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
