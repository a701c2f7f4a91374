"""A server that asks, offers and announces, and an application that answers and listens."""

import tempfile

import anyio

from sark_trio import AllowAll, Elicitation, GatewayClient, Handlers, Memory

FORM = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "title": "Where to?"},
        "nights": {"type": "integer", "minimum": 1, "default": 2},
    },
    "required": ["city"],
}


async def travel_agency(incoming):
    """A server in this process; one behind a URL or a command would say the same."""
    params = incoming.receive()
    match incoming.method:
        case "tools/list":
            return {"tools": [{"name": "book", "inputSchema": {"type": "object"}}]}
        case "tools/call" if "inputResponses" not in params:
            asked = {"message": "Tell us more.", "requestedSchema": FORM}
            return {
                "resultType": "input_required",
                "inputRequests": {"trip": {"method": "elicitation/create", "params": asked}},
                "requestState": "only the server understands this",
            }
        case "tools/call":
            trip = params["inputResponses"]["trip"]["content"]
            text = f"{trip['nights']} nights in {trip['city']}"
            return {"content": [{"type": "text", "text": text}]}
        case "resources/list":
            return {"resources": [{"uri": "trip://1", "name": "the trip"}]}
        case "resources/read":
            return {"contents": [{"uri": params["uri"], "text": "a ticket to Lisbon"}]}
        case "subscriptions/listen":
            wanted = params["notifications"]
            acknowledged = "notifications/subscriptions/acknowledged"
            incoming.notify(acknowledged, {"notifications": wanted})
            incoming.notify("notifications/resources/updated", {"uri": "trip://1"})
            await anyio.sleep_forever()
    return None


async def fill_in(asked: Elicitation):
    """A program of yours would show a form to a person."""
    print(f"{asked.server} asks: {asked.message}")
    for field in asked.form.fields:
        print(f"  {field.title or field.name} ({field.kind})")
    return {"city": "Lisbon"}


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with GatewayClient(
            servers={"travel": Memory(travel_agency)},
            policy=AllowAll(),
            audit=folder,
            handlers=Handlers(elicit=fill_in),
        ) as client:
            result = await client.invoke_tool("travel", "book")
            print(result.text)
            for resource in await client.list_resources("travel"):
                read = await client.read_resource("travel", resource.uri)
                print(f"{resource.name}: {read.text}")
            async with client.subscribe("travel", resources=["trip://1"]) as changes:
                change = await anext(changes)
                print(f"changed: {change.subject}")


if __name__ == "__main__":
    anyio.run(main)
