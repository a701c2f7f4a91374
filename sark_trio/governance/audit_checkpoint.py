"""Checkpoints of the audit log: what is kept where its writer can not edit it.

White. A checkpoint states size and root of the log at one moment, optionally signed. It goes
to a sink outside the log's directory; whoever holds it can tell a log that was cut or written
anew from the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

from attrs import asdict, evolve, frozen

from sark_trio import jsontext

__all__ = ["Checkpoint", "Signer", "Verifier", "parse_checkpoints"]

#: Signs the bytes of :meth:`Checkpoint.body` (Ed25519: ``private_key.sign``).
Signer = Callable[[bytes], bytes]
#: Whether a signature (second) fits a body (first).
Verifier = Callable[[bytes, bytes], bool]


@final
@frozen(kw_only=True)
class Checkpoint:
    """The log's state after its first *size* records."""

    #: The random id that the log was founded with.
    log_id: str
    #: Number of records covered.
    size: int
    #: Merkle tree head over them, in hex.
    root: str
    #: SHA-256 of the last of them, in hex.
    chain_head: str
    #: Wall time of the making, RFC 3339. It decides nothing.
    ts: str
    #: Signature of :meth:`body`, in hex.
    signature: str | None = None

    def body(self) -> bytes:
        """The canonical bytes that are signed."""
        return jsontext.canonical(asdict(evolve(self, signature=None)))

    def signed(self, signer: Signer) -> Checkpoint:
        """The same checkpoint with a signature."""
        return evolve(self, signature=signer(self.body()).hex())

    def is_signed_by(self, verifier: Verifier) -> bool:
        """Whether it carries a signature that *verifier* accepts."""
        if self.signature is None:
            return False
        try:
            return verifier(self.body(), bytes.fromhex(self.signature))
        except ValueError:
            return False

    def line(self) -> bytes:
        """One line for a file of checkpoints."""
        return jsontext.canonical(asdict(self)) + b"\n"


def parse_checkpoints(data: bytes) -> Iterator[Checkpoint]:
    """The checkpoints in a file of :meth:`Checkpoint.line` lines.

    A last line without its end is skipped: the process died while it was written.

    :raises ValueError: a whole line is not a checkpoint; the message says which.
    """
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if line.endswith(b"\n"):
            yield _parse(line, number)


def _parse(line: bytes, number: int) -> Checkpoint:
    try:
        value: Any = jsontext.decode_strict(line)
        checkpoint = Checkpoint(**value)
    except (jsontext.JSONError, TypeError) as exc:
        raise ValueError(f"line {number} is not a checkpoint: {exc}") from exc
    if not all(isinstance(getattr(checkpoint, name), kind) for name, kind in _KINDS.items()):
        raise ValueError(f"line {number} is not a checkpoint: a member has the wrong type")
    return checkpoint


_KINDS = {"log_id": str, "size": int, "root": str, "chain_head": str, "ts": str} | {
    "signature": str | None
}
