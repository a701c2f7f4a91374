from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.governance.audit_record import (
    RECORD_BYTES_MAX,
    AuditedCall,
    Outcome,
    args_digest,
    attempt_fields,
    call_fields,
    encode_record,
    event_fields,
    hmac_ref,
    open_fields,
    outcome_fields,
    recovered_fields,
)
from sark_trio.jsontext import JSONError, canonical

TS = "2026-11-23T12:00:00.000000+00:00"
KEY = b"k" * 32

# A whole float beyond 2**53 is spelled as an integer that reads back as another number.
_floats = st.floats(-(2.0**52), 2.0**52) | st.sampled_from([math.nan, math.inf])


def _values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    return st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _floats | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )


json_values = _values(st.text())


def _encode(fields: dict[str, object]) -> bytes:
    return encode_record(fields, seq=7, prev="p", ts=TS)


def _call(**changes: object) -> AuditedCall:
    return AuditedCall(**{"request_id": "r1", "server": "db", **changes})  # type: ignore[arg-type]


def test_an_intent_says_who_calls_what_and_why_it_may() -> None:
    call = _call(
        tool="query",
        principal_id="alice",
        principal_kind="user",
        decision_id="d1",
        policy_revision="v9",
        args_digest="sha256:00",
        args={"sql": "select 1"},
        erased=("/password",),
        redactions=2,
        labels={"session": "s1"},
    )
    assert json.loads(_encode(call_fields("intent", call))) == {
        "kind": "intent",
        "request_id": "r1",
        "principal_id": "alice",
        "principal_kind": "user",
        "server": "db",
        "tool": "query",
        "method": "tools/call",
        "decision_id": "d1",
        "policy_revision": "v9",
        "args_digest": "sha256:00",
        "args": {"sql": "select 1"},
        "erased": ["/password"],
        "erased_count": 1,
        "redactions": 2,
        "labels": {"session": "s1"},
        "v": 1,
        "seq": 7,
        "prev": "p",
        "ts": TS,
    }


def test_absent_facts_are_left_out() -> None:
    fields = call_fields("denied", _call(), reason="no such role")
    assert fields["kind"] == "denied"
    assert fields["reason"] == "no such role"
    assert not {"tool", "decision_id", "policy_revision", "args_digest", "erased"} & fields.keys()


def test_the_least_that_there_is_to_say_of_a_call_and_of_its_end() -> None:
    assert call_fields("intent", _call()) == {
        "kind": "intent",
        "request_id": "r1",
        "principal_id": "",
        "principal_kind": "",
        "server": "db",
        "method": "tools/call",
        "args": None,
        "redactions": 0,
    }
    assert outcome_fields(Outcome(request_id="r1", outcome="ok", delivery="answered")) == {
        "kind": "outcome",
        "request_id": "r1",
        "outcome": "ok",
        "delivery": "answered",
        "duration_us": 0,
        "attempts": 0,
        "redactions": 0,
    }


def test_an_outcome_says_how_it_ended() -> None:
    outcome = Outcome(
        request_id="r1",
        outcome="error",
        delivery="unknown",
        duration_s=1.5,
        attempts=2,
        error_type="ReadTimeout",
        error="no byte came",
        redactions=1,
        result_bytes=10,
    )
    assert outcome_fields(outcome) == {
        "kind": "outcome",
        "request_id": "r1",
        "outcome": "error",
        "delivery": "unknown",
        "duration_us": 1_500_000,
        "attempts": 2,
        "redactions": 1,
        "error_type": "ReadTimeout",
        "error": "no byte came",
        "result_bytes": 10,
    }


