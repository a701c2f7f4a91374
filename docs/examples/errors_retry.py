"""Retries: what is sent again by itself, what never is, and who may say otherwise."""

import anyio

from sark_trio import (
    AllowAll,
    BreakerOptions,
    GatewayClient,
    GatewayError,
    Memory,
    OutcomeUnknown,
    RetryConfig,
    ToolRule,
)
from sark_trio.errors import ConnectError, ServerDisconnected

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("read", "pay")]


class Bank:
    """A server whose next answers fail as it is told."""

    def __init__(self) -> None:
        self.failures, self.asked = [], 0

    async def __call__(self, incoming):
        if incoming.method == "tools/list":
            return {"tools": TOOLS}
        self.asked += 1
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, ConnectError):
            raise failure  # nothing of the request has arrived yet
        incoming.receive()
        if failure is not None:
            raise failure
        return {"content": [{"type": "text", "text": "done"}]}


async def main() -> None:
    bank = Bank()
    async with GatewayClient(
        servers={"bank": Memory(bank, tools={"read": ToolRule(replay_safe=True)})},
        policy=AllowAll(),
        audit="audit",
        retry=RetryConfig(attempts=3, initial_delay_s=0.01),  # usually 1 s, then 2 s
        breaker=BreakerOptions(failures=100),  # so many failures would open the usual one
    ) as client:

        async def attempt(tool: str, *failures: Exception, **options: bool) -> None:
            bank.failures, bank.asked = list(failures), 0
            try:
                said = (await client.invoke_tool("bank", tool, **options)).text
            except OutcomeUnknown as error:
                said = f"nobody knows, because of {type(error.__cause__).__name__}"
            except GatewayError as error:
                said = f"{type(error).__name__} after {error.attempts} attempts"
            print(f"{tool}: {said}; asked {bank.asked} times")

        lost, refused = ServerDisconnected("gone"), ConnectError("nobody there")
        await attempt("read", lost, lost)
        await attempt("read", lost, lost, lost, lost)
        await attempt("pay", refused, refused)
        await attempt("pay", lost)
        await attempt("pay", lost, replay_safe=True)


if __name__ == "__main__":
    anyio.run(main)
