"""Deadline, retries and a breaker around a function that is no MCP tool."""

import anyio

from sark_trio import BreakerOptions, CircuitOpen, GatewayErrorHandler, RetryConfig


class Ledger:
    """A service that is down until it is not."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def balance(self, account: str) -> str:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the ledger is down")
        return f"{account}: 42"


async def main() -> None:
    handler = GatewayErrorHandler(
        breaker=BreakerOptions(failures=3, open_s=0.2),
        retry=RetryConfig(attempts=2, initial_delay_s=0.01),
        timeout_s=5,
    )
    ledger = Ledger(failures=4)
    print(await handler.call(Ledger(failures=1).balance, "cash"))
    for _ in range(2):
        try:
            await handler.call(ledger.balance, "cash")
        except ConnectionError as error:
            print("failed:", error)
    try:
        await handler.call(ledger.balance, "cash")
    except CircuitOpen as refusal:
        print("refused:", refusal.reason)
    print("breaker:", handler.metrics()["circuit_breaker"]["state"])


if __name__ == "__main__":
    anyio.run(main)
