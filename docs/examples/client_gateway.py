"""HTTP: what a gateway offers, page by page, a call, and the cache."""

import anyio
from trial_gateway import KEY, trial_gateway

from sark_trio import AllowAll, GatewayClient


async def main() -> None:
    async with (
        trial_gateway() as url,
        GatewayClient(gateway_url=url, api_key=KEY, policy=AllowAll(), audit="audit") as client,
    ):
        for server in await client.list_servers():
            print(server.server_name, "is of", server.sensitivity_level, "sensitivity")
        async for found in client.stream_tools(page_size=2):
            print(f"{found.server_name}.{found.tool_name}: {found.description}")

        result = await client.invoke_tool("bank", "balance", {"account": "cash"}, timeout_s=5)
        print(result.text, result.structured_content)

        for _ in range(9):
            await client.list_servers()
        print(client.statistics().cache.hits, "lists from the cache")


if __name__ == "__main__":
    anyio.run(main)
