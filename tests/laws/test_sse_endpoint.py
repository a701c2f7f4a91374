"""The event stream of 2024-11-05: first an address of the server's own, and only one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.errors import ProtocolError
from sark_trio.net.url import ServerURL, parse_url
from sark_trio.transports._sse_events import EventReader

BASE = parse_url("http://server.example/a/sse")
LIMIT = 4096

TYPES = st.sampled_from(["endpoint", "message", "", "ping", "Endpoint"])
PLACES = st.sampled_from(
    ["/m", "m?x=1", "http://server.example/m", "http://evil.example/m", "//evil.example/m", "a b"]
)
EVENTS = st.lists(st.tuples(TYPES, PLACES), max_size=6)
CUTS = st.lists(st.integers(0, 400), max_size=6)


def written(events: list[tuple[str, str]]) -> bytes:
    return b"".join(
        (f"event: {kind}\n" if kind else "").encode() + f"data: {data}\n\n".encode()
        for kind, data in events
    )


def read(stream: bytes, cuts: list[int]) -> tuple[list[bytes], ServerURL | None, bool]:
    """The messages that came out, the endpoint, and whether the stream was refused."""
    reader = EventReader(BASE, LIMIT)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    messages: list[bytes] = []
    try:
        for start, end in pairwise(edges):
            messages.extend(reader.feed(stream[start:end]))  # as far as it gets
    except ProtocolError:
        return messages, reader.endpoint, True
    return messages, reader.endpoint, False


def _is_ours(place: str) -> bool:
    return "evil" not in place and " " not in place


def expected(events: list[tuple[str, str]]) -> tuple[list[bytes], bool, bool]:
    """What a reader must make of *events*: messages, whether it is open, whether it is refused."""
    messages: list[bytes] = []
    for number, (kind, data) in enumerate(events):
        if number == 0:
            if kind != "endpoint" or not _is_ours(data):
                return messages, False, True
        elif kind == "endpoint":
            return messages, True, True
        elif kind in {"message", ""}:
            messages.append(data.encode())
    return messages, bool(events), False


@pytest.mark.law("S11")
@given(events=EVENTS, cuts=CUTS)
def test_s11_the_endpoint_comes_first_and_once(events: list[tuple[str, str]], cuts: list[int]):
    """Nothing is handed on before the first event names an endpoint, nor after a second one."""
    messages, endpoint, refused = read(written(events), cuts)
    wanted, is_open, is_refused = expected(events)
    assert (messages, endpoint is not None, refused) == (wanted, is_open, is_refused)


@pytest.mark.law("S12")
@given(
    place=st.one_of(
        PLACES,
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=40),
        st.from_regex(r"(https?:)?//[a-z@.:\[\]0-9]{1,30}(/[!-~]{0,9})?", fullmatch=True),
    )
)
def test_s12_messages_go_to_the_origin_of_the_stream_only(place: str) -> None:
    """An endpoint of another origin is refused, however it is written."""
    _, endpoint, refused = read(written([("endpoint", place)]), [])
    assert (endpoint is None) == refused
    assert endpoint is None or endpoint.origin == BASE.origin
