from __future__ import annotations

from typing import Any

import pytest
import trio

from sark_trio import jsontext
from sark_trio.governance.decision import Decision
from sark_trio.governance.opa import Headers, Opa, read_answer
from sark_trio.governance.query import Question
from tests.support.governance import query


class Wire:
    """Keeps what was sent, and answers as it is told."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.sent: list[tuple[Any, ...]] = []

    async def __call__(self, *request: Any) -> tuple[int, Headers, bytes]:
        self.sent.append(request)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return 200, [], self._answer


def ask(opa: Opa) -> Decision:
    return trio.run(opa.decide, Question.of(query()))


@pytest.mark.fault(14, 19)
def test_what_is_sent() -> None:
    wire = Wire(b'{"result":true}')
    opa = Opa("http://127.0.0.1:8181/", token="t0ken").bind(wire)
    assert ask(opa).allow
    [(method, url, headers, body, timeout_s)] = wire.sent
    assert method == "POST"
    assert url == (
        "http://127.0.0.1:8181/v1/data/mcp/gateway?provenance=true&strict-builtin-errors=true"
    )
    assert headers == [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("authorization", "Bearer t0ken"),
    ]
    assert body == b'{"input":' + Question.of(query()).encoded + b"}"
    assert timeout_s == 0.5
    assert jsontext.decode(body)["input"]["user"]["id"] == "alice"


def test_without_a_token_there_is_no_authorization() -> None:
    wire = Wire(b'{"result":true}')
    opa = Opa("https://opa.example/base//", path="/v1/data/a b/%7E/\u00e9", timeout_s=10).bind(wire)
    assert ask(opa).allow
    [(_, url, headers, _, timeout_s)] = wire.sent
    assert url.startswith("https://opa.example/base/v1/data/a%20b/%7E/%C3%A9?provenance=true&")
    assert [name for name, _ in headers] == ["content-type", "accept"]
    assert timeout_s == 10


def test_the_token_is_shown_nowhere() -> None:
    opa = Opa("http://127.0.0.1:8181", token="hunter2").bind(Wire(OSError("hunter2")))
    assert "hunter2" not in repr(opa) + repr(ask(opa))


def test_without_an_exchange_nothing_is_decided() -> None:
    decision = ask(Opa("http://127.0.0.1:8181"))
    assert (decision.allow, decision.reason) == (False, "not_bound")
    assert decision.fault == "Opa was given no exchange"


def test_a_url_loses_the_slashes_at_its_end_and_nothing_else() -> None:
    assert Opa("http://h/~//").url == "http://h/~"


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (TimeoutError(), "timeout"),
        (OSError(), "unreachable"),
        (RuntimeError(), "unreachable"),
        (ExceptionGroup("many", [OSError()]), "unreachable"),
    ],
)
def test_failures_to_ask_deny(exc: Exception, reason: str) -> None:
    decision = ask(Opa("http://127.0.0.1:8181").bind(Wire(exc)))
    assert (decision.allow, decision.reason) == (False, reason)


def test_cancellation_is_no_failure_to_ask() -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(Opa("http://127.0.0.1:8181").bind(Wire(KeyboardInterrupt())))


def test_a_revision_is_remembered_from_answers_that_count() -> None:
    opa = Opa("http://h").bind(
        Wire(b'{"result":true,"provenance":{"bundles":{"b":{"revision":"2"},"a":{}}}}')
    )
    assert opa.revision is None
    assert ask(opa).revision == "a=None,b=2"
    assert opa.revision == "a=None,b=2"
    faulty = Opa("http://h").bind(Wire(b'{"result":7,"provenance":{"revision":"x"}}'))
    ask(faulty)
    assert faulty.revision is None


@pytest.mark.parametrize(
    ("provenance", "revision"),
    [
        ('{"revision":"abc"}', "abc"),
        ('{"revision":""}', None),
        ('{"revision":7}', None),
        ('{"bundles":{}}', None),
        ('{"bundles":{"a":7}}', "a=None"),
        ('{"bundles":[]}', None),
        (f'{{"revision":"{"r" * 1_024}"}}', "r" * 1_024),
        ("7", None),
    ],
)
def test_revisions_as_old_and_new_servers_write_them(provenance: str, revision: str) -> None:
    answer = f'{{"result":true,"provenance":{provenance}}}'
    assert read_answer(200, answer.encode()) == Decision(allow=True, revision=revision)


def test_long_revisions_that_differ_at_their_end_stay_two() -> None:
    """A new revision empties the cache of decisions, so none may look like another."""
    found = set()
    for end in "ab":
        revision = "r" * 1_024 + end
        for provenance in ({"revision": revision}, {"bundles": {"x": {"revision": revision}}}):
            answer = jsontext.encode({"result": True, "provenance": provenance})
            found.add(read_answer(200, answer).revision)
    assert len(found) == 4
    assert all(one is not None and len(one) == 71 for one in found)


def test_an_answer_may_be_as_large_as_a_mebibyte() -> None:
    answer = b'{"result":true}'.ljust(1 << 20)
    assert read_answer(200, answer).allow
    assert read_answer(200, answer + b" ").reason == "too_large"


@pytest.mark.fault(19)
@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b'{"result":true}', "status"),
        (204, b"", "status"),
        (200, b'{"result":true,"pad":"%s"}' % (b" " * (1 << 20)), "too_large"),
        (200, b"<html>", "malformed"),
        (200, b"", "malformed"),
        (200, b'{"result":tr', "malformed"),
        (200, b'{"result":true} {}', "malformed"),
        (200, b'{"result":false,"result":true}', "malformed"),
        (200, b"[true]", "malformed"),
        (200, b'{"result":null}', "malformed"),
        (200, b'{"result":"true"}', "malformed"),
        (200, b'{"result":1}', "malformed"),
        (200, b'{"result":{"allow":"yes"}}', "malformed"),
        (200, b'{"result":{"allow":true,"filtered_parameters":[]}}', "malformed"),
        (200, b'{"result":{"allow":true,"obligations":[{"type":"x"}]}}', "malformed"),
        (200, b"{}", "undefined"),
    ],
)
def test_what_is_no_answer_denies(status: int, body: bytes, reason: str) -> None:
    decision = read_answer(status, body)
    assert (decision.allow, decision.reason) == (False, reason)
    assert decision.fault is not None


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"", "OPA answered with status 500"),
        (200, b" " * ((1 << 20) + 1), "OPA answered 1048577 bytes"),
        (200, b"<html>", "OPA's answer is not JSON"),
        (200, b"[true]", "OPA's answer is not an object"),
        (200, b"{}", "OPA's answer has no result"),
    ],
)
def test_the_record_says_what_was_wrong_with_it(status: int, body: bytes, words: str) -> None:
    assert read_answer(status, body).fault == words


def test_the_decision_id_is_the_servers() -> None:
    answer = b'{"decision_id":"d1","result":{"allow":true,"audit_id":"a"}}'
    assert read_answer(200, answer).decision_id == "d1"
    assert read_answer(200, answer.replace(b'"d1"', b"7")).decision_id == "a"


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://h"},
        {"url": "http://"},
        {"url": "h:8181"},
        {"url": "http://u:p@h"},
        {"url": "http://u@h"},
        {"url": "http://:p@h"},
        {"url": "http://h?"},
        {"url": "http://h/#"},
        {"url": "http://h/?a=b"},
        {"url": "http://h/#a"},
        {"path": "/v1/query"},
        {"path": "/v1/data//allow"},
        {"path": "/v1/data/a?b"},
        {"path": "/v1/data/a#b"},
        {"timeout_s": 0},
        {"timeout_s": 11},
        {"token": "a\r\nb"},
        {"token": "a b"},
        {"token": "é"},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"url|path|timeout_s|token"):
        Opa(**{"url": "http://h", **options})
