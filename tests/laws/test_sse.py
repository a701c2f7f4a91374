"""The laws of the event stream parser (machines.sse)."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any, Self

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sark_trio.machines.sse import SSEEvent, SSEParser, TooLarge
from tests.models.sse import interpret
from tests.support.traces import traces

BOM = b"\xef\xbb\xbf"
#: Words that meet each rule of the standard often, and pieces that break them.
WORDS = [
    *(b"\r", b"\n", b"\r\n", b"\n\n", b":", b" ", b"\0", b"d", b"a", b"7", b"\xff", BOM),
    *(b"data", b"data:", b"data: ", b"event:", b"event: e", b"id", b"id: 1", b"id:\0"),
    *(b"retry:", b"retry: 15", b"retry: 1_0", "retry: \u0663".encode(), b": ping\n", b"dat"),
    *("é".encode(), "\u2028".encode(), b"\xe2\x80", b"\xf0\x9f\x98", b"\xed\xa0\x80"),
]
STREAMS = traces(st.one_of(st.sampled_from(WORDS), st.binary(max_size=3)), most=24).map(b"".join)
LIMITS = st.fixed_dictionaries(
    {
        "line_bytes_max": st.integers(1, 24),
        "event_bytes_max": st.integers(1, 24),
        "id_bytes_max": st.integers(1, 4),
    }
)
SMALL = {"line_bytes_max": 8, "event_bytes_max": 14, "id_bytes_max": 2}


def parse(chunks: list[bytes], **limits: int) -> tuple[Any, ...]:
    parser = SSEParser(**limits)
    out: list[SSEEvent | TooLarge] = []
    for chunk in chunks:
        out += parser.feed(chunk)
        parser.check_invariants()
    return out, parser.last_event_id, parser.retry_ms, parser.finished


def splits(stream: bytes) -> Iterator[list[bytes]]:
    """Every way to cut the stream: 2 ** (n - 1)."""
    for cuts in range(2 ** max(0, len(stream) - 1)):
        chunks, start = [], 0
        for position in range(1, len(stream)):
            if cuts >> (position - 1) & 1:
                chunks.append(stream[start:position])
                start = position
        yield [*chunks, stream[start:]]


@pytest.mark.law("S1")
@pytest.mark.parametrize(
    "stream",
    [
        b"data:a\r\n\r\ndata\r\r",
        BOM + b"data: \xc3\xa9\r\n\r\n",
        b"id:\0\nid\ndata\n\n\r",
        b"\r\ndata:\ndata:\n\n",
        b"retry:07\rdata\n\n\n",
        b"event:e\ndata\r\n\r\n",
    ],
)
@pytest.mark.parametrize("limits", [{}, SMALL])
def test_s01_every_cut_of_sixteen_bytes_gives_the_same(
    stream: bytes, limits: dict[str, int]
) -> None:
    """However a stream of up to 16 bytes is cut into chunks, the same events come out."""
    assert len(stream) <= 16
    whole = parse([stream], **limits)
    for chunks in splits(stream):
        assert parse(chunks, **limits) == whole


@pytest.mark.law("S1", "S4")
def test_s01_every_short_stream_gives_the_same() -> None:
    """Every stream of up to 4 letters, after a data line or not, however cut, as the model."""
    letters = [b"\r", b"\n", b":", b" ", b"\0", b"d", b"data", b"id", b"\xef", b"\xbb", b"\xbf"]
    for length in range(5):
        for word in product(letters, repeat=length):
            stream = b"".join(word)
            for full in (stream, b"data" + stream + b"\n\n"):
                whole = parse([full])
                assert as_model(whole) == interpret(full)
                assert parse([full[i : i + 1] for i in range(len(full))]) == whole
                assert parse([full[:-2], full[-2:]]) == whole


@pytest.mark.law("S1")
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 80), max_size=8), limits=LIMITS)
@example(stream=b"data: aaaaaaaaaaaaaaaaaaaa", cuts=[3], limits=SMALL)
def test_s01_cuts_change_nothing(stream: bytes, cuts: list[int], limits: dict[str, int]) -> None:
    """However a stream is cut into chunks, the same events and the same limit come out."""
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in pairwise(edges)]
    single = [stream[i : i + 1] for i in range(len(stream))]
    for options in ({}, limits):
        whole = parse([stream], **options)
        assert parse(chunks, **options) == whole
        assert parse([b"", *single, b""], **options) == whole


@pytest.mark.law("S2")
@given(chunks=st.lists(st.one_of(st.binary(max_size=40), STREAMS), max_size=8), limits=LIMITS)
def test_s02_no_bytes_are_an_error_but_too_many(
    chunks: list[bytes], limits: dict[str, int]
) -> None:
    """Any bytes give events; only a limit ends a stream, last of all and for good."""
    parser = SSEParser(**limits)
    out: list[SSEEvent | TooLarge] = []
    for chunk in chunks:
        out += parser.feed(chunk)
    ends = [item for item in out if isinstance(item, TooLarge)]
    assert len(ends) == parser.finished
    if ends:
        assert out[-1] is ends[0]
        assert ends[0].limit_bytes == limits[f"{ends[0].what}_bytes_max"]
        assert parser.feed(b"data: more\n\n") == []
        assert parser.held_bytes == 0
    for item in out:
        if isinstance(item, SSEEvent):
            assert item.text.encode() == item.data
            assert len(item.data) <= 3 * limits["event_bytes_max"]


class CountingTail(bytearray):
    """A line at hand that counts the bytes moved into and out of it."""

    moved = 0

    def __iadd__(self, other: Any) -> Self:
        self.moved += len(other)
        self.extend(other)
        return self

    def __bytes__(self) -> bytes:
        self.moved += len(self)
        return bytes(memoryview(self))


@pytest.mark.law("S3")
@pytest.mark.parametrize("size", [1, 3, 64, 4096])
@pytest.mark.parametrize(
    "unit",
    [b"data: " + b"x" * 500 + b"\n\n", b"\n", b":\n", b"data\n", b"id:1\r\n", b"x" * 999 + b"\r"],
)
def test_s03_work_is_linear_in_bytes(unit: bytes, size: int) -> None:
    """Statements run, and bytes copied, are at most a constant times the bytes fed."""
    costs = []
    for total in (4_000, 16_000):
        stream = (unit * (total // len(unit) + 1))[:total]
        parser = SSEParser()
        parser._tail = tail = CountingTail()
        statements = 0

        def trace(_frame: Any, event: str, _arg: Any) -> Any:
            nonlocal statements
            statements += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for start in range(0, total, size):
                parser.feed(stream[start : start + size])
        finally:
            sys.settrace(before)
        assert statements <= 40 * total / min(size, len(unit)) + 100
        assert tail.moved <= 2 * total
        costs.append(statements)
    assert costs[1] <= 4.4 * costs[0] + 100


@pytest.mark.law("S3")
def test_s03_one_long_line_in_many_pieces_is_moved_once() -> None:
    """A line that comes in 16,384 pieces is gathered and taken once, not once for each piece."""
    parser = SSEParser()
    parser._tail = tail = CountingTail()
    parser.feed(b"data: ")
    for _ in range(16_384):
        assert parser.feed(b"0123456789abcdef") == []
    (event,) = parser.feed(b"\n\n")
    assert isinstance(event, SSEEvent)
    assert len(event.data) == 16_384 * 16
    assert tail.moved <= 2 * (len(event.data) + 8)


def as_model(parsed: tuple[Any, ...]) -> tuple[Any, ...]:
    out, last_id, retry, finished = parsed
    assert not finished
    return [(e.event, e.text, e.id, e.retry_ms) for e in out], last_id, retry


@pytest.mark.law("S4")
@given(stream=STREAMS, size=st.integers(1, 20))
@example(stream=BOM + BOM + b"data: a\n\n", size=1)
@example(stream=b"data\xe2\x80\ndata: \xe2\x80\n\n", size=2)
def test_s04_agrees_with_the_standard_read_aloud(stream: bytes, size: int) -> None:
    """The parser and a naive reading of the whole decoded text agree on every stream."""
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert as_model(parse(chunks)) == interpret(stream)


@pytest.mark.law("S5")
@pytest.mark.parametrize(
    "unit",
    [b"x", b"data: x", b"data\n", b"data:xx\n", b"event: x", b":", b"id: 1\ndata:\n", b"id:1"],
)
@pytest.mark.parametrize("size", [65_536, 7])
def test_s05_memory_is_bounded(unit: bytes, size: int) -> None:
    """Whatever comes, what stays between chunks is at most the limit (bytearrays have 1/8 air)."""
    limit = 128 * 1024
    parser = SSEParser(line_bytes_max=limit, event_bytes_max=limit)
    stream = unit * (3 * limit // len(unit))
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        for number, chunk in enumerate(chunks):
            parser.feed(chunk)
            assert parser.held_bytes <= limit + 1
            if size < 100 and number % 64:
                continue
            held = tracemalloc.get_traced_memory()[0] - base
            assert held <= limit * 9 // 8 + 65_536
    finally:
        tracemalloc.stop()
    assert parser.finished
