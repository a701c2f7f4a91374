"""Ask a person before a call that the policy allows only with somebody's word."""

import tempfile

import anyio

from sark_trio import AuditLog, Denied, GatewayClient, Memory, Rego

POLICY = """
package mcp.gateway

default allow := false

allow if input.tool.name == "pay"

obligations contains {"type": "require_approval", "message": "moves money"} if {
    input.parameters.amount > 100
}
"""


async def bank(incoming):
    """A server in this process, with one tool."""
    params = incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": [{"name": "pay", "inputSchema": {"type": "object"}}]}
    return {"content": [{"type": "text", "text": f"paid {params['arguments']['amount']}"}]}


async def ask(request):
    """Stand in for a page, a chat or a terminal: here, Grace approves up to 500."""
    arguments = dict(request.arguments)
    print(f"{request.principal.id} wants {request.tool} {arguments}: {request.message}")
    return "grace" if request.arguments["amount"] <= 500 else None


async def main() -> None:
    """Pay little, much and too much; then see who approved what."""
    with tempfile.TemporaryDirectory() as folder:
        async with GatewayClient(
            servers={"bank": Memory(bank)},
            policy=Rego(texts={"bank.rego": POLICY}),
            audit=AuditLog(folder),
            approve=ask,
        ) as client:
            for amount in (50, 400, 4000):
                try:
                    result = await client.invoke_tool("bank", "pay", {"amount": amount})
                    print(result.text)
                except Denied as denied:
                    print(f"{denied.message} ({denied.reason}, {denied.delivery})")


anyio.run(main)
