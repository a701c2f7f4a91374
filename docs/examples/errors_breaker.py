"""The circuit breaker: five failures in a row, no more calls, one probe, and all is well again."""

import anyio

from sark_trio import AllowAll, BreakerOptions, CircuitOpen, GatewayClient, Memory, RetryConfig
from sark_trio.errors import ServerDisconnected


class Ledger:
    """A server that is down until it is not."""

    def __init__(self) -> None:
        self.down, self.asked = False, 0

    async def __call__(self, incoming):
        if incoming.method == "tools/list":
            return {"tools": [{"name": "balance", "inputSchema": {"type": "object"}}]}
        self.asked += 1
        incoming.receive()
        if self.down:
            raise ServerDisconnected("the ledger hung up")
        return {"content": [{"type": "text", "text": "42"}]}


async def main() -> None:
    ledger = Ledger()
    async with GatewayClient(
        servers={"ledger": Memory(ledger), "other": Memory(Ledger())},
        policy=AllowAll(),
        audit="audit",
        breaker=BreakerOptions(open_s=2, successes=1),  # usually 30 s, and 2 probes
        retry=RetryConfig(attempts=1),
    ) as client:

        async def balance(server: str = "ledger") -> str:
            try:
                return (await client.invoke_tool(server, "balance")).text
            except CircuitOpen as refusal:
                return f"{refusal.reason}: refused, {refusal.delivery}"
            except Exception as error:  # noqa: BLE001 - to show its name
                return type(error).__name__

        print(await balance())
        ledger.down = True
        print([await balance() for _ in range(5)])
        print(await balance())
        print("other server:", await balance("other"))
        print("asked so far:", ledger.asked)

        ledger.down = False
        await anyio.sleep(2.1)
        print(await balance())
        breaker = client.statistics().servers["ledger"].breaker
        print(f"{breaker.state}, {breaker.rejected} refused")


if __name__ == "__main__":
    anyio.run(main)
