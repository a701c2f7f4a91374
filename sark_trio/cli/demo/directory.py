"""A Streamable HTTP MCP server: ``python -m sark_trio.cli.demo.directory``.

It prints its URL and serves on loopback until standard input is closed. A line on standard
input changes its health: ``sick`` answers 503 to every call, ``slow`` answers none, ``well``
answers as it should. ``count`` prints how many tool calls have reached it.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sark_trio.cli.demo.protocol import Json, Notify, Tool, answer

__all__ = ["main"]

_CARD = "4111 1111 1111 1111"


def _lookup(arguments: Json, _: Notify) -> Json:
    name = str(arguments.get("name", "")).title()
    record = {"name": name, "email": f"{name.split()[0].lower()}@example.com", "card": _CARD}
    text = f"{name} can be reached at {record['email']}; card {_CARD}."
    return {"content": [{"type": "text", "text": text}], "structuredContent": record}


TOOLS: dict[str, tuple[Json, Tool]] = {
    "lookup": (
        {
            "description": "Finds a person.",
            "inputSchema": {
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
            },
            "annotations": {"readOnlyHint": True},
        },
        _lookup,
    ),
}


class _Server(ThreadingHTTPServer):
    """The listener and its health."""

    daemon_threads = True
    health = "well"
    calls = 0
    #: Set when the server ends: what a slow call waits for instead of answering.
    ended = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """One JSON-RPC message."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        if "id" not in message:
            self._send(202, b"")
            return
        if message["method"] == "tools/call":
            self.server.calls += 1
            if self.server.health == "slow":
                self.server.ended.wait()
                return
            if self.server.health == "sick":
                self._send(503, b"out of order")
                return
        response = answer(message, "demo-directory", TOOLS, lambda _method, _params: None)
        self._send(400 if "error" in response else 200, json.dumps(response).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        """Say nothing: the demo tells the story."""


def main() -> None:
    """Serve until standard input is closed."""
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}/mcp", flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "count":
            print(server.calls, flush=True)
        else:
            server.health = word
            print(word, flush=True)
    server.ended.set()
    server.shutdown()


if __name__ == "__main__":
    main()
