"""Events: two readers of what happens at a gateway, each of what it wants, while calls are made."""

import anyio
from trial_gateway import KEY, trial_gateway

from sark_trio import AllowAll, GatewayClient


async def main() -> None:
    async with (
        trial_gateway() as url,
        GatewayClient(gateway_url=url, api_key=KEY, policy=AllowAll(), audit="audit") as client,
        client.stream_events(event_types={"tool_invoked", "tool_completed"}) as calls,
        client.stream_events("/api/v1/servers/bank/stream", {"tool_completed"}) as of_the_bank,
    ):
        await client.invoke_tool("desk", "greet", {"name": "Ada"})
        await client.invoke_tool("bank", "balance", {"account": "cash"})

        for _ in range(4):
            event = await anext(calls)
            print(event.event_type, event.json()["server_name"], event.json()["tool_name"])
        print("at the bank:", (await anext(of_the_bank)).event_type)
        print(calls.state, "- goes on later from where it was:", calls.last_event_id is not None)


if __name__ == "__main__":
    anyio.run(main)
