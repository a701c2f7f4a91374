from __future__ import annotations

import json
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.governance.audit_chain import (
    FRAME_BYTES_MAX,
    JOINED,
    SYNCED,
    AuditChain,
    Fault,
    Frame,
    Line,
    frame,
    parse_frame,
    read_lines,
    segment_first_seq,
    segment_name,
)
from sark_trio.governance.audit_record import (
    RECORD_BYTES_MAX,
    AuditedCall,
    Outcome,
    call_fields,
    event_fields,
    open_fields,
    outcome_fields,
    recovered_fields,
)
from sark_trio.governance.merkle import tree_root

TS = "2026-11-23T12:00:00.000000+00:00"


def intent(request_id: str) -> dict[str, object]:
    return call_fields("intent", AuditedCall(request_id=request_id, server="db"))


def outcome(request_id: str) -> dict[str, object]:
    return outcome_fields(Outcome(request_id=request_id, outcome="ok", delivery="answered"))


def add(chain: AuditChain, fields: dict[str, object]) -> bytes:
    record = chain.append(fields, ts=TS)
    assert isinstance(record, bytes)
    chain.check_invariants()
    return record


def opening(chain: AuditChain, **more: object) -> dict[str, object]:
    return open_fields(
        log_id=chain.log_id,
        reason="created",
        tree=chain.tree.frontier,
        oldest_open=chain.oldest_open,
        **more,
    )


def test_a_frame_is_a_line_that_people_can_read() -> None:
    assert frame(SYNCED, b'{"a":1}') == b'2c662ccd +7 {"a":1}\n'
    assert parse_frame(b'2c662ccd +7 {"a":1}\n') == Frame("+", b'{"a":1}')


@given(st.sampled_from([SYNCED, JOINED]), st.binary(max_size=200).filter(lambda b: b"\n" not in b))
def test_a_frame_comes_back_as_it_was(mark: str, record: bytes) -> None:
    assert parse_frame(frame(mark, record)) == Frame(mark, record)


_NO_END = "the line has no end: a write cut short (the next start mends that), or an edit"
_NO_FRAME = "the line is no frame"
_NO_FIT = "the checksum or the length does not fit"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", _NO_END),
        (b"\n", _NO_FRAME),
        (b'2c662ccd +7 {"a":1}', _NO_END),
        (b'2C662CCD +7 {"a":1}\n', _NO_FIT),
        (b'2c662ccd +07 {"a":1}\n', _NO_FIT),
        (b'2c662ccd -7 {"a":1}\n', _NO_FRAME),
        (b'2c662ccd \xff7 {"a":1}\n', _NO_FRAME),
        (b'2c662ccd  +7 {"a":1}\n', _NO_FRAME),
        (b'2c662ccd +7 {"a":2}\n', _NO_FIT),
        (b'2c662ccd +7 {"a":1} \n', _NO_FIT),
        (b'2c662ccd .7 {"a":1}\n', _NO_FIT),
        (b'2c662ccd\n+7 {"a":1}\n', _NO_FIT),
        (b"\0" * 64 + b"\n", _NO_FRAME),
        (b"2c662ccd +\n", _NO_FIT),
    ],
)
def test_any_other_line_is_no_frame(line: bytes, reason: str) -> None:
    assert parse_frame(line) == reason


def test_a_line_ends_with_its_newline_and_knows_where_it_begins() -> None:
    assert list(read_lines([b"ab\n\ncd", b"", b"e\r\nf"])) == [
        Line(0, b"ab\n"),
        Line(3, b"\n"),
        Line(4, b"cde\r\n"),
        Line(9, b"f"),
    ]
    assert list(read_lines([b"ab", b"\n"])) == [Line(0, b"ab\n")]


@given(st.text("ab\r\n", max_size=300).map(str.encode), st.lists(st.integers(0, 300)))
def test_lines_do_not_depend_on_how_the_bytes_come(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[a:b] for a, b in pairwise(edges)]
    lines = list(read_lines(chunks))
    assert b"".join(line.data for line in lines) == data
    assert lines == list(read_lines([data]))
    assert [data[line.offset :][: len(line.data)] for line in lines] == [
        line.data for line in lines
    ]
    assert all(line.data.endswith(b"\n") for line in lines[:-1])


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    lines = list(read_lines(b"x" * 1000 for _ in range(300)))
    assert max(len(line.data) for line in lines) == FRAME_BYTES_MAX == 64 * 1024 + 32
    assert sum(len(line.data) for line in lines) == 300_000
    assert [line.offset for line in lines][:2] == [0, FRAME_BYTES_MAX]


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX + more for more in (-1, 0, 1, 200_000)])
def test_a_line_that_is_too_long_comes_in_pieces_however_the_bytes_come(length: int) -> None:
    data = b"x" * length + b"\nend"
    lines = list(read_lines([data]))
    assert b"".join(line.data for line in lines) == data
    assert max(len(line.data) for line in lines) <= FRAME_BYTES_MAX
    for size in (1000, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1):
        chunks = (data[at : at + size] for at in range(0, len(data), size))
        assert list(read_lines(chunks)) == lines


def test_the_longest_record_fits_a_line() -> None:
    assert len(frame(SYNCED, b"x" * RECORD_BYTES_MAX)) <= FRAME_BYTES_MAX


