"""Verify an audit log with nothing but Python: written from the format's description alone.

    python independent_verifier.py DIRECTORY [CHECKPOINTS]

Prints ``OK <records> <root>`` or ``BAD <record>: <reason>`` (and exits with 1). It shares no
code with the package, so that a mistake made there is not made here as well.
"""

from __future__ import annotations

import json
import sys
import zlib
from hashlib import sha256
from pathlib import Path


class Bad(Exception):
    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"{index}: {reason}")
        self.index = index


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def record_of(line: bytes, index: int) -> bytes:
    try:
        checksum, body = line[:8], line[9:-1]
        length, record = body[1:].split(b" ", 1)
        good = (
            line.endswith(b"\n")
            and line[8:9] == b" "
            and b"%08x" % zlib.crc32(body) == checksum
            and body[:1] in {b"+", b"."}
            and b"%d" % len(record) == length
        )
    except ValueError:
        good = False
    if not good:
        raise Bad(index, "frame")
    return record


def check(segments: dict[str, bytes], checkpoints: bytes = b"") -> tuple[int, str]:
    """The number of records and the root, or :class:`Bad`."""
    leaves: list[bytes] = []
    heads: list[str] = []
    open_calls: set[str] = set()
    head = log_id = ""
    for name in sorted(segments):
        # Not splitlines(): only a newline ends a line here.
        lines = [line + b"\n" for line in segments[name].split(b"\n")]
        lines[-1] = lines[-1][:-1]
        for position, line in enumerate(lines if lines[-1] else lines[:-1]):
            index = len(leaves)
            data = record_of(line, index)
            try:
                record = json.loads(data)
                kind, seq, prev = record["kind"], record["seq"], record["prev"]
            except (ValueError, KeyError, TypeError):
                raise Bad(index, "json") from None
            if index == 0:
                log_id = record.get("log_id", "")
                head = sha256(log_id.encode()).hexdigest()
            if seq != index or prev != head:
                raise Bad(index, "link")
            if (kind == "open") != (position == 0):
                raise Bad(index, "segment")
            if position == 0 and (name != f"audit-{index:016d}.log" or record["log_id"] != log_id):
                raise Bad(index, "segment")
            if kind == "intent":
                if record["request_id"] in open_calls:
                    raise Bad(index, "second intent")
                open_calls.add(record["request_id"])
            if kind in {"outcome", "recovered"}:
                if record["request_id"] not in open_calls:
                    raise Bad(index, "second outcome")
                open_calls.remove(record["request_id"])
            head = sha256(data).hexdigest()
            heads.append(head)
            leaves.append(sha256(b"\x00" + data).digest())
    for line in checkpoints.splitlines():
        item = json.loads(line)
        size = item["size"]
        if size > len(leaves):
            raise Bad(len(leaves), "cut off")
        if item["log_id"] != log_id or item["root"] != root_of(leaves[:size]).hex():
            raise Bad(size - 1, "root")
        if item["chain_head"] != heads[size - 1]:
            raise Bad(size - 1, "head")
    return len(leaves), root_of(leaves).hex()


def main(arguments: list[str]) -> int:
    segments = {path.name: path.read_bytes() for path in Path(arguments[0]).glob("audit-*.log")}
    checkpoints = Path(arguments[1]).read_bytes() if len(arguments) > 1 else b""
    try:
        print("OK", *check(segments, checkpoints))
    except Bad as bad:
        print(f"BAD {bad}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
