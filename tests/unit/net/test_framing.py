"""Heads: what is written, what is read, and that pieces make no difference."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.errors import InvalidArguments, MessageTooLarge, ProtocolError
from sark_trio.net.framing import (
    HEAD_BYTES_MAX,
    ChunkWaste,
    HeadReader,
    Request,
    ResponseHead,
    check_framing,
    check_head,
    request_head,
)

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Y: \xe4 z\r\n\r\n"


def test_a_request_is_written_as_the_standard_has_it() -> None:
    headers = ((b"Host", b"a"), (b"X", b"y z"))
    assert request_head(Request(b"GET", b"/?q", headers)) == (
        b"GET /?q HTTP/1.1\r\nHost: a\r\nX: y z\r\n\r\n"
    )
    assert b"Content-Length: 0\r\n" in request_head(Request(b"POST", b"/", headers))
    assert b"Content-Length: 2\r\n" in request_head(Request(b"PUT", b"/", headers, b"ab"))


@pytest.mark.security(21)
@given(st.binary(max_size=20), st.binary(max_size=20), st.binary(max_size=20))
def test_no_part_of_a_request_makes_a_line_of_its_own(
    target: bytes, name: bytes, value: bytes
) -> None:
    request = Request(b"GET", b"/" + target, ((b"Host", b"h"), (name, value)))
    with contextlib.suppress(InvalidArguments):
        lines = request_head(request).split(b"\r\n")
        assert len(lines) == 5
        assert lines[0] == b"GET /" + target + b" HTTP/1.1"
        assert lines[2] == name + b": " + value


@given(st.lists(st.integers(0, len(GOOD)), max_size=8))
def test_a_head_is_found_however_it_is_cut(cuts: list[int]) -> None:
    reader = HeadReader()
    found = [reader.feed(GOOD[start:end]) for start, end in pairwise([0, *sorted(cuts), len(GOOD)])]
    complete = sorted(cuts).index(len(GOOD)) if len(GOOD) in cuts else len(cuts)
    assert found[complete] == GOOD
    assert found[:complete] == [None] * complete


def test_what_follows_the_head_is_handed_out_once() -> None:
    reader = HeadReader()
    assert reader.feed(GOOD + b"abc") == GOOD
    assert reader
    assert reader.take_rest() == b"abc"
    assert not reader
    assert reader.take_rest() == b""


@pytest.mark.parametrize(
    "start", [b"\n", b"x", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\r\na: b\n", b"HTTQ", b"\r\n"]
)
def test_a_head_that_can_only_go_wrong_is_refused_before_its_end(start: bytes) -> None:
    with pytest.raises(ProtocolError):
        HeadReader().feed(start)
    reader = HeadReader()
    with pytest.raises(ProtocolError):
        for byte in start:
            reader.feed(bytes([byte]))


def test_a_head_is_bounded_also_when_it_comes_in_one_read() -> None:
    filler = b"x: " + b"y" * 1000 + b"\r\n"
    big = b"HTTP/1.1 200 OK\r\n" + filler * 70
    for data in (big, big + b"\r\n"):
        with pytest.raises(MessageTooLarge) as caught:
            HeadReader().feed(data)
        assert caught.value.limit_bytes == HEAD_BYTES_MAX


@pytest.mark.security(21)
def test_framing_that_two_readers_see_differently_is_refused() -> None:
    both = [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]
    for version, headers in ((b"1.1", both), (b"1.0", both[1:])):
        with pytest.raises(ProtocolError):
            check_framing(version, headers)
    check_framing(b"1.1", both[:1])
    check_framing(b"1.1", both[1:])
    check_head(GOOD)


def test_headers_of_one_name_are_joined() -> None:
    head = ResponseHead(200, ((b"a", b"1"), (b"content-type", b"Text/HTML; x"), (b"a", b"2")))
    assert head.get(b"a") == "1, 2"
    assert head.get(b"b") is None
    assert head.content_type == "text/html"
    assert ResponseHead(200, ()).content_type == ""


def test_waste_is_counted_against_data() -> None:
    waste = ChunkWaste()
    for _ in range(10_000):  # single bytes in chunks of their own are usual enough
        waste.on_read(6)
        waste.on_data(1, new_chunk=True)
    with pytest.raises(ProtocolError):
        for _ in range(200):
            waste.on_read(1000)
            waste.on_data(1, new_chunk=True)
