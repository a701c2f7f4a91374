"""The event stream parser, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.sse import RETRY_MS_MAX, SSEEvent, SSEParser, TooLarge


def events(stream: bytes, **limits: int) -> list[SSEEvent | TooLarge]:
    return SSEParser(**limits).feed(stream)


def data(stream: bytes) -> list[bytes]:
    return [event.data for event in events(stream) if isinstance(event, SSEEvent)]


def test_an_event_has_type_data_id_and_retry() -> None:
    (event,) = events(b"retry: 1500\nevent: ping\nid: 7\ndata: a\ndata: b\n\n")
    assert event == SSEEvent("ping", b"a\nb", "7", 1500)
    assert isinstance(event, SSEEvent)
    assert event.text == "a\nb"


@pytest.mark.fault(32)
def test_comments_and_blank_lines_dispatch_nothing() -> None:
    """A keep-alive comment, a blank line or a block without data is no event."""
    assert events(b": ping\n\n\n:\n\nevent: x\n\nid: 3\n\nretry: 1\n\n") == []


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"data:  two", b" two"),
        (b"data: one", b"one"),
        (b"data:none", b"none"),
        (b"data: ", b""),
        (b"data:", b""),
        (b"data", b""),
        (b"data:\ndata: b", b"\nb"),
        (b"data\ndata", b"\n"),
        (b"data:a\ndata: b\ndata:\ndata: c", b"a\nb\n\nc"),
        (b"\xef\xbb\xbfdata: bom", b"bom"),
        (b"data:\ttab", b"\ttab"),
        (b"data: a: b", b"a: b"),
    ],
)
def test_values_are_kept_to_the_letter(line: bytes, value: bytes) -> None:
    """One space goes, no more; empty data lines, colonless fields and one BOM count as they do."""
    assert data(line + b"\n\n") == [value]


@pytest.mark.parametrize(
    "line", [b" data: a", b"Data: a", b"data : a", b"dat", b"\xef\xbb\xbf\xef\xbb\xbfdata: a"]
)
def test_other_fields_are_ignored(line: bytes) -> None:
    assert data(line + b"\n\n") == []


@pytest.mark.fault(35)
@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b", "a\x85b", "a\x0bb", "a\x0cb", "a\x1cb"])
def test_only_cr_and_lf_end_lines(text: str) -> None:
    """What other standards call line ends is data."""
    assert data(b"data: " + text.encode() + b"\n\n") == [text.encode()]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_cr_lf_and_crlf_end_lines(end: bytes) -> None:
    stream = end.join([b"data: a", b"data: b", b"", b"data: c", b"", b""])
    assert data(stream) == [b"a\nb", b"c"]
    parser = SSEParser()
    assert [e for i in range(len(stream)) for e in parser.feed(stream[i : i + 1])] == events(stream)


def test_a_bom_may_come_in_pieces_and_turn_out_to_be_none() -> None:
    parser = SSEParser()
    assert parser.feed(b"") == []
    assert parser.feed(b"\xef") == parser.feed(b"\xbb") == parser.feed(b"\xbf") == []
    assert len(parser.feed(b"data: a\n\n")) == 1
    parser = SSEParser()
    assert parser.feed(b"\xef\xbb") == []
    assert parser.feed(b"\ndata: a\n\n") == [SSEEvent("message", b"a", "", None)]


def test_an_event_that_ends_in_cr_is_not_held_back() -> None:
    parser = SSEParser()
    assert len(parser.feed(b"data: a\r\r")) == 1
    assert parser.feed(b"\n") == []
    assert len(parser.feed(b"data: b\r\n\r")) == 1


def test_an_unterminated_event_is_discarded() -> None:
    parser = SSEParser()
    assert parser.feed(b"id: 1\ndata: a\n") == []
    assert parser.last_event_id == ""
    assert parser.held_bytes == 8


def test_the_type_is_of_one_event_and_the_id_of_all_that_follow() -> None:
    stream = b"event: x\nid: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n"
    assert events(stream) == [
        SSEEvent("x", b"a", "1", None),
        SSEEvent("message", b"b", "1", None),
        SSEEvent("message", b"c", "", None),
    ]


def test_the_last_of_several_types_counts_and_an_empty_one_is_message() -> None:
    assert events(b"event: x\nevent: y\ndata\n\n") == [SSEEvent("y", b"", "", None)]
    assert events(b"event: x\nevent\ndata\n\n") == [SSEEvent("message", b"", "", None)]
    assert events(b"event: x\n\ndata\n\n") == [SSEEvent("message", b"", "", None)]


def test_a_block_without_data_still_commits_its_id() -> None:
    parser = SSEParser()
    parser.feed(b"id: 5\n\nid: 6\n")
    assert parser.last_event_id == "5"


def test_an_id_with_nul_is_ignored() -> None:
    assert events(b"id: 1\nid: 2\0\ndata\n\n") == [SSEEvent("message", b"", "1", None)]


@pytest.mark.parametrize(
    ("value", "retry_ms"),
    [
        (b"0", 0),
        (b"0015", 15),
        (b"999999999999", 999_999_999_999),
        (b"1000000000000", RETRY_MS_MAX),
        (b"9999999999999", RETRY_MS_MAX),
        (b"9" * 5000, RETRY_MS_MAX),
        (b"0" * 5000 + b"7", 7),
        *((bad, None) for bad in (b"", b"-1", b"+1", b"1.5", b"1_0", b" 1", b"1 ", b"\xd9\xa3")),
    ],
)
def test_retry_is_ascii_digits(value: bytes, retry_ms: int | None) -> None:
    parser = SSEParser()
    assert parser.feed(b"retry: " + value + b"\n") == []
    assert parser.retry_ms == retry_ms
    (event,) = parser.feed(b"data\n\n")
    assert isinstance(event, SSEEvent)
    assert event.retry_ms == retry_ms


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"caf\xc3\xa9", "café"),
        (b"\xff", "\ufffd"),
        (b"\xe2\x80", "\ufffd"),
        (b"\xf0\x9f\x98x", "\ufffdx"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),
    ],
)
def test_what_is_not_utf8_is_replaced(sent: bytes, read: str) -> None:
    (event,) = events(b"event: " + sent + b"\nid: " + sent + b"\ndata: " + sent + b"\n\n")
    assert event == SSEEvent(read, read.encode(), read, None)


@pytest.mark.parametrize(
    ("stream", "limits", "too_large"),
    [
        (b"1234", {"line_bytes_max": 3}, TooLarge("line", 3)),
        (b"1234\n", {"line_bytes_max": 3}, TooLarge("line", 3)),
        (b":234\n", {"line_bytes_max": 3}, TooLarge("line", 3)),
        (b"data:67", {"event_bytes_max": 6}, TooLarge("event", 6)),
        (b"data:67\n", {"event_bytes_max": 6}, TooLarge("event", 6)),
        (b"data:\nd", {"event_bytes_max": 6}, TooLarge("event", 6)),
        (b"data:\ndata:\n", {"event_bytes_max": 10}, TooLarge("event", 10)),
        (b"event:\ndata:\n", {"event_bytes_max": 11}, TooLarge("event", 11)),
        (b"id: 123\n", {"id_bytes_max": 2}, TooLarge("id", 2)),
        # Both at once: named is what a stream that comes byte by byte meets first.
        (b"1234", {"line_bytes_max": 3, "event_bytes_max": 3}, TooLarge("line", 3)),
        (b"1234", {"line_bytes_max": 3, "event_bytes_max": 2}, TooLarge("event", 2)),
    ],
)
def test_what_is_too_large_ends_the_stream(
    stream: bytes, limits: dict[str, int], too_large: TooLarge
) -> None:
    parser = SSEParser(**limits)
    assert parser.feed(stream) == [too_large]
    assert parser.finished
    assert repr(parser).startswith("<SSEParser finished ")
    assert parser.feed(b"\n\ndata: a\n\n") == []
    parser.check_invariants()


@pytest.mark.parametrize(
    ("stream", "limits", "count"),
    [
        (b"123\n" * 9, {"line_bytes_max": 3}, 0),
        (b"data:6\n\n" * 9, {"event_bytes_max": 6}, 9),
        (b"data:\ndata:\n\n" * 9, {"event_bytes_max": 11}, 9),
        (b"event:\ndata\n\n" * 9, {"event_bytes_max": 11}, 9),
        (b":234567\n" * 9 + b"retry: 1\n" * 9, {"event_bytes_max": 8}, 0),
        (b"id: 12\ndata\n\n" * 9, {"id_bytes_max": 2}, 9),
        (b"id: 123\0\n", {"id_bytes_max": 2}, 0),
    ],
)
def test_what_just_fits_does_not_end_the_stream(
    stream: bytes, limits: dict[str, int], count: int
) -> None:
    parser = SSEParser(**limits)
    assert len(parser.feed(stream)) == count
    assert not parser.finished
    parser = SSEParser(**limits)
    assert sum(len(parser.feed(bytes([byte]))) for byte in stream) == count
    assert not parser.finished


@pytest.mark.parametrize(
    ("stream", "limits"),
    [
        (b"data: abc\ndata: de\nrest", {"event_bytes_max": 12}),
        (b"data: abc\nid: 123\nrest", {"id_bytes_max": 2}),
    ],
)
def test_a_parser_that_is_finished_holds_nothing(stream: bytes, limits: dict[str, int]) -> None:
    parser = SSEParser(**limits)
    assert isinstance(parser.feed(stream)[-1], TooLarge)
    assert parser.held_bytes == 0
    parser.check_invariants()


def test_the_largest_retry_is_about_thirty_years() -> None:
    assert RETRY_MS_MAX == 1_000_000_000_000


def test_events_before_a_limit_are_delivered() -> None:
    assert events(b"data: a\n\ndata: too long\n\n", line_bytes_max=8) == [
        SSEEvent("message", b"a", "", None),
        TooLarge("line", 8),
    ]


def test_the_default_limits() -> None:
    mebibyte = 1024 * 1024
    fits = b"data: " + b"x" * (mebibyte - 6)
    assert len(data(fits + b"\n\n")) == 1
    assert events(fits + b"x") == [TooLarge("line", mebibyte)]
    assert events(b"data\n" + fits) == [TooLarge("event", mebibyte)]
    assert events(b"id: " + b"x" * 1024 + b"\n") == []
    assert events(b"id: " + b"x" * 1025 + b"\n") == [TooLarge("id", 1024)]


def test_it_tells_its_state_in_one_line() -> None:
    parser = SSEParser()
    parser.feed(b"retry: 5\nid: a\n\ndata")
    assert repr(parser) == "<SSEParser held=4 id='a' retry_ms=5>"


@pytest.mark.parametrize("name", ["line_bytes_max", "event_bytes_max", "id_bytes_max"])
@pytest.mark.parametrize("limit", [0, -1, 1.5, 2**31])
def test_limits_are_checked(name: str, limit: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        SSEParser(**{name: limit})
