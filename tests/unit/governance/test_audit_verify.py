from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
from attrs import evolve

from sark_trio.governance.audit_chain import JOINED, AuditChain, frame, segment_name
from sark_trio.governance.audit_checkpoint import Checkpoint
from sark_trio.governance.audit_verify import Report, verify
from tests.support.audit_logs import TS, SmallLog

Segments = dict[str, bytes]


def small_log() -> SmallLog:
    """Three segments, two calls in doubt, a checkpoint after each of the first two."""
    log = SmallLog(log_id="log")
    log.begin()
    log.intent("a")
    log.outcome("a")
    log.checkpoint()
    log.begin()
    log.intent("b")
    log.intent("c")
    log.outcome("b")
    log.checkpoint()
    log.begin()
    log.intent("d")
    return log


def check(log: SmallLog, **options: object) -> Report:
    pieces = [(name, [data[:5], data[5:]]) for name, data in log.segments.items()]
    return verify(pieces, log.checkpoints, **options)  # type: ignore[arg-type]


def test_a_log_that_is_what_was_written() -> None:
    log = small_log()
    report = check(log)
    assert report.ok
    assert report == Report(
        fault=None,
        records=9,
        segments=3,
        checkpoints=2,
        log_id="log",
        root=log.chain.tree.root().hex(),
        chain_head=log.chain.head,
        in_doubt=("c", "d"),
    )


def test_no_log_at_all_is_good_until_a_checkpoint_says_otherwise() -> None:
    assert verify([]) == Report(
        fault=None,
        records=0,
        segments=0,
        checkpoints=0,
        log_id=None,
        root=None,
        chain_head=None,
        in_doubt=(),
    )
    report = verify([], small_log().checkpoints)
    assert report.fault is not None
    assert report.fault.index == 0
    assert "covers 3 records" in report.fault.reason
    assert (report.log_id, report.root, report.chain_head) == (None, None, None)


def _with_record(log: SmallLog, index: int, change: Callable[[dict[str, object]], None]) -> None:
    """Change one record and mend its frame, as an editor would."""
    value = json.loads(log.records[index])
    change(value)
    record = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    log.replace(index, frame(JOINED, record))


@pytest.mark.parametrize("index", range(9))
def test_an_edited_record_is_found_where_it_is(index: int) -> None:
    log = small_log()
    _with_record(log, index, lambda value: value.update(ts="earlier"))
    fault = check(log).fault
    if index == 8:
        # Nothing names the last record yet, and no checkpoint covers it.
        assert fault is None
        log.checkpoint()
        fault = check(log).fault
        assert fault is not None
        assert "records 7 to 8" in fault.reason
        return
    assert fault is not None
    assert fault.index == index
    name, offset = log.place(index)
    assert (fault.segment, fault.offset) == (name, offset)


@pytest.mark.parametrize("index", range(1, 8))
def test_an_edited_link_is_found_where_it_is(index: int) -> None:
    log = small_log()
    _with_record(log, index, lambda value: value.update(prev="0" * 64))
    fault = check(log).fault
    assert fault is not None
    assert (fault.index, fault.segment) == (index, log.place(index)[0])
    assert fault.reason == "the link between this record and its neighbour"


def test_a_log_written_anew_from_some_record_on_is_found_by_the_next_checkpoint() -> None:
    log, forged = small_log(), SmallLog(log_id="log")
    forged.begin()
    forged.intent("innocent")
    forged.outcome("innocent")
    forged.checkpoints = log.checkpoints
    fault = check(forged).fault
    assert fault is not None
    assert fault.index == 0
    assert "records 0 to 2 are not those of the checkpoint" in fault.reason


def test_a_checkpoint_of_another_log_is_found() -> None:
    log = small_log()
    log.checkpoints[0] = evolve(log.checkpoints[0], log_id="other")
    assert check(log).fault is not None
    log = small_log()
    log.checkpoints[1] = evolve(log.checkpoints[1], chain_head="0" * 64)
    fault = check(log).fault
    assert fault is not None
    assert fault.index == 3


