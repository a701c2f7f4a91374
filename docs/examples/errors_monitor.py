"""Monitoring: one place where errors are told apart, and one that is told what happens."""

from collections import Counter

import anyio

from sark_trio import (
    AllowAll,
    CircuitOpen,
    Denied,
    GatewayClient,
    GatewayError,
    Memory,
    OutcomeUnknown,
    RemoteError,
)
from sark_trio.errors import Refused, ServerDisconnected, UsageError
from sark_trio.telemetry.events import BreakerChanged, CallFinished, Event
from sark_trio.telemetry.prometheus import Prometheus

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("read", "pay")]


async def bank(incoming):
    params = incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": TOOLS}
    if params["name"] == "pay":
        raise ServerDisconnected("the bank hung up")
    if not params["arguments"]:
        raise RemoteError("which account?", code=-32602)
    return {"content": [{"type": "text", "text": "42"}]}


class Watch:
    """A hook: counts outcomes, and rings where a breaker opens."""

    def __init__(self) -> None:
        self.outcomes = Counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, CallFinished):
            self.outcomes[str(event.outcome)] += 1
        elif isinstance(event, BreakerChanged) and event.target == "open":
            print(f"ALERT: {event.server} is cut off ({event.why})")


async def ask(client: GatewayClient, tool: str, arguments: dict[str, str]) -> str:
    """What there is to do about each kind of error. The narrow ones come first."""
    try:
        return (await client.invoke_tool("bank", tool, arguments)).text
    except Denied as error:
        return f"ask whoever keeps the policy ({error.reason})"
    except CircuitOpen:  # its retry_after_s says when
        return "the server is sick: later"
    except Refused as error:
        return f"not sent, for a reason of ours ({error.reason})"
    except OutcomeUnknown:
        return "look whether it happened, before you try again"
    except RemoteError as error:
        return f"the server says: {error.message} ({error.code})"
    except UsageError as error:
        return f"mend the program: {error.message}"
    except GatewayError as error:  # the wire, the deadline, the peer: see error.delivery
        return f"{type(error).__name__} ({error.delivery})"


async def main() -> None:
    watch, metrics = Watch(), Prometheus()
    async with GatewayClient(
        servers={"bank": Memory(bank)}, policy=AllowAll(), audit="audit", hooks=[watch, metrics]
    ) as client:
        print(await ask(client, "read", {"account": "cash"}))
        print(await ask(client, "read", {}))
        print(await ask(client, "raed", {}))
        client.block("bank", "read", reason="incident 7")
        print(await ask(client, "read", {"account": "cash"}))
        for _ in range(5):
            said = await ask(client, "pay", {"account": "cash"})
        print(said)
        print(await ask(client, "pay", {"account": "cash"}))

        print(dict(watch.outcomes))
        handler = client.get_metrics().error_handler
        print("breaker:", handler["circuit_breakers"]["bank"]["state"])
    counted = [line for line in metrics.text().splitlines() if "client_errors_total{" in line]
    print("\n".join(sorted(counted)))


if __name__ == "__main__":
    anyio.run(main)
