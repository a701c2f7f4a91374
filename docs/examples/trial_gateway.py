"""A gateway to try things on: two small servers in this process, behind HTTP and a key.

Whoever has a gateway already says its URL and key instead.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio

from sark_trio import AllowAll, GatewayClient, Memory, Principal
from sark_trio.gateway import create_app, serve

KEY = "a-key-of-the-example"


def tool(name, /, **properties):
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return {"name": name, "description": f"{name.capitalize()}s.", "inputSchema": schema}


async def desk(incoming):
    params = incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": [tool("greet", name={"type": "string"}), tool("wait"), tool("jump")]}
    if params["name"] == "wait":
        await anyio.sleep_forever()
    text = f"Good morning, {params['arguments'].get('name', 'you')}"
    return {"content": [{"type": "text", "text": text}]}


async def bank(incoming):
    params = incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": [tool("balance", account={"type": "string"})]}
    found = {"account": params["arguments"]["account"], "balance": 42}
    return {"content": [{"type": "text", "text": "42"}], "structuredContent": found}


@asynccontextmanager
async def trial_gateway() -> AsyncIterator[str]:
    """Serve it for the length of a block, at the URL that the block gets."""
    servers = {"desk": Memory(desk), "bank": Memory(bank)}
    async with (
        GatewayClient(servers=servers, policy=AllowAll(), audit="gateway-audit") as inside,
        anyio.create_task_group() as tasks,
    ):
        app = create_app(inside, api_keys={KEY: Principal(id="robot", kind="service")})
        yield await tasks.start(partial(serve, app, port=0))
        tasks.cancel_scope.cancel()
