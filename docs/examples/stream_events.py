"""Follow what happens at a gateway. Here a few lines stand in for a real one."""

import anyio

from sark_trio import GatewayClient, GatewayError

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 100\n\n"
LOG = [
    'id: 1\nevent: tool_invoked\ndata: {"tool": "query", "user": "ann"}\n\n',
    "id: 2\nevent: health_check\ndata: {}\n\n",
    'id: 3\nevent: tool_completed\ndata: {"tool": "query", "user": "ann"}\n\n',
    'id: 4\nevent: tool_invoked\ndata: {"tool": "drop", "user": "eve"}\n\n',
]


async def gateway(connection: anyio.abc.SocketStream) -> None:
    """Tells two events at a time, then hangs up; knows nothing after the fourth."""
    async with connection:
        request = await connection.receive()
        start = int(request.partition(b"Last-Event-ID: ")[2].partition(b"\r")[0] or 0)
        if start == len(LOG):
            await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            await connection.send(HEAD + "".join(LOG[start : start + 2]).encode())


async def main() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, gateway)
        async with GatewayClient(gateway_url=f"http://127.0.0.1:{port}", audit="audit") as client:
            await follow(client)
        tasks.cancel_scope.cancel()


async def follow(client: GatewayClient) -> None:
    wanted = {"tool_invoked", "tool_completed"}
    try:
        async with client.stream_events(event_types=wanted) as events:
            async for event in events:
                about = event.json()
                print(event.event_id, event.event_type, about["tool"], "by", about["user"])
    except GatewayError as error:
        print(type(error).__name__, error.status)
    print(events.statistics().connections_made, "connections; last event", events.last_event_id)


if __name__ == "__main__":
    anyio.run(main)
