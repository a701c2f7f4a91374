"""The laws of newline framing (machines.lines)."""

from __future__ import annotations

import tracemalloc
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sark_trio.machines.lines import LineSplitter, TooLong
from tests.models.lines import split
from tests.support.traces import traces

STREAMS = traces(
    st.one_of(
        st.sampled_from([b"\n", b"\r", b"\r\n", b'{"a":1}', b"1", b"\xff", b"\xe2\x80\xa8"]),
        st.binary(max_size=12),
    ),
    most=20,
).map(b"".join)


def frame(chunks: list[bytes], limit: int) -> list[bytes | None]:
    splitter = LineSplitter(line_bytes_max=limit)
    out: list[bytes | None] = []
    for chunk in chunks:
        for item in splitter.feed(chunk):
            assert item != TooLong(limit) or not item
            out.append(None if isinstance(item, TooLong) else item)
        splitter.check_invariants()
    assert splitter.dropped == out.count(None)
    return out


@pytest.mark.law("D4")
@given(stream=STREAMS, size=st.integers(1, 16), limit=st.integers(1, 12))
@example(stream=b"123456\r\n1\n", size=4, limit=6)
def test_d04_lines_are_those_of_the_whole_stream(stream: bytes, size: int, limit: int) -> None:
    """However output is cut, each line comes once, one too long is told once, none is lost."""
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert frame(chunks, limit) == split(stream, limit)
    assert frame([b"", stream, b""], limit) == split(stream, limit)


@pytest.mark.law("D4")
def test_d04_every_short_stream_is_framed_as_the_model_says() -> None:
    """Every stream of up to 6 letters, whole and byte by byte, at every small limit."""
    for length in range(7):
        for letters in product(b"\n\rx", repeat=length):
            stream = bytes(letters)
            for limit in (1, 2, 3):
                expected = split(stream, limit)
                assert frame([stream], limit) == expected
                assert frame([stream[i : i + 1] for i in range(length)], limit) == expected


@pytest.mark.law("D4")
@pytest.mark.parametrize("size", [65_536, 11])
@pytest.mark.parametrize("unit", [b"x", b"x" * 50_000 + b"\n", b"\n", b"\r"])
def test_d04_memory_is_bounded(unit: bytes, size: int) -> None:
    """Whatever a process writes, what stays is at most the limit (bytearrays have 1/8 air)."""
    limit = 128 * 1024
    splitter = LineSplitter(line_bytes_max=limit)
    stream = unit * (3 * limit // len(unit))
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        for number, start in enumerate(range(0, len(stream), size)):
            splitter.feed(stream[start : start + size])
            assert splitter.held_bytes <= limit
            if size > 100 or number % 64 == 0:
                held = tracemalloc.get_traced_memory()[0] - base
                assert held <= limit * 9 // 8 + 65_536
    finally:
        tracemalloc.stop()
