"""Time limits: of a call, of a tool, of any function; and a cancellation, which is no error."""

import anyio

from sark_trio import (
    AllowAll,
    CallTimeout,
    GatewayClient,
    Memory,
    RetryConfig,
    ToolRule,
    with_retry,
    with_timeout,
)


async def oracle(incoming):
    incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": [{"name": "think", "inputSchema": {"type": "object"}}]}
    return await anyio.sleep_forever()


async def main() -> None:
    async with GatewayClient(
        servers={"oracle": Memory(oracle, tools={"think": ToolRule(timeout_s=1)})},
        policy=AllowAll(),
        audit="audit",
        timeout_s=10,
    ) as client:
        for options in ({}, {"timeout_s": 0.5}, {"timeout_s": 0}):
            try:
                await client.invoke_tool("oracle", "think", **options)
            except CallTimeout as error:  # a TimeoutError, too
                print(options, "waited for the", error.phase, f"({error.delivery})")

        with anyio.move_on_after(0.5) as scope:
            await client.invoke_tool("oracle", "think")
        print("cancelled:", scope.cancelled_caught, "- running:", client.statistics().running_calls)

    try:
        await with_timeout(anyio.sleep, 60, timeout_s=0.1)
    except TimeoutError as error:
        print(error)

    failures = [ConnectionError("no route")]

    async def flaky() -> str:
        if failures:
            raise failures.pop()
        return "with_retry: there"

    print(await with_retry(flaky, config=RetryConfig(attempts=2, initial_delay_s=0.01)))


if __name__ == "__main__":
    anyio.run(main)
