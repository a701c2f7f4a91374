"""Counters, a log, and a hook of one's own around two calls."""

import logging
import sys
from tempfile import TemporaryDirectory

import anyio

from sark_trio import AllowAll, GatewayClient, Memory
from sark_trio.errors import RemoteError
from sark_trio.telemetry.events import CallFinished, Event
from sark_trio.telemetry.logs import LogHook
from sark_trio.telemetry.prometheus import Prometheus


async def serve(incoming):
    """A server in this process: one tool, which knows one account."""
    params = incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": [{"name": "balance", "inputSchema": {"type": "object"}}]}
    if params["arguments"]["account"] != "cash":
        raise RemoteError("no such account", code=-32602)
    return {"content": [{"type": "text", "text": "42"}]}


def slowest(event: Event) -> None:
    """A hook is any callable. It is called in the middle of things, so it must not block."""
    if isinstance(event, CallFinished) and event.seconds > 1:
        print("slow:", event.call.server, event.call.tool)


async def main() -> None:
    logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(name)s")
    metrics = Prometheus()
    with TemporaryDirectory() as folder:
        async with GatewayClient(
            servers={"bank": Memory(serve)},
            policy=AllowAll(),
            audit=folder,
            hooks=[metrics, LogHook(), slowest],
        ) as client:
            await client.invoke_tool("bank", "balance", {"account": "cash"})
            try:
                await client.invoke_tool("bank", "balance", {"account": "secret"})
            except RemoteError as error:
                print("failed:", error)
    for line in metrics.text().splitlines():
        if line.startswith("sark_gateway_tool_invocations_total"):
            print(line)


if __name__ == "__main__":
    anyio.run(main)
