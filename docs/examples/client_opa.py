"""OPA: a policy server decides on every call, and may take arguments away."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from trial_gateway import bank, desk

from sark_trio import Denied, GatewayClient, Memory, Opa, Principal

POLICY = """
package mcp.gateway

default allow := false

allow if input.server.name == "desk"
allow if "teller" in input.user.roles

# Whoever asks: no debug output.
filtered_parameters := object.remove(input.parameters, ["debug"])

reason := "tellers see accounts" if not allow
"""


@asynccontextmanager
async def opa() -> AsyncIterator[str]:
    """Start OPA for the length of a block. Yours runs already, such as at http://localhost:8181."""
    await anyio.Path("policy.rego").write_text(POLICY)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["opa", "run", "--server", f"--addr={address}", "--log-level=error", "policy.rego"]
    async with await anyio.open_process([*command, "--disable-telemetry"]) as process:
        while True:
            try:
                async with await anyio.connect_tcp(*address.split(":")):
                    break
            except OSError:
                await anyio.sleep(0.1)
        try:
            yield f"http://{address}"
        finally:
            process.terminate()


async def main() -> None:
    ann = Principal(id="ann", roles=("teller",))
    bob = Principal(id="bob")
    async with (
        opa() as url,
        GatewayClient(
            servers={"desk": Memory(desk), "bank": Memory(bank)},
            policy=Opa(url, timeout_s=5),
            audit="audit",
        ) as client,
    ):
        asked = {"account": "cash", "debug": True}
        found = await client.invoke_tool("bank", "balance", asked, principal=ann)
        print("ann:", found.structured_content)
        try:
            await client.invoke_tool("bank", "balance", asked, principal=bob)
        except Denied as denial:
            print("bob:", denial.reason)

        verdict = await client.explain("bank", "balance", asked, principal=ann)
        print("would be sent:", dict(verdict.arguments))
        for who in (ann, bob):
            tools = await client.list_tools(principal=who)
            print(who.id, "sees", sorted(f"{each.server_name}.{each.tool_name}" for each in tools))


if __name__ == "__main__":
    anyio.run(main)
