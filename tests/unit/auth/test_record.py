from __future__ import annotations

import json
from typing import Any

import pytest

from sark_trio.auth.record import ISSUERS_MAX, Grant, Record, parse_record, record_text
from sark_trio.auth.registration import ClientIdentity
from sark_trio.auth.token import TokenSet
from sark_trio.errors import ConfigError

GRANT = Grant(
    client=ClientIdentity(issuer="i", client_id="c", auth_method="none", client_secret="s"),
    tokens=TokenSet(access_token="a", refresh_token="r", scopes=("x",), requested=("x", "y")),
    resource="https://h/mcp",
    token_endpoint="https://as/t",
)


def test_a_record_survives_its_text() -> None:
    record = Record(bound="i", key={"kty": "EC"}).using("i", GRANT).using("j", Grant())
    assert parse_record(record_text(record)) == record
    assert parse_record(record_text(Record())) == Record()


def test_grants_are_kept_apart_by_issuer() -> None:
    record = Record().using("i", GRANT).using("j", Grant())
    assert record.grant == Grant()
    assert record.at("i") == GRANT
    assert record.at(None) == record.at("unknown") == Grant()


def test_the_oldest_issuer_is_forgotten() -> None:
    record = Record()
    for number in range(20):
        record = record.using(str(number), GRANT)
    assert list(record.grants) == [str(number) for number in range(20 - ISSUERS_MAX, 20)]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"grants": []},
        {"grants": {"i": None}},
        {"grants": {"i": {}}},
        {
            "grants": {
                "i": {"client": {"x": 1}, "tokens": None, "resource": "", "token_endpoint": ""}
            }
        },
    ],
)
def test_damage_is_told_without_its_text(change: dict[str, Any]) -> None:
    value = json.loads(record_text(Record().using("i", GRANT)))
    with pytest.raises(ConfigError, match="sign in again"):
        parse_record(json.dumps({**value, **change}))


@pytest.mark.parametrize("text", ["", "[]", "{}", "s3cret"])
def test_what_is_no_record(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_record(text)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
