"""Simulated servers of 2024-11-05: an event stream, and messages that are posted beside it."""

from __future__ import annotations

import trio
from attrs import define, field

from sark_trio import jsontext
from tests.simulation.desk import Desk, Visit
from tests.simulation.network import Wire
from tests.simulation.web import Listener, Request, Voice, chunk, reply, stream_head

__all__ = ["SseServer"]

#: First events of a stream that nobody may send anything on the word of.
_ODD_BEGINNINGS = (
    b"event: endpoint\ndata: http://elsewhere.test/\n\n",
    b"event: message\ndata: {}\n\n",
    b"event: endpoint\ndata: \n\n",
)


@define(eq=False)
class _Stream:
    """One event stream that is open, and who answers on it."""

    visit: Visit
    tasks: trio.Nursery


@define(eq=False)
class SseServer(Listener):
    """One MCP server."""

    desk: Desk = field(kw_only=True)
    streams: dict[str, _Stream] = field(factory=dict, init=False)
    _opened: int = field(default=0, init=False)

    def forget(self) -> None:
        """See :meth:`Listener.forget`."""
        self.streams.clear()

    async def serve(self, wire: Wire, request: Request) -> bool:
        """See :meth:`Listener.serve`."""
        if request.method == "GET":
            return await self._stream(wire)
        stream = self.streams.get(request.target)
        if stream is None or self.chaos.strikes("forgotten sessions"):
            await reply(wire, 405 if request.target == "/mcp" else 404, b"")
            return True
        # What is posted is answered on the stream: before the POST is, or after it, or never.
        late = self.chaos.strikes("answers after the POST's")
        if late:
            await reply(wire, 202, b"")
        stream.tasks.start_soon(self.desk.answer, jsontext.decode(request.body), stream.visit)
        if self.chaos.strikes("POSTs without an answer"):
            return False
        if not late:
            await reply(wire, 202, b"Accepted", kind=b"text/plain")
        return True

    async def _stream(self, wire: Wire) -> bool:
        self._opened += 1
        target = f"/messages/{self._opened}"
        voice = Voice(wire)
        visit = Visit(self.desk, lambda said: voice.say(self._event(said)))
        await wire.write(stream_head())
        if self.chaos.strikes("odd beginnings of streams"):
            choice = self.chaos.size("odd beginnings of streams", len(_ODD_BEGINNINGS)) - 1
            voice.say(chunk(_ODD_BEGINNINGS[choice]))
        else:
            voice.say(chunk(b"event: endpoint\ndata: %s\n\n" % target.encode()))
        visit.begin()
        try:
            async with trio.open_nursery() as tasks:
                self.streams[target] = _Stream(visit, tasks)
                tasks.start_soon(voice.run)
                with trio.move_on_after(self._patience_s()):
                    await wire.read(65_536)
                tasks.cancel_scope.cancel()
        finally:
            visit.end()
            self.streams.pop(target, None)
        return False

    def _event(self, message: bytes) -> bytes:
        before = b": wait\n\nevent: odd\ndata: x\n\n" if self.chaos.strikes("odd events") else b""
        return chunk(before + b"event: message\ndata: %s\n\n" % message)

    def _patience_s(self) -> float:
        if not self.chaos.strikes("event streams that end"):
            return float("inf")
        return self.chaos.seconds("event streams that end", 0, 20)
