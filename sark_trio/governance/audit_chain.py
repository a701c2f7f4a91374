"""The audit log as a chain: one line for each record, each record naming the one before.

White. A line is a frame::

    8c1f22aa +412 {"args":{...},"kind":"intent",...,"prev":"<sha-256>","seq":7,...}

- CRC-32 (zlib's, IEEE 802.3) of everything between it and the line's end: it finds torn and
  rotten lines. Against an editor stands the hash, not the checksum, and CRC-32C would cost a
  dependency or a slow loop;
- a mark, ``+`` or ``.``: a ``+`` line was written only after everything above it was on disk.
  So a bad line *with a + line below* was once acknowledged and is corruption, while one with
  none below is the torn end of a write that nobody was told of;
- the record's length, its bytes (see :mod:`~sark_trio.governance.audit_record`), a newline.

``prev`` is the SHA-256 of the previous record's bytes; the first record's is that of the
random log id. A log is a row of segments; each begins with an ``open`` record that repeats
where the Merkle tree stands, so that a start reads the last segment only.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, final

from attrs import define, field, frozen

from sark_trio import jsontext
from sark_trio.governance.audit_record import RECORD_BYTES_MAX, encode_record
from sark_trio.governance.merkle import MerkleTree

__all__ = [
    "BROKEN_LINK",
    "FRAME_BYTES_MAX",
    "SYNCED",
    "AuditChain",
    "Fault",
    "Frame",
    "Line",
    "frame",
    "parse_frame",
    "read_lines",
    "segment_first_seq",
    "segment_name",
]

#: The longest line there can be.
FRAME_BYTES_MAX = RECORD_BYTES_MAX + 32
#: Mark of a line above which everything is on disk.
SYNCED = "+"
#: Mark of a line that was written together with the one above.
JOINED = "."

#: The one fault for which a reader asks the next record which of two was changed.
BROKEN_LINK = "the record does not name the one before it"

_PREFIX = "audit-"
_SUFFIX = ".log"
#: Kinds that begin a call, and kinds that end one.
_BEGINS = "intent"
_ENDS = ("outcome", "recovered")

FaultReason = Literal["intent_already_open", "no_open_intent", "queue_full", "unavailable"]


@final
@frozen
class Fault:
    """The log did not take a record; nothing changed."""

    reason: FaultReason


class Frame(NamedTuple):
    """A good line, taken apart."""

    mark: str
    record: bytes


class Line(NamedTuple):
    """Bytes of a segment up to and with a newline (or the end, or the longest line)."""

    offset: int
    data: bytes


def frame(mark: str, record: bytes) -> bytes:
    """The line for one record."""
    body = b"%s%d %s" % (mark.encode(), len(record), record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_frame(line: bytes) -> Frame | str:
    """The parts of a line, or what is wrong with it.

    A line is good only if it is, byte for byte, what :func:`frame` makes of its parts.
    """
    if not line.endswith(b"\n"):
        return "the line has no end: a write cut short (the next start mends that), or an edit"
    mark = line[9:10].decode("latin-1")
    if mark not in (SYNCED, JOINED):
        return "the line is no frame"
    record = line[line.find(b" ", 10) + 1 : -1]
    if frame(mark, record) != line:
        return "the checksum or the length does not fit"
    return Frame(mark, record)


def read_lines(chunks: Iterable[bytes]) -> Iterator[Line]:
    """Cut a segment's bytes into lines; what is longer than any frame comes in pieces."""
    offset = 0
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield from _pieces(offset, line + b"\n")
            offset += len(line) + 1
        whole = len(rest) - len(rest) % FRAME_BYTES_MAX
        yield from _pieces(offset, rest[:whole])
        offset += whole
        rest = rest[whole:]
    yield from _pieces(offset, rest)


def _pieces(offset: int, data: bytes) -> Iterator[Line]:
    for at in range(0, len(data), FRAME_BYTES_MAX):
        yield Line(offset + at, data[at : at + FRAME_BYTES_MAX])


def segment_name(first_seq: int) -> str:
    """The file name of the segment that begins with record *first_seq*."""
    return f"{_PREFIX}{first_seq:016d}{_SUFFIX}"


def segment_first_seq(name: str) -> int | None:
    """The number of a segment's first record; ``None`` if *name* is no segment's."""
    digits = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    if digits.isascii() and digits.isdigit() and segment_name(int(digits)) == name:
        return int(digits)
    return None


