"""A call that policy allows, one that it denies, and the record of both."""

from pathlib import Path

import anyio

from sark_trio import AuditLog, Denied, GatewayClient, Principal, Rego, Stdio

HERE = Path(__file__).parent


async def main() -> None:
    ann = Principal(id="ann", kind="user", roles=("analyst",))
    async with GatewayClient(
        servers={"clock": Stdio(["mcp-server-time"])},
        policy=Rego(HERE / "policy.rego"),
        audit=AuditLog("audit/"),
    ) as client:
        arguments = {"timezone": "Europe/Zurich"}
        await client.invoke_tool("clock", "get_current_time", arguments, principal=ann)
        print("allowed:", arguments["timezone"])
        try:
            arguments = {"timezone": "America/Lima"}
            await client.invoke_tool("clock", "get_current_time", arguments, principal=ann)
        except Denied as denial:
            print("denied:", type(denial).__name__)


if __name__ == "__main__":
    anyio.run(main)
