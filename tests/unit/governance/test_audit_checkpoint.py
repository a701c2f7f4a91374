from __future__ import annotations

import hashlib

import pytest
from attrs import evolve

from sark_trio.governance.audit_checkpoint import Checkpoint, parse_checkpoints

CHECKPOINT = Checkpoint(log_id="log", size=3, root="aa", chain_head="bb", ts="2026-11-23")


def _sign(body: bytes) -> bytes:
    return hashlib.sha256(b"key" + body).digest()


def _accepts(body: bytes, signature: bytes) -> bool:
    return _sign(body) == signature


def test_a_line_comes_back_as_it_was() -> None:
    signed = CHECKPOINT.signed(_sign)
    data = CHECKPOINT.line() + signed.line()
    assert data.count(b"\n") == 2
    assert list(parse_checkpoints(data)) == [CHECKPOINT, signed]


def test_a_line_that_was_not_finished_is_skipped() -> None:
    data = CHECKPOINT.line() + CHECKPOINT.line()[:-5]
    assert list(parse_checkpoints(data)) == [CHECKPOINT]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"nonsense\n",
        CHECKPOINT.line().replace(b'"size":3', b'"size":"3"'),
        CHECKPOINT.line().replace(b'"log"', b"7"),
        CHECKPOINT.line().replace(b'"signature":null', b'"signature":7'),
        CHECKPOINT.line().replace(b'"size":3', b'"size":3,"size":4'),
        CHECKPOINT.line().replace(b'"size":3', b'"extra":1,"size":3'),
    ],
)
def test_any_other_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="line 2 is not a checkpoint"):
        list(parse_checkpoints(CHECKPOINT.line() + line))


def test_a_signature_covers_everything() -> None:
    signed = CHECKPOINT.signed(_sign)
    assert signed.is_signed_by(_accepts)
    for change in ({"log_id": "x"}, {"size": 4}, {"root": "x"}, {"chain_head": "x"}, {"ts": "x"}):
        assert not evolve(signed, **change).is_signed_by(_accepts)
    assert CHECKPOINT.is_signed_by(_accepts) is False
    assert evolve(signed, signature="not hex").is_signed_by(_accepts) is False
    assert signed.body() == CHECKPOINT.body()
