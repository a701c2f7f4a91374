"""Reading the stream of the old HTTP+SSE transport."""

from __future__ import annotations

import pytest

from sark_trio.errors import MessageTooLarge, ProtocolError
from sark_trio.net.url import parse_url
from sark_trio.transports._sse_events import EventReader

URL = parse_url("https://h.example/sse?key=s3cret")


def reader(limit: int = 1000) -> EventReader:
    return EventReader(URL, limit)


def test_the_first_event_says_where_to_post_to() -> None:
    events = reader()
    assert "waiting" in repr(events)
    assert list(events.feed(b": comment\n\nevent: endpoint\nda")) == []
    assert events.endpoint is None
    assert list(events.feed(b"ta: /m?s=1\n\n")) == []
    assert str(events.endpoint) == "https://h.example/m?s=1"
    assert "open" in repr(events)
    assert "s3cret" not in repr(events)


def test_messages_are_handed_out_and_strangers_counted() -> None:
    events = reader()
    stream = (
        b"event: endpoint\ndata: /m\n\n"
        b"data: {}\n\n"
        b"event: heartbeat\ndata: x\n\n"
        b"data:\n\n"
        b"event: message\ndata: []\n\n"
    )
    assert list(events.feed(stream)) == [b"{}", b"[]"]
    assert events.strangers == 1


def test_a_message_before_a_breach_is_still_handed_out() -> None:
    events = reader()
    stream = b"event: endpoint\ndata: /m\n\ndata: {}\n\nevent: endpoint\ndata: /n\n\n"
    found = events.feed(stream)
    assert next(found) == b"{}"
    with pytest.raises(ProtocolError, match="second endpoint"):
        next(found)
    assert str(events.endpoint) == "https://h.example/m"


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"data: {}\n\n", "begins with 'message', not with 'endpoint'"),
        (b"event: a\x1b[31m\ndata: {}\n\n", r"'a\\x1b\[31m'"),
        (b"event: endpoint\ndata: http://h.example/m\n\n", "refused: it leads from https"),
        (b"event: endpoint\ndata: javascript:x\n\n", "endpoint event refused"),
        (b"event: endpoint\ndata: /a\ndata: /b\n\n", "refused: it is no URL"),
    ],
)
def test_any_other_beginning_is_refused(first: bytes, words: str) -> None:
    events = reader()
    with pytest.raises(ProtocolError, match=words):
        list(events.feed(first))
    assert events.endpoint is None


def test_an_event_has_a_limit() -> None:
    events = reader(20)
    list(events.feed(b"event: endpoint\n"))
    with pytest.raises(MessageTooLarge) as caught:
        list(events.feed(b"data: " + b"x" * 50))
    assert caught.value.limit_bytes == 20