def test_the_other_kinds() -> None:
    assert attempt_fields("r1", 2, "retry") == {
        "kind": "attempt",
        "request_id": "r1",
        "number": 2,
        "reason": "retry",
    }
    assert recovered_fields("r1", 5) == {
        "kind": "recovered",
        "request_id": "r1",
        "intent_seq": 5,
        "outcome": "unknown",
        "delivery": "unknown",
    }
    assert event_fields("reload", {"ok": True}) == {
        "kind": "event",
        "name": "reload",
        "details": {"ok": True},
    }
    assert open_fields(
        log_id="l", reason="created", tree=(b"\1" * 32,), oldest_open=4, torn_bytes=3
    ) == {
        "kind": "open",
        "log_id": "l",
        "reason": "created",
        "tree": ["01" * 32],
        "oldest_open": 4,
        "torn_bytes": 3,
    }


@pytest.mark.parametrize("request_id", ["", "x" * 257, "a\nb", "é", "\x7f", "a\x1b[2Jb"])
def test_a_request_id_is_printable_ascii(request_id: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        _call(request_id=request_id)
    with pytest.raises(ValueError, match="printable ASCII"):
        Outcome(request_id=request_id, outcome="ok", delivery="answered")


@pytest.mark.parametrize("request_id", ["x", "x" * 256])
def test_a_request_id_has_one_to_256_characters(request_id: str) -> None:
    assert _call(request_id=request_id).request_id == request_id


@pytest.mark.parametrize(
    ("number", "written"),
    [(math.inf, 2**53 - 1), (2.0**80, 2**53 - 1), (-1.0, 0), (-math.inf, 0)],
)
def test_no_number_makes_a_record_that_has_no_canonical_form(number: float, written: int) -> None:
    outcome = Outcome(request_id="r1", outcome="ok", delivery="answered", duration_s=number)
    assert json.loads(_encode(outcome_fields(outcome)))["duration_us"] == written


def test_not_a_number_counts_as_nothing() -> None:
    outcome = Outcome(request_id="r1", outcome="ok", delivery="answered", duration_s=math.nan)
    assert outcome_fields(outcome)["duration_us"] == 0


@pytest.mark.security(31)
@given(json_values)
def test_encoding_is_total_bounded_and_one_line(args: object) -> None:
    data = _encode(call_fields("intent", _call(args=args)))
    assert len(data) <= RECORD_BYTES_MAX
    assert b"\n" not in data
    record = json.loads(data)
    assert record["request_id"] == "r1"
    assert ("payload_note" in record) is ("args" not in record)


@given(_values(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]))))
def test_a_record_is_the_canonical_form_of_what_it_says(args: object) -> None:
    data = _encode(call_fields("intent", _call(args=args)))
    assert canonical(json.loads(data)) == data


@pytest.mark.security(31)
@given(st.text(), st.text(), st.text())
@pytest.mark.fault(49)
def test_no_text_is_obeyed_by_who_reads_it(tool: str, principal: str, argument: str) -> None:
    evil = "\x1b[2K\r\n\u2028\u202e\u200b\x9b\ufeff\U000e0041"
    call = _call(
        tool=tool + evil,
        principal_id=principal + evil,
        args={argument + evil: evil},
        labels={evil: evil},
    )
    data = _encode(call_fields("intent", call))
    for char in data.decode():
        assert unicodedata.category(char) not in {"Cc", "Zl", "Zp"}
        assert unicodedata.bidirectional(char) not in {"LRE", "RLE", "LRO", "RLO", "PDF"}
        assert unicodedata.bidirectional(char) not in {"LRI", "RLI", "FSI", "PDI"}
    assert evil[:-2] in json.loads(data)["tool"]


def test_escaping_keeps_the_value() -> None:
    evil = "a\x7f\x9b\u2028\u202eb\U000e0041"
    data = _encode(event_fields("e", {"text": evil}))
    assert data.isascii()
    assert json.loads(data)["details"] == {"text": evil}
    assert b"\\u007f" in data
    assert b"\\udb40\\udc41" in data
    assert b'"\\u007f"' in _encode(event_fields("e", {"text": "\x7f"}))


def test_a_record_has_64_kib_at_most() -> None:
    room = 64 * 1024 - len(_encode(event_fields("e", {"text": ""})))
    longest = _encode(event_fields("e", {"text": "x" * room}))
    assert len(longest) == RECORD_BYTES_MAX
    assert len(json.loads(longest)["details"]["text"]) == room
    oversize = json.loads(_encode(event_fields("e", {"text": "x" * (room + 1)})))
    assert "details" not in oversize
    assert oversize["payload_note"] == "left out: 65537 bytes are too many"


