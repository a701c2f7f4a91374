"""Health and metrics: what is asked, what is counted, and what a broken server changes."""

import json

import anyio
from trial_gateway import KEY, desk, trial_gateway

from sark_trio import AllowAll, GatewayClient, GatewayError, Memory, RetryConfig


async def main() -> None:
    async with (
        trial_gateway() as url,
        GatewayClient(
            servers={"here": Memory(desk), "gone": "http://127.0.0.1:9/mcp"},
            gateway_url=url,
            api_key=KEY,
            policy=AllowAll(),
            audit="audit",
            retry=RetryConfig(attempts=1),
        ) as client,
    ):
        await client.invoke_tool("here", "greet", {"name": "Ada"})
        for _ in range(10):
            await client.list_servers()
        for _ in range(5):
            try:
                await client.invoke_tool("gone", "anything")
            except GatewayError as error:
                last = type(error).__name__

        report = await client.health_check(timeout_s=5)
        print("all well:", report.healthy, "- gateway:", report.gateway.status)
        for name, server in report.servers.items():
            print(f"{name}: {server.status} over {server.transport}")

        metrics = client.get_metrics().to_dict()
        breakers = metrics["error_handler"]["circuit_breakers"]
        print("last error:", last, "- breaker of gone:", breakers["gone"]["state"])
        print(json.dumps({name: metrics["cache"][name] for name in ("cache_hits", "hit_rate")}))
        print("used:", ", ".join(metrics["active_transports"]))


if __name__ == "__main__":
    anyio.run(main)
