"""Modes: what a client may use of the ways to a server, and how it refuses the others."""

import sys
from contextlib import suppress

import anyio
from trial_gateway import KEY, trial_gateway

from sark_trio import AllowAll, GatewayClient, TransportMode, TransportNotAvailableError
from sark_trio.errors import ProcessStartError


async def operations(client: GatewayClient) -> list[str]:
    """The names of those that this client does not refuse."""

    async def follow() -> None:
        async with client.stream_events():
            pass

    async def start() -> None:
        with suppress(ProcessStartError):  # it ends at once: but it was started
            await client.connect_local_server([sys.executable, "-c", ""])

    allowed = []
    for name, operation in (("list", client.list_servers), ("events", follow), ("local", start)):
        try:
            await operation()
        except TransportNotAvailableError:
            continue  # nothing was sent or started
        allowed.append(name)
    return allowed


async def main() -> None:
    async with trial_gateway() as url:
        for mode in TransportMode:
            async with GatewayClient(
                gateway_url=url,
                api_key=KEY,
                transport_mode=mode,
                max_connections=10,
                timeout_s=10,
                policy=AllowAll(),
                audit=f"audit-{mode.value}",
            ) as client:
                print(f"{mode.value}:", ", ".join(await operations(client)))


if __name__ == "__main__":
    anyio.run(main)
