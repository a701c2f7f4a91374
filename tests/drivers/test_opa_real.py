"""The real OPA server, and servers that only look like one: rows 45 to 47 of the fault matrix."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpcore
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from hypothesis import given, settings
from hypothesis import strategies as st

from sark_trio import jsontext
from sark_trio.governance.decision import Decision
from sark_trio.governance.filters import restrict
from sark_trio.governance.opa import Headers, Opa, read_answer
from sark_trio.governance.pipeline import Governor
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import DISCOVER, INVOKE, Query, Question
from tests.support.governance import POLICIES, load, query
from tests.support.json_values import small_json
from tests.support.opa import http_exchange
from tests.support.peers import opa_server


@pytest.fixture(scope="module")
def opa_url() -> Iterator[str]:
    with opa_server(POLICIES / "gateway.rego") as url:
        yield url


@pytest.mark.anyio
@pytest.mark.fault(19, 24, 26)
@pytest.mark.parametrize(
    ("roles", "sql", "allow"),
    [
        (("analyst",), "select 1", True),
        (("analyst", "viewer"), "select 1;", True),
        (("analyst",), "SELECT 1; DROP TABLE users", False),
        (("admin", "analyst"), "SELECT 1; DROP TABLE users", True),
        (("viewer",), "select 1", False),
        ((), "select 1", False),
    ],
)
async def test_argument_rules_hold_on_the_server(
    opa_url: str, roles: tuple[str, ...], sql: str, allow: bool
) -> None:
    governor = Governor(policy=Opa(opa_url, exchange=http_exchange, timeout_s=10))
    asked = query(
        principal=Principal(id="p", roles=roles), arguments={"sql": sql, "password": "hunter2"}
    )
    verdict = await governor.decide(0.0, asked)
    assert verdict.allow is allow
    assert verdict.fault is None
    assert verdict.arguments == ({"sql": sql} if allow else {})
    again = await governor.decide(1.0, asked)
    assert again.cached is allow
    assert again.digest == verdict.digest


_queries = st.builds(
    Query,
    principal=st.builds(
        Principal,
        id=st.sampled_from(["alice", "bob"]),
        roles=st.lists(st.sampled_from(["admin", "analyst", "viewer"]), max_size=3),
        permissions=st.lists(st.sampled_from(["db/query", "files/read"]), max_size=2),
    ),
    action=st.sampled_from([INVOKE, INVOKE, DISCOVER]),
    server=st.sampled_from(["db", "files"]),
    tool=st.sampled_from(["query", "read"]),
    sensitivity=st.sampled_from(["low", "high"]),
    arguments=st.dictionaries(
        st.sampled_from(["sql", "password", "limit", "options"]),
        st.sampled_from(["select 1", "drop table t", "a;b", "Grant;", 7]) | small_json(),
        max_size=4,
    ),
)


async def _post(pool: httpcore.AsyncConnectionPool, url: str, question: Question) -> Decision:
    async def exchange(
        method: str, url: str, headers: Headers, body: bytes, timeout_s: float
    ) -> tuple[int, Headers, bytes]:
        answer = await pool.request(method, url, headers=list(headers), content=body)
        return answer.status, [], answer.content

    return await Opa(url, exchange=exchange).decide(question)


@pytest.mark.parametrize("policy", ["gateway.rego", "obligations.rego"])
def test_both_engines_say_the_same(policy: str) -> None:
    """Differential: in process and over HTTP, the same policy decides the same bytes."""
    engine = load(policy)
    with opa_server(POLICIES / policy) as url:

        @settings(max_examples=settings().max_examples * 4)
        @given(asked=_queries)
        def check(asked: Query) -> None:
            question = Question.of(asked)
            with httpcore.ConnectionPool() as pool:
                answer = pool.request(
                    "POST",
                    f"{url}/v1/data/mcp/gateway?strict-builtin-errors=true",
                    content=b'{"input":' + question.encoded + b"}",
                )
            theirs = read_answer(answer.status, answer.content)
            ours = engine.evaluate(question.encoded)
            assert (ours.allow, ours.reason, ours.ttl_s) == (
                theirs.allow,
                theirs.reason,
                theirs.ttl_s,
            )
            assert (ours.fault is None) is (theirs.fault is None)
            if ours.allow:
                assert _sent(asked, ours) == _sent(asked, theirs)
            assert set(map(repr, ours.obligations)) == set(map(repr, theirs.obligations))

        check()


def _sent(asked: Query, decision: Decision) -> bytes:
    """What would be sent; engines write a number as they like (``1E2`` for ``100``)."""
    wanted = asked.arguments if decision.arguments is None else decision.arguments
    return jsontext.canonical(restrict(asked.arguments, wanted))


@pytest.mark.row(47)
@pytest.mark.anyio
async def test_a_builtin_that_fails_in_a_deny_rule_denies(tmp_path: Path) -> None:
    """OPA takes it for undefined unless asked to be strict: the number would pass."""
    policy = tmp_path / "policy.rego"
    policy.write_text(
        "package mcp.gateway\nimport rego.v1\nallow := true\n"
        'deny contains "no" if contains(input.parameters.sql, ";")\n'
    )
    question = Question.of(query(arguments={"sql": 7}))
    with opa_server(policy) as url:
        decision = await Opa(url, exchange=http_exchange, timeout_s=10).decide(question)
    assert not decision.allow
    assert decision.reason == "status"


@pytest.mark.row(46)
@pytest.mark.anyio
async def test_a_document_that_does_not_exist_is_no_answer(opa_url: str) -> None:
    opa = Opa(opa_url, path="/v1/data/nobody/home", exchange=http_exchange, timeout_s=10)
    decision = await opa.decide(Question.of(query()))
    assert (decision.allow, decision.reason) == (False, "undefined")


@pytest.mark.anyio
async def test_a_rule_that_is_a_boolean_is_an_answer(opa_url: str) -> None:
    path = "/v1/data/mcp/gateway/allow"
    opa = Opa(opa_url, path=path, exchange=http_exchange, timeout_s=10)
    assert (await opa.decide(Question.of(query()))).allow
    nobody = query(principal=Principal.anonymous())
    assert await opa.decide(Question.of(nobody)) == Decision(allow=False)


Serve = Callable[[anyio.abc.SocketStream], Awaitable[None]]


@asynccontextmanager
async def _server(serve: Serve) -> AsyncIterator[str]:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            yield f"http://127.0.0.1:{port}"
            group.cancel_scope.cancel()


def _says(answer: bytes) -> Serve:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            # The whole request first: closing over unread bytes would reset the connection,
            # and the client would lose the answer now and then.
            reader = BufferedByteReceiveStream(stream)
            head = await reader.receive_until(b"\r\n\r\n", 65_536)
            [size] = re.findall(rb"content-length: (\d+)", head.lower())
            await reader.receive_exactly(int(size))
            await stream.send(answer)

    return serve


def _http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), size, body)


@pytest.mark.row(45, 46)
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_http(b'{"result":true}', "500 Internal Server Error"), "status"),
        (_http(b'{"result":true}', "201 Created"), "status"),
        (_http(b'{"result":true}', "302 Found"), "status"),
        (_http(b"<html>Sign in</html>"), "malformed"),
        (_http(b""), "malformed"),
        (_http(b'{"result":true}', length=99), "unreachable"),
        (b"", "unreachable"),
        (b"nonsense\r\n\r\n", "unreachable"),
        (_http(b"{}"), "undefined"),
        (_http(b'{"result":null}'), "malformed"),
        (_http(b'{"result":"true"}'), "malformed"),
        (_http(b'{"result":1}'), "malformed"),
        (_http(b'{"result":{"allow":"yes"}}'), "malformed"),
        (_http(b'{"result":false,"result":true}'), "malformed"),
        (_http(b'{"result":true}{"result":true}'), "malformed"),
        (_http(b'{"result":true,"pad":"' + b" " * (2 << 20) + b'"}'), "too_large"),
    ],
)
async def test_what_is_not_an_answer_denies(answer: bytes, reason: str) -> None:
    async with _server(_says(answer)) as url:
        governor = Governor(policy=Opa(url, exchange=http_exchange, timeout_s=5))
        verdict = await governor.decide(0.0, query())
    assert (verdict.allow, verdict.reason) == (False, reason)
    assert verdict.fault is not None
    assert governor.cache.statistics().entries == 0


@pytest.mark.row(46)
@pytest.mark.anyio
async def test_an_empty_result_is_a_plain_no() -> None:
    async with _server(_says(_http(b'{"result":{}}'))) as url:
        decision = await Opa(url, exchange=http_exchange, timeout_s=5).decide(Question.of(query()))
    assert (decision.allow, decision.reason, decision.fault) == (False, "undefined", None)


@pytest.mark.row(45)
@pytest.mark.anyio
async def test_nobody_listening_denies() -> None:
    async with _server(_says(b"")) as url:
        pass
    decision = await Opa(url, exchange=http_exchange).decide(Question.of(query()))
    assert (decision.allow, decision.reason) == (False, "unreachable")


async def _silent(stream: anyio.abc.SocketStream) -> None:
    async with stream:
        await anyio.sleep_forever()


@pytest.mark.row(45)
@pytest.mark.anyio
async def test_silence_denies_within_the_timeout() -> None:
    async with _server(_silent) as url:
        opa = Opa(url, exchange=http_exchange, timeout_s=0.05)
        with anyio.fail_after(5):
            decision = await opa.decide(Question.of(query()))
    assert not decision.allow
    assert decision.reason in {"timeout", "unreachable"}


@pytest.mark.anyio
async def test_cancellation_passes_through_and_keeps_nothing() -> None:
    async with _server(_silent) as url:
        governor = Governor(policy=Opa(url, exchange=http_exchange, timeout_s=10))
        with anyio.move_on_after(0.05) as scope:
            await governor.decide(0.0, query())
    assert scope.cancelled_caught
    assert governor.cache.statistics().entries == 0


@pytest.mark.row(47)
@pytest.mark.anyio
@pytest.mark.fault(15, 22)
async def test_a_new_revision_flushes_and_an_outage_uses_no_old_allow() -> None:
    answers: list[Any] = [
        b'{"result":true,"provenance":{"bundles":{"b":{"revision":"1"}}}}',
        b'{"result":true,"provenance":{"bundles":{"b":{"revision":"2"}}}}',
        OSError("refused"),
        b'{"result":true,"provenance":{"bundles":{"b":{"revision":"2"}}}}',
    ]

    async def exchange(*_: Any) -> tuple[int, Headers, bytes]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return 200, [], answer

    governor = Governor(policy=Opa("http://127.0.0.1:8181", exchange=exchange))
    one, two = query(), query(arguments={"sql": "select 2"})
    assert (await governor.decide(0.0, one)).revision == "b=1"
    assert (await governor.decide(0.1, one)).cached
    assert (await governor.decide(0.2, two)).revision == "b=2"
    verdict = await governor.decide(0.3, one)  # revision 1 allowed it; revision 2 was not asked
    assert (verdict.allow, verdict.reason) == (False, "unreachable")
    assert (await governor.decide(0.4, one)).allow  # the outage itself was not kept