def test_two_checkpoints_of_one_moment_must_agree() -> None:
    log = small_log()
    log.checkpoints.append(log.checkpoints[0])
    assert check(log).checkpoints == 3
    log.checkpoints.append(evolve(log.checkpoints[0], root="0" * 64))
    assert check(log).fault is not None


@pytest.mark.parametrize("left", range(7))
def test_a_cut_behind_a_checkpoint_is_found(left: int) -> None:
    log = small_log()
    log.truncate(left)
    fault = check(log).fault
    assert fault is not None
    assert fault.index == left
    assert "cut off" in fault.reason


def test_a_cut_after_the_last_checkpoint_can_not_be_seen() -> None:
    log = small_log()
    log.truncate(7)
    assert check(log).ok


@pytest.mark.parametrize("dropped", range(3))
def test_a_missing_segment_is_found(dropped: int) -> None:
    log = small_log()
    del log.segments[list(log.segments)[dropped]]
    assert check(log).ok is (dropped == 2)  # the last one has no checkpoint
    log.checkpoint()
    assert not check(log).ok


@pytest.mark.parametrize("index", [0, 3, 7])
def test_a_segment_under_another_name_is_found(index: int) -> None:
    log = small_log()
    right, wrong = segment_name(index), segment_name(index + 1)
    log.segments = {wrong if name == right else name: data for name, data in log.segments.items()}
    fault = check(log).fault
    assert fault is not None
    assert (fault.index, fault.segment, fault.offset) == (index, wrong, 0)
    assert fault.reason == "the segment's name is not its first record's number"


def test_a_segment_begins_with_an_opening_and_has_no_other() -> None:
    log = small_log()
    joined = b"".join(log.segments.values())
    log.segments = {segment_name(0): joined}
    fault = check(log).fault
    assert fault is not None
    assert fault.index == 3
    assert fault.reason == "a segment must begin with an open record, and only so"


def test_two_ends_of_one_call_are_found() -> None:
    log = small_log()
    chain = log.chain
    # A forger who can write can also count and hash, but not make a call end twice.
    fields = {"kind": "outcome", "request_id": "b", "seq": 9, "prev": chain.head}
    log.append_line(frame(JOINED, json.dumps(fields).encode()))
    fault = check(log).fault
    assert fault is not None
    assert fault.index == 9
    assert "without an open intent" in fault.reason


@pytest.mark.parametrize("first", [b"[]", b"{}", b'{"log_id":7}', b"{", b'{"log_id":""}'])
def test_a_first_record_that_opens_no_log(first: bytes) -> None:
    fault = verify([(segment_name(0), [frame("+", first)])]).fault
    assert fault is not None
    assert (fault.index, fault.offset) == (0, 0)
    assert fault.reason == "the first record opens no log"


def test_a_torn_end_is_a_fault_that_says_so() -> None:
    log = small_log()
    name = list(log.segments)[-1]
    log.segments[name] = log.segments[name][:-3]
    fault = check(log).fault
    assert fault is not None
    assert (fault.index, fault.segment) == (8, name)
    assert "no end" in fault.reason


def test_signatures_are_checked_where_asked_for() -> None:
    def sign(body: bytes) -> bytes:
        return hashlib.sha256(b"key" + body).digest()

    def accepts(body: bytes, signature: bytes) -> bool:
        return sign(body) == signature

    log = small_log()
    fault = check(log, verifier=accepts).fault
    assert fault is not None
    assert "over 3 records has no good signature" in fault.reason
    log.checkpoints = [item.signed(sign) for item in log.checkpoints]
    assert check(log, verifier=accepts).ok


def test_the_chain_of_the_small_log_is_the_real_one() -> None:
    log = small_log()
    again = AuditChain(log_id="log")
    for record in log.records:
        assert isinstance(again.follow(record), dict)
    assert log.checkpoints[0] == Checkpoint(
        log_id="log",
        size=3,
        root=log.checkpoints[0].root,
        chain_head=hashlib.sha256(log.records[2]).hexdigest(),
        ts=TS,
    )