def test_segment_names_sort_as_their_numbers() -> None:
    assert segment_name(42) == "audit-0000000000000042.log"
    assert segment_first_seq(segment_name(42)) == 42
    for name in (
        "lock",
        "audit-42.log",
        "audit-\u0660000000000000042.log",
        "x" + segment_name(1),
        "",
    ):
        assert segment_first_seq(name) is None


def test_each_record_names_the_one_before_and_the_first_names_the_log() -> None:
    chain = AuditChain(log_id="log")
    records = [add(chain, intent("a")), add(chain, intent("b")), add(chain, outcome("a"))]
    values = [json.loads(record) for record in records]
    heads = [sha256(b"log"), *(sha256(record) for record in records)]
    assert [value["prev"] for value in values] == [head.hexdigest() for head in heads[:-1]]
    assert [value["seq"] for value in values] == [0, 1, 2]
    assert (chain.size, chain.head) == (3, heads[-1].hexdigest())
    assert chain.tree.root() == tree_root([sha256(b"\0" + record).digest() for record in records])
    assert repr(chain) == f"<AuditChain 3 records, 1 open, head {chain.head[:12]}>"


def test_a_call_is_opened_once_and_closed_once() -> None:
    chain = AuditChain(log_id="log")
    assert chain.append(outcome("a"), ts=TS) == Fault("no_open_intent")
    assert chain.append(recovered_fields("a", 0), ts=TS) == Fault("no_open_intent")
    add(chain, intent("a"))
    assert chain.append(intent("a"), ts=TS) == Fault("intent_already_open")
    assert (chain.size, dict(chain.open_intents), chain.oldest_open) == (1, {"a": 0}, 0)
    add(chain, outcome("a"))
    assert chain.append(outcome("a"), ts=TS) == Fault("no_open_intent")
    assert (chain.size, chain.oldest_open) == (2, None)
    add(chain, intent("a"))  # the id is free again
    add(chain, recovered_fields("a", 2))
    assert not chain.open_intents


def test_what_one_makes_the_other_follows() -> None:
    writer, reader = AuditChain(log_id="log"), AuditChain(log_id="log")
    for fields in (opening(writer), intent("a"), event_fields("x", {}), outcome("a"), intent("b")):
        record = add(writer, fields)
        value = reader.follow(record)
        assert isinstance(value, dict)
        assert value["kind"] == fields["kind"]
        assert (reader.size, reader.head) == (writer.size, writer.head)
        assert reader.open_intents == writer.open_intents


def _record(**members: object) -> bytes:
    first = sha256(b"log").hexdigest()
    return json.dumps({"seq": 0, "prev": first, "kind": "event", **members}).encode()


_NAMELESS = "the record has no kind, or a request id that is not text"
_MISPLACED = "the segment belongs to another log, or states another tree"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{", "the record is not JSON"),
        (b"[]", "the record is not an object"),
        (_record(seq=1), "record 0 was expected, this is 1"),
        (_record(seq="0"), "record 0 was expected, this is '0'"),
        (_record(prev="x"), "the record does not name the one before it"),
        (_record(kind=None), _NAMELESS),
        (_record(request_id=1), _NAMELESS),
        (_record(request_id=None), _NAMELESS),
        (_record(kind="intent"), _NAMELESS),
        (_record(kind="outcome"), _NAMELESS),
        (_record(kind="recovered"), _NAMELESS),
        (_record(kind="open", log_id="other", tree=[]), _MISPLACED),
        (_record(kind="open", log_id="log", tree=["00"]), _MISPLACED),
        (_record(kind="outcome", request_id="a"), "an outcome without an open intent"),
    ],
)
def test_a_record_that_does_not_follow_changes_nothing(record: bytes, reason: str) -> None:
    chain = AuditChain(log_id="log")
    before = repr(chain)
    assert chain.follow(record) == reason
    assert repr(chain) == before


def test_a_second_intent_does_not_follow() -> None:
    chain = AuditChain(log_id="log")
    add(chain, intent("a"))
    forged = json.dumps({"seq": 1, "prev": chain.head, **intent("a")}).encode()
    assert chain.follow(forged) == "a second intent for a request that is still open"


def test_a_chain_goes_on_from_an_opening_record() -> None:
    writer = AuditChain(log_id="log")
    for number in range(5):
        add(writer, intent(str(number)))
    header = add(writer, opening(writer))
    assert json.loads(header)["oldest_open"] == 0
    reader = AuditChain.resume(header)
    assert isinstance(reader.follow(header), dict)
    assert (reader.size, reader.head) == (writer.size, writer.head)
    assert reader.tree.root() == writer.tree.root()
    # Its calls of before are not known, so their outcomes are taken as they come.
    assert isinstance(reader.follow(add(writer, outcome("3"))), dict)
    assert reader.head == writer.head


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{}",
        b'{"log_id":1,"tree":[],"seq":0,"prev":""}',
        b'{"log_id":"l","tree":["zz"],"seq":1,"prev":""}',
        b'{"log_id":"l","tree":["00"],"seq":1,"prev":""}',
        b'{"log_id":"l","tree":[],"seq":1,"prev":""}',
        b'{"log_id":"l","tree":null,"seq":1,"prev":""}',
    ],
)
def test_nothing_goes_on_from_anything_else(record: bytes) -> None:
    with pytest.raises(ValueError, match="not an opening record"):
        AuditChain.resume(record)
