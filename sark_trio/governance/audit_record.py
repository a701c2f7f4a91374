r"""What the audit log says: the records' fields, and the bytes that are hashed.

White. A record is one object of canonical JSON (RFC 8785) in which, beyond what JSON asks,
every character that a terminal or an editor would *obey* (C1 controls, bidirectional and
zero-width marks, line separators) is written as ``\uXXXX``. The value stays the same; no text
of a caller can move the cursor, hide itself or start a line of its own (laws, 4.31).

Redaction happens before a record is made: callers pass redacted arguments. A value that must
stay comparable is passed as :func:`hmac_ref`; a plain hash of something guessable is not a
secret (laws, 2.7).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Literal, final

from attrs import Attribute, field, frozen

from sark_trio import jsontext
from sark_trio.errors import Delivery

__all__ = [
    "RECORD_BYTES_MAX",
    "AuditedCall",
    "Outcome",
    "OutcomeKind",
    "args_digest",
    "attempt_fields",
    "call_fields",
    "encode_record",
    "event_fields",
    "hmac_ref",
    "open_fields",
    "outcome_fields",
    "recovered_fields",
]

#: A longer record loses its payload (arguments, details), never its digest: a line that fits
#: one read, one grep and one syslog relay.
RECORD_BYTES_MAX = 64 * 1024
#: Version of the record format.
RECORD_VERSION = 1
#: Names and ids are cut to this many characters: longer ones are attacks, not names.
NAME_CHARS_MAX = 256
#: Messages are cut to this many characters: enough for a sentence.
MESSAGE_CHARS_MAX = 1024
#: More erased paths than this are only counted.
ERASED_MAX = 64
#: HMAC keys below 128 bits can be searched.
_KEY_BYTES_MIN = 16

OutcomeKind = Literal["ok", "error", "denied", "not_sent", "unknown", "cancelled"]

_COUNT_MAX = 2**53 - 1  # the largest integer that has a canonical form

#: Members that carry a caller's data and are the first to go from an oversize record.
_PAYLOAD = ("args", "details", "erased", "labels")
#: DEL and C1, Arabic letter mark, zero-width and bidirectional marks, line and paragraph
#: separators, word joiners and isolates, byte order mark, annotations, tag characters.
_OBEYED = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def _check_id(_: Any, attribute: Attribute[str], value: str) -> None:
    if not 1 <= len(value) <= NAME_CHARS_MAX or not (value.isascii() and value.isprintable()):
        raise ValueError(
            f"{attribute.name} must be 1 to {NAME_CHARS_MAX} printable ASCII characters,"
            f" got {value[:40]!r}"
        )


@final
@frozen(kw_only=True)
class AuditedCall:
    """Who calls what, and why that was allowed or not.

    :param args: the arguments as they may be read by an auditor: already redacted.
    :param args_digest: digest of the *final* arguments (see :func:`args_digest`).
    :param erased: JSON pointers (RFC 6901) of what redaction took out.
    :param redactions: how many values redaction changed.
    :param labels: further short facts, such as the session or the agent.
    """

    request_id: str = field(validator=_check_id)
    server: str
    tool: str | None = None
    method: str = "tools/call"
    principal_id: str = ""
    principal_kind: str = ""
    decision_id: str | None = None
    policy_revision: str | None = None
    args_digest: str | None = None
    args: Any = None
    erased: tuple[str, ...] = ()
    redactions: int = 0
    labels: Mapping[str, str] = field(factory=dict)


@final
@frozen(kw_only=True)
class Outcome:
    """How a call ended.

    :param duration_s: seconds from the intent to the end.
    :param attempts: attempts that were made, the first included.
    :param error_type: class name of the error.
    :param error: its message, already redacted.
    :param redactions: how many values of the *result* redaction changed.
    :param result_bytes: size of the result as it came.
    """

    request_id: str = field(validator=_check_id)
    outcome: OutcomeKind
    delivery: Delivery
    duration_s: float = 0.0
    attempts: int = 0
    error_type: str | None = None
    error: str | None = None
    redactions: int = 0
    result_bytes: int | None = None


def hmac_ref(key: bytes, value: str | bytes) -> str:
    """A reference to a secret: equal values under one key are equal, nothing else is told.

    :raises ValueError: the key is shorter than 16 bytes.
    """
    if len(key) < _KEY_BYTES_MIN:
        raise ValueError(f"the key must have {_KEY_BYTES_MIN} bytes or more, got {len(key)}")
    data = value if isinstance(value, bytes) else value.encode(errors="surrogatepass")
    return f"hmac-sha256:{hmac.digest(key, data, 'sha256').hex()}"


def args_digest(args: Any, *, key: bytes | None = None) -> str:
    """The digest of a call's final arguments: of their canonical JSON.

    :param key: arguments may hold guessable secrets; a keyed digest of their digest tells nothing.
    :raises JSONError: the arguments have no canonical form.
    """
    plain = f"sha256:{hashlib.sha256(jsontext.canonical(args)).hexdigest()}"
    return plain if key is None else hmac_ref(key, plain)


def call_fields(kind: str, call: AuditedCall, **more: str) -> dict[str, Any]:
    """The members of an ``intent``, or of a ``denied`` or ``served`` record (*more*: why)."""
    fields: dict[str, Any] = {
        "kind": kind,
        "request_id": call.request_id,
        "principal_id": _text(call.principal_id),
        "principal_kind": _text(call.principal_kind),
        "server": _text(call.server),
        "method": _text(call.method),
        "args": call.args,
        "redactions": _count(call.redactions),
    }
    for name in ("tool", "decision_id", "policy_revision", "args_digest"):
        value = getattr(call, name)
        if value is not None:
            fields[name] = _text(value)
    if call.erased:
        fields["erased"] = [_text(pointer) for pointer in call.erased[:ERASED_MAX]]
        fields["erased_count"] = len(call.erased)
    if call.labels:
        labels = list(call.labels.items())[:16]
        fields["labels"] = {_text(name): _text(value) for name, value in labels}
    for name, value in more.items():
        fields[name] = _text(value, MESSAGE_CHARS_MAX)
    return fields


def attempt_fields(request_id: str, number: int, reason: str) -> dict[str, Any]:
    """The members of an ``attempt`` record: try *number* (from 1) begins, because of *reason*."""
    return {
        "kind": "attempt",
        "request_id": request_id,
        "number": _count(number),
        "reason": _text(reason),
    }


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """The members of an ``outcome`` record."""
    fields: dict[str, Any] = {
        "kind": "outcome",
        "request_id": outcome.request_id,
        "outcome": outcome.outcome,
        "delivery": outcome.delivery,
        # An integer keeps the record's canonical form cheap: no float has to be spelled.
        "duration_us": _count(outcome.duration_s * 1e6),
        "attempts": _count(outcome.attempts),
        "redactions": _count(outcome.redactions),
    }
    if outcome.error_type is not None:
        fields["error_type"] = _text(outcome.error_type)
    if outcome.error is not None:
        fields["error"] = _text(outcome.error, MESSAGE_CHARS_MAX)
    if outcome.result_bytes is not None:
        fields["result_bytes"] = _count(outcome.result_bytes)
    return fields


def recovered_fields(request_id: str, intent_seq: int) -> dict[str, Any]:
    """The members of a ``recovered`` record: the outcome that a crash left unwritten."""
    return {
        "kind": "recovered",
        "request_id": request_id,
        "intent_seq": intent_seq,
        "outcome": "unknown",
        "delivery": "unknown",
    }


def event_fields(name: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """The members of an ``event`` record: anything else that an auditor should see."""
    return {"kind": "event", "name": _text(name), "details": dict(details)}


def open_fields(
    *,
    log_id: str,
    reason: Literal["created", "reopened", "rotated"],
    tree: tuple[bytes, ...],
    oldest_open: int | None,
    **more: Any,
) -> dict[str, Any]:
    """The members of an ``open`` record, the first of every segment.

    It holds what is needed to go on from here without reading what came before: the Merkle
    tree's subtrees, and the oldest intent that still waits for its outcome.
    """
    return {
        "kind": "open",
        "log_id": log_id,
        "reason": reason,
        "tree": [root.hex() for root in tree],
        "oldest_open": oldest_open,
        **more,
    }


def encode_record(fields: Mapping[str, Any], *, seq: int, prev: str, ts: str) -> bytes:
    """The bytes of one record, never more than :data:`RECORD_BYTES_MAX`. Total.

    A payload that is not canonical JSON, or is too large, is replaced by a ``payload_note``.
    """
    record = {**fields, "v": RECORD_VERSION, "seq": seq, "prev": prev, "ts": ts}
    try:
        data = _visible(jsontext.canonical(record))
    except jsontext.JSONError as exc:
        return _without_payload(record, str(exc))
    if len(data) > RECORD_BYTES_MAX:
        return _without_payload(record, f"left out: {len(data)} bytes are too many")
    return data


def _without_payload(record: dict[str, Any], note: str) -> bytes:
    kept = {name: value for name, value in record.items() if name not in _PAYLOAD}
    kept["payload_note"] = _text(note)
    return _visible(jsontext.canonical(kept))


def _visible(data: bytes) -> bytes:
    if data.isascii() and b"\x7f" not in data:
        return data
    return _OBEYED.sub(_escape, data.decode()).encode()


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _count(value: float) -> int:
    return round(max(0, min(value, _COUNT_MAX)))


def _text(value: str, chars_max: int = NAME_CHARS_MAX) -> str:
    if len(value) > chars_max:
        value = f"{value[: chars_max - 1]}…"
    if value.isascii():
        return value
    return value.encode(errors="replace").decode()  # a lone surrogate has no UTF-8 form
