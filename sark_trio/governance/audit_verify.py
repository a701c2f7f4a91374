"""Is this audit log what was written? Verification as one pass over bytes.

White. :func:`verify` retraces the chain from its first record and holds it against the
checkpoints that somebody else kept. It stops at the first record that is not right and says
which, where, and why:

- an edit, an insertion, a deletion or a swap breaks the checksum, the number or the link;
- whoever mends all of these by writing everything after it anew is found by the next
  checkpoint: the fault is then known to lie between two checkpoints;
- a cut at the end is found by any checkpoint that covers more records than are left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, final

from attrs import define, field, frozen

from sark_trio import jsontext
from sark_trio.governance.audit_chain import (
    BROKEN_LINK,
    AuditChain,
    Frame,
    parse_frame,
    read_lines,
    segment_first_seq,
)
from sark_trio.governance.audit_checkpoint import Checkpoint, Verifier

__all__ = ["BadRecord", "Report", "Segment", "verify"]

#: A segment's file name and its bytes, in pieces of any size.
Segment = tuple[str, Iterable[bytes]]


@final
@frozen(kw_only=True)
class BadRecord:
    """The first record that is not what was written."""

    #: Its number, from 0.
    index: int
    #: File name of its segment, as far as known.
    segment: str | None
    #: Byte offset of its line in that file.
    offset: int | None
    #: What is wrong, in one sentence.
    reason: str


@final
@frozen(kw_only=True)
class Report:
    """What verification found."""

    #: The first fault; ``None`` if there is none.
    fault: BadRecord | None
    #: Good records before the fault, or in all.
    records: int
    #: Segments that were begun.
    segments: int
    #: Checkpoints that agreed.
    checkpoints: int
    #: Id of the log, once its first record was read.
    log_id: str | None
    #: Merkle root over the good records, in hex.
    root: str | None
    #: SHA-256 of the last good record, in hex.
    chain_head: str | None
    #: Request ids of intents without an outcome, oldest first.
    in_doubt: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None


class _Place(NamedTuple):
    """One line with where it stands."""

    segment: str
    offset: int
    first: bool
    parsed: Frame | str


def verify(
    segments: Iterable[Segment],
    checkpoints: Iterable[Checkpoint] = (),
    *,
    verifier: Verifier | None = None,
) -> Report:
    """Check a whole log, from its first record on.

    :param segments: in the order of their names.
    :param checkpoints: what the sink kept, in any order.
    :param verifier: if given, each checkpoint must carry a signature that it accepts.
    """
    run = _Verification(checkpoints=sorted(checkpoints, key=lambda item: item.size))
    unsigned = _first_unsigned(run.checkpoints, verifier)
    fault = unsigned or run.take_all(_places(segments, run)) or run.truncation()
    return run.report(fault)


def _first_unsigned(checkpoints: list[Checkpoint], verifier: Verifier | None) -> BadRecord | None:
    for item in checkpoints:
        if verifier is not None and not item.is_signed_by(verifier):
            reason = f"the checkpoint over {item.size} records has no good signature"
            return BadRecord(index=item.size, segment=None, offset=None, reason=reason)
    return None


def _places(segments: Iterable[Segment], run: _Verification) -> Iterator[_Place]:
    for name, chunks in segments:
        run.segments += 1
        first = True
        for line in read_lines(chunks):
            yield _Place(name, line.offset, first, parse_frame(line.data))
            first = False


@define(kw_only=True)
class _Verification:
    """One pass: the chain so far, and the last place that was good."""

    checkpoints: list[Checkpoint]
    segments: int = 0
    matched: int = 0
    chain: AuditChain | None = None
    last: _Place | None = None
    _covered: int = field(default=0, init=False)

    def take_all(self, places: Iterator[_Place]) -> BadRecord | None:
        for place in places:
            fault = self._take(place, places)
            if fault is not None:
                return fault
            self.last = place
        return None

    def truncation(self) -> BadRecord | None:
        """The fault of records that a checkpoint covers and that are not there."""
        size = 0 if self.chain is None else self.chain.size
        if self.matched == len(self.checkpoints):
            return None
        beyond = self.checkpoints[self.matched]
        reason = f"cut off: the checkpoint of {beyond.ts} covers {beyond.size} records"
        name = None if self.last is None else self.last.segment
        return BadRecord(index=size, segment=name, offset=None, reason=reason)

    def report(self, fault: BadRecord | None) -> Report:
        chain = self.chain
        return Report(
            fault=fault,
            records=0 if chain is None else chain.size,
            segments=self.segments,
            checkpoints=self.matched,
            log_id=None if chain is None else chain.log_id,
            root=None if chain is None else chain.tree.root().hex(),
            chain_head=None if chain is None else chain.head,
            in_doubt=() if chain is None else tuple(chain.open_intents),
        )

    def _take(self, place: _Place, rest: Iterator[_Place]) -> BadRecord | None:
        if isinstance(place.parsed, str):
            return self._bad(place, place.parsed)
        record = place.parsed.record
        if self.chain is None:
            self.chain = _found(record)
            if self.chain is None:
                return self._bad(place, "the first record opens no log")
        value = self.chain.follow(record)
        if value == BROKEN_LINK:
            return self._broken_link(place, record, next(rest, None))
        if isinstance(value, str):
            return self._bad(place, value)
        return self._misplaced(place, value) or self._against_checkpoints(place, rest)

    def _broken_link(self, place: _Place, record: bytes, following: _Place | None) -> BadRecord:
        """Two records do not fit. The one that its own successor names is the true one."""
        changed = self.last or place
        if following is not None and isinstance(following.parsed, Frame):
            named = _member(following.parsed.record, "prev")
            if named != hashlib.sha256(record).hexdigest():
                changed = place
        back = 1 if changed is self.last else 0
        return self._bad(changed, "the link between this record and its neighbour", back=back)

    def _misplaced(self, place: _Place, value: dict[str, Any]) -> BadRecord | None:
        if (value["kind"] == "open") is not place.first:
            return self._bad(place, "a segment must begin with an open record, and only so", back=1)
        if place.first and segment_first_seq(place.segment) != value["seq"]:
            return self._bad(place, "the segment's name is not its first record's number", back=1)
        return None

    def _against_checkpoints(self, place: _Place, rest: Iterator[_Place]) -> BadRecord | None:
        assert self.chain is not None
        size = self.chain.size
        while self.matched < len(self.checkpoints):
            item = self.checkpoints[self.matched]
            if item.size > size:
                return None
            expected = (self.chain.log_id, size, self.chain.tree.root().hex(), self.chain.head)
            if (item.log_id, item.size, item.root, item.chain_head) != expected:
                return self._unlike(item, place, next(rest, None))
            self.matched += 1
            self._covered = size
        return None

    def _unlike(self, item: Checkpoint, place: _Place, following: _Place | None) -> BadRecord:
        """The fault of records that fit one another and not a checkpoint."""
        if (
            following is not None
            and isinstance(following.parsed, Frame)
            and _member(following.parsed.record, "prev") == item.chain_head
        ):  # what follows still names the true record, so only this one was changed
            return self._bad(place, f"not the record of the checkpoint of {item.ts}", back=1)
        last = item.size - 1
        reason = f"records {self._covered} to {last} are not those of the checkpoint of {item.ts}"
        return BadRecord(index=self._covered, segment=place.segment, offset=None, reason=reason)

    def _bad(self, place: _Place, reason: str, *, back: int = 0) -> BadRecord:
        index = 0 if self.chain is None else self.chain.size - back
        return BadRecord(
            index=max(0, index), segment=place.segment, offset=place.offset, reason=reason
        )


def _found(record: bytes) -> AuditChain | None:
    """The empty chain whose first record this is, if it says so."""
    log_id = _member(record, "log_id")
    return AuditChain(log_id=log_id) if log_id else None


def _member(record: bytes, name: str) -> str | None:
    """A text member of a record, if it has one."""
    try:
        value = jsontext.decode(record)
    except jsontext.JSONError:
        return None
    text = value.get(name) if isinstance(value, dict) else None
    return text if isinstance(text, str) else None
