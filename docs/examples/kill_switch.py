"""Switch a tool off while the client runs, and on again."""

import tempfile

import trio

from sark_trio import AllowAll, Denied, GatewayClient, Memory


async def serve(incoming):
    """A server in this process, with one tool."""
    params = incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
    return {"content": [{"type": "text", "text": params["arguments"]["text"]}]}


async def main() -> None:
    """Block, try, unblock, try again."""
    with tempfile.TemporaryDirectory() as folder:
        servers = {"desk": Memory(serve)}
        async with GatewayClient(servers=servers, policy=AllowAll(), audit=folder) as client:
            client.block("desk", "echo", reason="incident 7")
            try:
                await client.invoke_tool("desk", "echo", {"text": "hello"})
            except Denied as denied:
                print(f"{denied.message} ({denied.reason}, {denied.delivery})")
            client.unblock("desk", "echo")
            result = await client.invoke_tool("desk", "echo", {"text": "hello"})
            print("and on again:", result.text)


trio.run(main)
