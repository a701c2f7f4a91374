"""How an event stream is sent: a slow line, a reader that goes, a gateway that closes."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sark_trio.gateway.asgi import Message, Request
from sark_trio.gateway.events import Feed
from sark_trio.gateway.streaming import frame, stream
from sark_trio.gateway.streams import _Events
from sark_trio.governance.principal import Principal

pytestmark = pytest.mark.anyio


class Line:
    """The server's side of a connection that takes *room* pieces, and then waits to be read."""

    def __init__(self, room: int = 1_000) -> None:
        self.sent: list[Message] = []
        self.room = anyio.Semaphore(room)
        self.gone = anyio.Event()

    async def send(self, message: Message) -> None:
        await self.room.acquire()
        self.sent.append(message)

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def request(self) -> Request:
        return Request.of({"method": "GET", "path": "/", "headers": []}, self.receive, 100)

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")

    @property
    def ended(self) -> bool:
        return not self.sent[-1].get("more_body", False)


def source(feed: Feed) -> _Events:
    nobody: Any = None
    return _Events(
        client=nobody,
        feed=feed,
        principal=Principal(id="ann"),
        at=feed.next,
        sees_all=True,
        server=None,
        types=frozenset(),
    )


def test_a_frame_is_one_event() -> None:
    assert frame("a", b"{}") == b"event: a\ndata: {}\n\n"
    assert frame("a", {"x": "\n\r"}, "7") == b'id: 7\nevent: a\ndata: {"x":"\\n\\r"}\n\n'


async def test_a_slow_reader_holds_no_more_than_the_ring() -> None:
    """Ten thousand events pass a reader that takes none: it is cut, and nothing has grown."""
    feed, line = Feed("run", events_max=10), Line(room=3)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream, line.request, line.send, source(feed), anyio.Event())
            await anyio.wait_all_tasks_blocked()
            feed.publish("tick", {"n": 0})  # takes the last room
            await anyio.wait_all_tasks_blocked()
            feed.publish("tick", {"n": 1})  # waits in the middle of sending
            await anyio.wait_all_tasks_blocked()
            for number in range(10_000):
                feed.publish("tick", {"n": number})
            assert len(feed._ring) == 10
            assert len(line.sent) == 3
            for _ in range(10):
                line.room.release()
    assert line.ended
    assert line.body.count(b"event: tick") == 2
    assert line.body.endswith(
        b'event: stream_cut\ndata: {"reason":"too_slow","last_event_id":"run-1"}\n\n'
    )


async def test_a_reader_that_goes_ends_it_and_gets_no_more() -> None:
    feed, line = Feed("run"), Line()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream, line.request, line.send, source(feed), anyio.Event())
            await anyio.wait_all_tasks_blocked()
            line.gone.set()
    assert line.body == b"retry: 3000\n\n"
    assert not line.ended


async def test_a_gateway_that_closes_says_so() -> None:
    feed, line, closing = Feed("run"), Line(), anyio.Event()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream, line.request, line.send, source(feed), closing)
            await anyio.wait_all_tasks_blocked()
            closing.set()
    assert line.ended
    assert line.body.endswith(b'event: stream_closed\ndata: {"reason":"closing"}\n\n')
