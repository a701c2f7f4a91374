"""Newline framing, case by case."""

from __future__ import annotations

from typing import Any, Self

import pytest

from sark_trio.machines.lines import LineSplitter, TooLong


def test_lines_come_without_their_ends_and_empty_ones_not_at_all() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b'\n{"a":1}\r\n\r\n\n1\nrest') == [b'{"a":1}', b"1"]
    assert splitter.held_bytes == 4
    splitter.check_invariants()
    assert splitter.feed(b"\n") == [b"rest"]
    assert splitter.held_bytes == 0


def test_only_the_cr_before_the_lf_belongs_to_the_end() -> None:
    assert LineSplitter().feed(b"a\rb\r\r\n") == [b"a\rb\r"]


@pytest.mark.fault(40)
@pytest.mark.parametrize("line", [b"1", b"\xff\xfe", b"x" * 70_000, b"null", "\u2028".encode()])
def test_no_line_stops_the_reading(line: bytes) -> None:
    """Long lines, lone numbers and invalid UTF-8 come as any line, and so do those after them."""
    splitter = LineSplitter()
    assert splitter.feed(line + b'\n{"id":2}\n') == [line, b'{"id":2}']


@pytest.mark.fault(40)
def test_a_line_that_is_too_long_is_told_once_and_the_next_one_read() -> None:
    splitter = LineSplitter(line_bytes_max=4)
    assert splitter.feed(b"1234") == []
    assert splitter.feed(b"5") == [TooLong(4)]
    assert repr(splitter) == "<LineSplitter skipping dropped=1>"
    assert splitter.feed(b"67890" * 100) == []
    assert splitter.held_bytes == 0
    assert splitter.feed(b"6\nok\n") == [b"ok"]
    assert splitter.feed(b"12345\n1234\n") == [TooLong(4), b"1234"]
    assert splitter.dropped == 2
    assert repr(splitter) == "<LineSplitter held=0 dropped=2>"


def test_too_long_is_false_as_no_line_is() -> None:
    assert [bool(item) for item in LineSplitter(line_bytes_max=1).feed(b"aa\n\nb\n")] == [
        False,
        True,
    ]


def test_the_default_limit_is_four_mebibytes() -> None:
    splitter = LineSplitter()
    line = b"x" * (4 * 1024 * 1024)
    assert splitter.feed(line) == []
    assert splitter.feed(b"\n" + line + b"x") == [line, TooLong(len(line))]


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


def test_a_line_in_many_pieces_is_moved_once() -> None:
    splitter = LineSplitter()
    splitter._tail = tail = CountingTail()
    for _ in range(20_000):
        assert splitter.feed(b"0123456789") == []
    (line,) = splitter.feed(b"\n")
    assert isinstance(line, bytes)
    assert len(line) == 200_000
    assert tail.moved == 2 * len(line)


@pytest.mark.parametrize("limit", [0, -1, 2**30 + 1, 1.5, True])
def test_the_limit_is_checked(limit: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="line_bytes_max"):
        LineSplitter(line_bytes_max=limit)
