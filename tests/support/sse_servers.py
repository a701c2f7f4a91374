"""Servers of 2024-11-05 (HTTP+SSE) on real loopback sockets, as scripts for ``http_servers``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from attrs import define, field

from tests.support.http_servers import SSE_HEAD, Peer, Received, chunk, event, response

__all__ = ["OldServer", "Talk", "answer"]

ACCEPTED = response(status="202 Accepted", content_type="")


@define(eq=False)
class Talk:
    """One event stream of the server's, and what is posted beside it."""

    stream: Peer
    get: Received
    number: int = 1
    #: Every message that was posted, decoded.
    messages: list[Any] = field(factory=list)
    posts: list[Received] = field(factory=list)
    writing: anyio.Lock = field(factory=anyio.Lock)

    async def send(self, message: Any) -> None:
        async with self.writing:
            await self.stream.send(event(message, kind="message"))

    async def result(self, request: Any, value: Any = None) -> None:
        result = {"content": []} if value is None else value
        await self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})


Handler = Callable[[Talk, Any], Awaitable[None]]


async def answer(talk: Talk, message: Any) -> None:
    """A handler that answers."""
    await talk.result(message)


@define(eq=False)
class OldServer:
    """A server of 2024-11-05; its ``script`` is for every connection.

    :param handler: told each request but ``initialize``, and each answer, once it is accepted.
    :param endpoint: data of the first event, for the n-th stream.
    """

    handler: Handler = answer
    endpoint: Callable[[int], str] = field(default=lambda number: f"/messages?session={number}")
    version: str = "2024-11-05"
    talks: list[Talk] = field(factory=list)
    #: Answers a POST instead of accepting it.
    refuse: Callable[[Any], bytes | None] = field(default=lambda _: None)

    async def script(self, peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.method == "GET":
                await self.open_stream(peer, received)
                return
            await self.take(peer, received)

    async def open_stream(self, peer: Peer, received: Received) -> None:
        talk = Talk(peer, received, len(self.talks) + 1)
        self.talks.append(talk)
        await peer.send(SSE_HEAD + chunk(b": hello\n\n"))
        await peer.send(event(self.endpoint(talk.number), kind="endpoint"))
        await peer.wait_closed()

    async def take(self, peer: Peer, received: Received) -> None:
        if not self.talks or received.target == "/mcp":
            await peer.send(response(status="405 Method Not Allowed", content_type=""))
            return
        talk, message = self.talks[-1], received.json
        talk.posts.append(received)
        talk.messages.append(message)
        refusal = self.refuse(message)
        await peer.send(ACCEPTED if refusal is None else refusal)
        if refusal is None and "id" in message:
            if message.get("method") == "initialize":
                about = {"protocolVersion": self.version, "capabilities": {}, "serverInfo": {}}
                await talk.result(message, about)
            else:
                await self.handler(talk, message)