@final
@define(kw_only=True, repr=False)
class AuditChain:
    """The end of a chain, and the calls that it holds open.

    Grown by its writer with :meth:`append`, retraced by its readers with :meth:`follow`;
    both keep the same books, so what one makes the other accepts.

    :param log_id: random text that the log was founded with.
    """

    log_id: str
    _seq: int = field(default=0, init=False)
    _head: str = field(init=False)
    _tree: MerkleTree = field(factory=MerkleTree, init=False)
    _open: dict[str, int] = field(factory=dict, init=False)
    _resumed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._head = hashlib.sha256(self.log_id.encode()).hexdigest()

    @classmethod
    def resume(cls, opening: bytes) -> AuditChain:
        """The chain as it stood before the ``open`` record *opening*, which is believed.

        Which calls were open then is not known, so :meth:`follow` takes their outcomes as
        they come; who wants those intents begins with the segment of the oldest.

        :raises ValueError: the record is not a good ``open`` record.
        """
        try:
            record = jsontext.decode(opening)
            chain = cls(log_id=record["log_id"])
            subtrees = [bytes.fromhex(root) for root in record["tree"]]
            chain._seq, chain._head = int(record["seq"]), str(record["prev"])
            chain._tree = MerkleTree(size=chain._seq, frontier=subtrees)
            chain._resumed = True
        except (jsontext.JSONError, AttributeError, KeyError, TypeError, ValueError) as exc:
            raise ValueError(f"not an opening record: {exc}") from exc
        return chain

    @property
    def size(self) -> int:
        """Number of records; also the number of the next one."""
        return self._seq

    @property
    def head(self) -> str:
        """SHA-256 of the last record, in hex."""
        return self._head

    @property
    def tree(self) -> MerkleTree:
        """The Merkle tree over all records."""
        return self._tree

    @property
    def open_intents(self) -> Mapping[str, int]:
        """Request ids that wait for an outcome, oldest first, and where their intents are."""
        return self._open

    @property
    def oldest_open(self) -> int | None:
        """The number of the oldest intent that waits for its outcome."""
        return next(iter(self._open.values()), None)

    def append(self, fields: Mapping[str, Any], *, ts: str) -> bytes | Fault:
        """Make the next record and return its bytes.

        :param fields: its members but ``seq``, ``prev``, ``ts`` and ``v``.
        :param ts: wall time, RFC 3339.
        """
        kind, request_id = fields["kind"], fields.get("request_id")
        if kind == _BEGINS and request_id in self._open:
            return Fault("intent_already_open")
        if kind in _ENDS and request_id not in self._open:
            return Fault("no_open_intent")
        record = encode_record(fields, seq=self._seq, prev=self._head, ts=ts)
        self._advance(record, kind, request_id)
        return record

    def follow(self, record: bytes) -> dict[str, Any] | str:
        """Take the next record of an existing chain: its members, or what is wrong with it.

        A record that is wrong changes nothing.
        """
        try:
            value = jsontext.decode(record)
        except jsontext.JSONError:
            return "the record is not JSON"
        if not isinstance(value, dict):
            return "the record is not an object"
        wrong = self._what_is_wrong(value)
        if wrong is not None:
            return wrong
        self._advance(record, value["kind"], value.get("request_id"))
        return value

    def _what_is_wrong(self, value: dict[str, Any]) -> str | None:
        if value.get("seq") != self._seq:
            return f"record {self._seq} was expected, this is {value.get('seq')!r:.40}"
        if value.get("prev") != self._head:
            return BROKEN_LINK
        kind, request_id = value.get("kind"), value.get("request_id")
        of_call = kind == _BEGINS or kind in _ENDS or "request_id" in value
        if not isinstance(kind, str) or (of_call and not isinstance(request_id, str)):
            return "the record has no kind, or a request id that is not text"
        if kind == "open":
            subtrees = [root.hex() for root in self._tree.frontier]
            if value.get("log_id") != self.log_id or value.get("tree") != subtrees:
                return "the segment belongs to another log, or states another tree"
        elif kind == _BEGINS and request_id in self._open:
            return "a second intent for a request that is still open"
        elif kind in _ENDS and request_id not in self._open and not self._resumed:
            return "an outcome without an open intent"
        return None

    def _advance(self, record: bytes, kind: str, request_id: Any) -> None:
        if kind == _BEGINS:
            self._open[request_id] = self._seq
        elif kind in _ENDS:
            self._open.pop(request_id, None)
        self._head = hashlib.sha256(record).hexdigest()
        self._tree.append(record)
        self._seq += 1

    def check_invariants(self) -> None:
        """Assert what must always hold."""
        assert self._tree.size == self._seq
        assert len(self._head) == 64
        positions = list(self._open.values())
        assert positions == sorted(positions)
        assert all(0 <= position < self._seq for position in positions)

    def __repr__(self) -> str:
        return f"<AuditChain {self._seq} records, {len(self._open)} open, head {self._head[:12]}>"