def test_an_oversize_payload_is_replaced_by_a_note_and_the_digest_stays() -> None:
    call = _call(args={"blob": "x" * RECORD_BYTES_MAX}, args_digest="sha256:00", erased=("/a",))
    record = json.loads(_encode(call_fields("intent", call)))
    assert not {"args", "erased"} & record.keys()
    assert "bytes are too many" in record["payload_note"]
    assert record["args_digest"] == "sha256:00"
    assert record["erased_count"] == 1


def test_the_worst_record_fits_without_its_payload() -> None:
    worst = "\U000e0041" * 5000  # one character, twelve bytes
    call = _call(
        request_id="r" * 256,
        server=worst,
        tool=worst,
        method=worst,
        principal_id=worst,
        principal_kind=worst,
        decision_id=worst,
        policy_revision=worst,
        args_digest=worst,
        args=worst,
        erased=(worst,) * 100,
        labels={f"{number}{worst}": worst for number in range(100)},
    )
    data = _encode(call_fields("denied", call, reason=worst))
    assert len(data) <= RECORD_BYTES_MAX
    assert json.loads(data)["erased_count"] == 100


def test_arguments_without_a_canonical_form_are_noted() -> None:
    record = json.loads(_encode(call_fields("intent", _call(args={"n": math.nan}))))
    assert "args" not in record
    assert "nan is not a JSON number" in record["payload_note"]


def test_a_lone_surrogate_does_not_stop_a_record() -> None:
    record = json.loads(_encode(call_fields("intent", _call(tool="\ud800x", args="\ud800"))))
    assert record["tool"] == "?x"
    assert "args" not in record


def test_long_names_are_cut() -> None:
    record = call_fields("intent", _call(tool="t" * 300, server="s" * 257, method="m" * 256))
    assert record["tool"] == "t" * 255 + "…"
    assert record["server"] == "s" * 255 + "…"
    assert record["method"] == "m" * 256


def test_messages_may_be_longer_than_names() -> None:
    for message, kept in (("m" * 1024, "m" * 1024), ("m" * 1025, "m" * 1023 + "…")):
        outcome = Outcome(request_id="r1", outcome="error", delivery="unknown", error=message)
        assert outcome_fields(outcome)["error"] == kept
        assert call_fields("denied", _call(), reason=message)["reason"] == kept


def test_of_many_erased_paths_and_labels_the_first_are_kept() -> None:
    paths = tuple(f"/{number}" for number in range(65))
    record = call_fields("intent", _call(erased=paths, labels=dict.fromkeys(paths[:17], "v")))
    assert record["erased"] == list(paths[:64])
    assert record["erased_count"] == 65
    assert record["labels"] == dict.fromkeys(paths[:16], "v")


@pytest.mark.security(30)
def test_references_are_keyed_and_comparable() -> None:
    assert hmac_ref(KEY, "1234") == hmac_ref(KEY, b"1234")
    assert hmac_ref(KEY, "1234") != hmac_ref(b"j" * 32, "1234")
    assert hmac_ref(KEY, "1234").startswith("hmac-sha256:")
    assert hmac_ref(KEY, "\ud800") != hmac_ref(KEY, "?")
    assert hmac_ref(b"k" * 16, "1234").startswith("hmac-sha256:")
    with pytest.raises(ValueError, match="16 bytes or more, got 15"):
        hmac_ref(b"k" * 15, "x")


def test_the_digest_is_of_the_canonical_form() -> None:
    assert args_digest({"b": 1, "a": 2.0}) == args_digest({"a": 2, "b": 1.0})
    assert args_digest({}) == (
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert args_digest({}, key=KEY) == hmac_ref(KEY, args_digest({}))
    with pytest.raises(JSONError):
        args_digest(math.nan)
