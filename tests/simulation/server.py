"""Simulated servers behind HTTP, Streamable HTTP of either era: and all their failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field

from sark_trio import jsontext
from tests.simulation.desk import LISTEN, Desk, Visit
from tests.simulation.network import Wire
from tests.simulation.web import Listener, Request, Voice, chunk, reply, stream_head

__all__ = ["SimServer"]

#: The share of sessions' servers that number what they say unasked, and can say it again.
NUMBERED_SHARE = 0.5


@define(eq=False)
class _Session:
    """What a server knows of a client, until it forgets it."""

    visit: Visit = field(init=False)
    #: All that was said unasked, and the voices of the streams that are open.
    said: list[bytes] = field(factory=list)
    voices: list[Voice] = field(factory=list)
    numbered: bool = False

    def say(self, message: bytes) -> None:
        """Say it on the stream that is open, if one is."""
        self.said.append(message)
        for voice in self.voices[-1:]:
            voice.say(self.event(len(self.said)))

    def event(self, number: int) -> bytes:
        """The event of that number, as a chunk."""
        name = b"id: %d\n" % number if self.numbered else b""
        return chunk(b"%sdata: %s\n\n" % (name, self.said[number - 1]))


@define(eq=False)
class SimServer(Listener):
    """One MCP server."""

    desk: Desk = field(kw_only=True)
    numbered: bool = field(default=False, kw_only=True)
    sessions: dict[str, _Session] = field(factory=dict, init=False)
    _minted: int = field(default=0, init=False)

    def forget(self) -> None:
        """See :meth:`Listener.forget`."""
        for name in list(self.sessions):
            self._end(name)

    def _end(self, name: str) -> None:
        session = self.sessions.pop(name, None)
        if session is not None:
            session.visit.end()

    async def serve(self, wire: Wire, request: Request) -> bool:
        """See :meth:`Listener.serve`."""
        if request.method == "GET":
            return await self._hear(wire, request)
        if request.method == "DELETE":
            self._end(request.headers.get("mcp-session-id", ""))
            await reply(wire, 200, b"")
            return True
        message = jsontext.decode(request.body)
        if "id" not in message:
            await reply(wire, 202, b"")
            return True
        if message["method"] == LISTEN and self.desk.modern:
            return await self._listen(wire, message)
        return await self._answer(wire, request.headers, message)

    async def _answer(self, wire: Wire, headers: Mapping[str, str], message: Any) -> bool:
        method, session = message["method"], self.sessions.get(headers.get("mcp-session-id", ""))
        in_session = self.desk.modern or session is not None
        if not in_session and method not in {"initialize", "server/discover"}:
            await reply(wire, 404, b"")
            return True
        visit = None if session is None else session.visit
        result = await self.desk.result(method, message.get("params", {}), visit)
        if method == "tools/call" and self.chaos.strikes("dropped answers"):
            return False
        body = self.desk.encoded(message["id"], result)
        if result is None:
            await reply(wire, 200 if in_session else 400, body)
            return True
        return await self._send(wire, body, self._new_session(method))

    def _new_session(self, method: str) -> bytes:
        if method != "initialize" or self.desk.modern:
            return b""
        self._minted += 1
        name = f"{self.desk.name}-{self._minted}"
        session = self.sessions[name] = _Session(numbered=self.numbered)
        session.visit = Visit(self.desk, session.say)
        session.visit.begin()
        return b"mcp-session-id: %s\r\n" % name.encode()

    async def _send(self, wire: Wire, body: bytes, more: bytes) -> bool:
        if not self.chaos.strikes("event streams"):
            if self.chaos.strikes("cut answers"):
                await wire.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(body))
                return False
            await reply(wire, 200, body, more=more)
            return True
        events = [b": wait\n\n", b"event: message\ndata: %s\n\n" % body]
        if self.chaos.strikes("answers twice"):
            events.append(events[-1])
        if self.chaos.strikes("cut streams"):
            events.pop()
        await wire.write(stream_head(more))
        for event in events:
            await wire.write(chunk(event))
        if self.chaos.strikes("streams without an end"):
            await trio.sleep(self.chaos.seconds("streams without an end", 0, 40))
            return False
        await wire.write(b"0\r\n\r\n")
        return True

    # -- changes --------------------------------------------------------------------------------

    async def _listen(self, wire: Wire, message: Any) -> bool:
        """Since 2026-07-28: the answer to a request that listens is a stream of its own."""
        voice = Voice(wire)
        visit = Visit(self.desk, lambda said: voice.say(chunk(b"data: %s\n\n" % said)))
        visit.begin()
        voice.say(stream_head())
        visit.listen(message)
        try:
            return await self._stream(voice)
        finally:
            visit.end()

    async def _hear(self, wire: Wire, request: Request) -> bool:
        """Until 2025-11-25: the stream on which a server says what it likes."""
        session = self.sessions.get(request.headers.get("mcp-session-id", ""))
        if self.desk.modern or session is None:
            await reply(wire, 405 if self.desk.modern else 404, b"")
            return True
        voice = Voice(wire)
        voice.say(stream_head())
        last = request.headers.get("last-event-id")
        if last is not None and session.numbered:
            for number in range(int(last), len(session.said)):
                voice.say(session.event(number + 1))
        session.voices.append(voice)
        try:
            return await self._stream(voice)
        finally:
            session.voices.remove(voice)

    async def _stream(self, voice: Voice) -> bool:
        """Let *voice* speak until the client goes; or end the stream, well or badly."""
        async with trio.open_nursery() as tasks:
            tasks.start_soon(voice.run)
            with trio.move_on_after(self._patience_s()):
                await voice.wire.read(65_536)
            tasks.cancel_scope.cancel()
        if not self.chaos.strikes("streams of changes that break off"):
            await voice.wire.write(b"0\r\n\r\n")
        return False

    def _patience_s(self) -> float:
        if not self.chaos.strikes("streams of changes that end"):
            return float("inf")
        return self.chaos.seconds("streams of changes that end", 0, 20)
