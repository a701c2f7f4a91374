"""Governance through the whole client: decided bytes are sent bytes, and a no is 0 bytes."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from sark_trio import (
    AllowAll,
    Decision,
    GatewayClient,
    Http,
    JwksUrl,
    Opa,
    Principal,
    Rego,
    Stdio,
    TLSOptions,
    TokenVerifier,
    ToolRule,
)
from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ConfigError,
    Denied,
    GatewayError,
    HTTPStatusError,
    OutcomeUnknown,
    PolicyUnavailable,
    ProtocolError,
    RateLimited,
)
from tests.support.client import audited, check_log, outcomes
from tests.support.governance import POLICIES, Answers
from tests.support.http_servers import (
    Peer,
    RawServer,
    Received,
    modern,
    response,
    result,
    serve,
)
from tests.support.peers import http_server, opa_server, stdio_server
from tests.support.tokens import AUDIENCE, ISSUER, Issuer

pytestmark = pytest.mark.anyio

ANALYST = Principal(id="ada", roles=("analyst",))
ADMIN = Principal(id="root", roles=("admin",))
VIEWER = Principal(id="bob", roles=("viewer",))
TOOLS = [
    {"name": "query", "inputSchema": {"type": "object"}},
    {"name": "read", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
]
Handler = Callable[[Peer, Received], Awaitable[None]]


def done(received: Received) -> bytes:
    return result(received, {"content": [{"type": "text", "text": "done"}]})


@asynccontextmanager
async def recording(handler: Handler | None = None) -> AsyncIterator[RawServer]:
    """An MCP server that keeps every request as it came, and answers calls as *handler* does."""

    async def answer(peer: Peer, received: Received) -> None:
        if received.rpc == "tools/list":
            await peer.send(result(received, {"tools": TOOLS}))
        elif handler is not None:
            await handler(peer, received)
        else:
            await peer.send(done(received))

    async with serve(modern(answer)) as server:
        yield server


def calls(server: RawServer) -> list[Received]:
    return [received for received in server.requests if received.rpc == "tools/call"]


def sent(server: RawServer) -> list[dict[str, Any]]:
    return [received.json["params"]["arguments"] for received in calls(server)]


def make(server: RawServer | str, folder: Path, **options: Any) -> GatewayClient:
    url = server if isinstance(server, str) else server.url
    own = {name[7:]: options.pop(name) for name in list(options) if name.startswith("server_")}
    defaults: dict[str, Any] = {"policy": AllowAll(), "principal": ANALYST, "jitter": lambda: 0.0}
    return GatewayClient(
        servers={"db": Http(url, **own)}, audit=folder / "audit", **{**defaults, **options}
    )


# -- the same decisions, wherever the policy runs -------------------------------------------------

QUESTIONS: list[tuple[Principal, dict[str, Any], dict[str, Any] | None]] = [
    (ANALYST, {"sql": "select 1"}, {"sql": "select 1"}),
    (ANALYST, {"sql": "select 1", "password": "hunter2"}, {"sql": "select 1"}),
    (ANALYST, {"sql": "SELECT 1; DROP TABLE users"}, None),
    (ANALYST, {"sql": "drop table users"}, None),
    (ADMIN, {"sql": "drop table users"}, {"sql": "drop table users"}),
    (VIEWER, {"sql": "select 1"}, None),
    (Principal.anonymous(), {"sql": "select 1"}, None),
    (ANALYST, {"token": "only secrets"}, {}),
]


@pytest.mark.security(2)
@pytest.mark.law("Z4")
@pytest.mark.fault(2, 16, 17, 19, 20, 26)
@pytest.mark.parametrize("where", ["rego", "opa"])
async def test_rego_in_process_and_an_opa_server_decide_alike(where: str, tmp_path: Path) -> None:
    """Z4: denied implies 0 upstream bytes and 1 audit record."""
    gateway = POLICIES / "gateway.rego"
    async with recording() as server:
        if where == "rego":
            await _ask_all(make(server, tmp_path, policy=Rego(gateway)), server, tmp_path)
        else:
            with opa_server(gateway) as url:
                policy = Opa(url, timeout_s=10)
                await _ask_all(make(server, tmp_path, policy=policy), server, tmp_path)


async def _ask_all(client: GatewayClient, server: RawServer, folder: Path) -> None:
    allowed = []
    async with client:
        for principal, arguments, expected in QUESTIONS:
            before = len(server.requests)
            if expected is None:
                with pytest.raises(Denied) as caught:
                    await client.invoke_tool("db", "query", arguments, principal=principal)
                assert not isinstance(caught.value, PolicyUnavailable)
                assert caught.value.delivery == "not_sent"
                assert len(server.requests) == max(before, len(server.requests[:before]))
            else:
                await client.invoke_tool("db", "query", arguments, principal=principal)
                allowed.append(expected)
        votes = client.statistics().servers["db"].breaker
        assert (votes.state, votes.failures, votes.outstanding) == ("closed", 0, 0)
    assert sent(server) == allowed
    found = check_log(folder / "audit")
    refused = [expected for _, _, expected in QUESTIONS if expected is None]
    assert len([each for each in found if each["kind"] == "denied"]) == len(refused)
    assert len([each for each in found if each["kind"] == "intent"]) == len(allowed)
    text = b"".join(path.read_bytes() for path in (folder / "audit").iterdir())
    assert b"hunter2" not in text


@pytest.mark.security(3)
@pytest.mark.law("Z2")
@pytest.mark.fault(15)
async def test_the_digest_of_the_intent_is_of_the_bytes_on_the_wire(tmp_path: Path) -> None:
    """Z2: decided bytes = sent bytes."""
    async with recording() as server:
        rules = {"query": ToolRule(sensitive_params=("PASSWORD",))}
        async with make(server, tmp_path, server_tools=rules) as client:
            for arguments in (
                {"sql": "select 'ä€😀'", "password": "hunter2", "limit": 1.5},
                {},
                {"nested": [{"deep": [None, True, 2**53 - 1, -0.0]}]},
            ):
                await client.invoke_tool("db", "query", arguments)
        assert all("password" not in each for each in sent(server))
        assert b"hunter2" not in b"".join(each.body for each in server.requests)
        # Keyed: a plain hash of arguments that can be guessed is no secret.
        digests = [client._audit.digest(each) for each in sent(server)]
    assert [each["args_digest"] for each in audited(tmp_path / "audit", "intent")] == digests
    check_log(tmp_path / "audit")


@pytest.mark.fault(16)
async def test_a_policy_that_strips_everything_sends_nothing_of_it(tmp_path: Path) -> None:
    policy = Answers(Decision(allow=True, arguments={}))
    async with recording() as server, make(server, tmp_path, policy=policy) as client:
        await client.invoke_tool("db", "query", {"sql": "select 1", "token": "secret"})
        assert sent(server) == [{}]
        assert b"secret" not in b"".join(each.body for each in server.requests)


@pytest.mark.security(1)
@pytest.mark.fault(17, 18)
@pytest.mark.parametrize("kind", ["http", "stdio"])
async def test_without_a_policy_nothing_is_called_on_any_transport(
    kind: str, tmp_path: Path
) -> None:
    with http_server("everything-mcp2") as url:
        servers = {"db": Http(url) if kind == "http" else Stdio(stdio_server("everything-mcp2"))}
        async with GatewayClient(servers=servers, audit=tmp_path / "audit") as client:
            for _ in range(2):
                with pytest.raises(PolicyUnavailable):
                    await client.invoke_tool("db", "effect", {"name": "x"})
        assert len(audited(tmp_path / "audit", "denied")) == 2
        counting = GatewayClient(servers=servers, policy=AllowAll(), audit=tmp_path / "second")
        async with counting as client:
            counted = await client.invoke_tool("db", "effect", {"name": "x"})
            assert counted.structured_content == {"result": 1}


@pytest.mark.security(11)
@pytest.mark.fault(14, 15)
async def test_a_decision_is_never_somebody_elses(tmp_path: Path) -> None:
    alice, bob = Principal(id="alice", roles=("admin",)), Principal(id="bob", roles=("viewer",))
    policy = Rego(POLICIES / "gateway.rego")
    async with recording() as server, make(server, tmp_path, policy=policy) as client:
        await client.invoke_tool("db", "query", {"sql": "select 1"}, principal=alice)
        with pytest.raises(Denied):
            await client.invoke_tool("db", "query", {"sql": "select 1"}, principal=bob)
        await client.invoke_tool("db", "query", {"sql": "drop table x"}, principal=alice)
        assert sent(server) == [{"sql": "select 1"}, {"sql": "drop table x"}]


# -- OPA that is sick -----------------------------------------------------------------------------


async def _says(peer: Peer, answer: bytes | None) -> None:
    while True:
        await peer.receive()
        if answer is None:
            await anyio.sleep_forever()
        await peer.send(answer)


SICK = {
    "silent": None,
    "500": response(b'{"code":"internal_error"}', status="500 Internal Server Error"),
    "html": response(b"<html>", content_type="text/html"),
    "empty": response(b""),
    "undefined": response(b"{}"),
    "word": response(b'{"result":"true"}'),
    "number": response(b'{"result":1}'),
    "string": response(b'{"result":{"allow":"true"}}'),
    "cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b'{"result":tr',
    "redirect": response(b"", status="302 Found", Location="http://127.0.0.1:1/"),
    "endless": b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n" + b" " * 2_000_000,
}


@pytest.mark.security(1)
@pytest.mark.row(45, 46)
@pytest.mark.parametrize("how", list(SICK))
@pytest.mark.fault(2, 19)
async def test_an_opa_that_is_sick_denies_within_half_a_second(how: str, tmp_path: Path) -> None:
    async with recording() as server, serve(lambda peer: _says(peer, SICK[how])) as opa:
        policy = Opa(f"http://127.0.0.1:{opa.port}")
        async with make(server, tmp_path, policy=policy) as client:
            await client.connect("db")
            for _ in range(2):
                began = anyio.current_time()
                with pytest.raises(PolicyUnavailable):
                    await client.invoke_tool("db", "query", {"sql": "select 1"})
                assert anyio.current_time() - began < 2.0
        assert calls(server) == []
    assert len(audited(tmp_path / "audit", "denied")) == 2
    check_log(tmp_path / "audit")


@pytest.mark.row(45)
async def test_an_opa_that_is_not_there_denies_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    async with recording() as server, make(server, tmp_path, policy=Opa(url)) as client:
        with pytest.raises(PolicyUnavailable):
            await client.invoke_tool("db", "query", {"sql": "select 1"})
        assert calls(server) == []


@pytest.mark.security(4)
@pytest.mark.fault(14, 26)
async def test_opa_is_asked_in_words_that_policies_read_and_is_shown_no_token(
    tmp_path: Path,
) -> None:
    asked: list[Received] = []

    async def allow(peer: Peer) -> None:
        while True:
            asked.append(await peer.receive())
            await peer.send(response(b'{"result":{"allow":true}}'))

    issuer = Issuer()
    token = issuer.token("ada", roles=["analyst"])
    identity = TokenVerifier(
        keys=issuer.jwks, issuer=ISSUER, audience=AUDIENCE, algorithms=("ES256",)
    )
    async with recording() as server, serve(allow) as opa:
        policy = Opa(f"http://127.0.0.1:{opa.port}", token="opas-own")
        async with make(server, tmp_path, policy=policy, identity=identity) as client:
            ada = await client.authenticate(token)
            await client.invoke_tool("db", "query", {"sql": "select 1"}, principal=ada)
            await client.invoke_tool("db", "query", {"sql": "select 1"}, principal=ada)
    (question,) = asked
    assert question.headers["authorization"] == "Bearer opas-own"
    body = question.json["input"]
    assert body["user"]["id"] == "ada"
    assert body["user"]["roles"] == ["analyst"]
    assert (body["server_name"], body["tool_name"]) == ("db", "query")
    assert body["parameters"] == body["tool"]["parameters"] == {"sql": "select 1"}
    signature = token.rpartition(".")[2]
    everything = json.dumps(body) + "".join(
        path.read_text() for path in (tmp_path / "audit").iterdir()
    )
    assert signature not in everything
    assert token.split(".")[1] not in everything


# -- who calls ------------------------------------------------------------------------------------


def verifier(keys: Any) -> TokenVerifier:
    return TokenVerifier(keys=keys, issuer=ISSUER, audience=AUDIENCE, algorithms=("ES256",))


@asynccontextmanager
async def publishing(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    async with serve(lambda peer: _says(peer, answer), tls=tls) as server:
        yield server


@pytest.mark.fault(14, 20)
async def test_a_token_proves_a_principal_by_keys_from_a_url(tmp_path: Path) -> None:
    issuer = Issuer()
    keys = response(json.dumps(issuer.jwks).encode())
    async with recording() as server, publishing(keys) as jwks:
        identity = verifier(JwksUrl(f"http://127.0.0.1:{jwks.port}/jwks"))
        policy = Rego(POLICIES / "gateway.rego")
        async with make(server, tmp_path, policy=policy, identity=identity) as client:
            ada, bob = issuer.token("ada", roles=["analyst"]), issuer.token("bob")
            principals = [await client.authenticate(each) for each in (ada, bob)]
            assert [each.id for each in principals] == ["ada", "bob"]
            await client.invoke_tool("db", "query", {"sql": "select 1"}, principal=principals[0])
            with pytest.raises(Denied):
                await client.invoke_tool("db", "query", {"sql": "x"}, principal=principals[1])
            with pytest.raises(Denied) as forged:
                await client.authenticate(Issuer().token("ada", roles=["admin"]))
            with pytest.raises(Denied) as old:
                await client.authenticate(issuer.token("ada", exp=1))
        assert len(jwks.requests) == 1
    assert (forged.value.reason, old.value.reason) == ("token_invalid", "token_expired")


async def test_keys_come_over_tls_from_whom_we_trust(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    issuer = Issuer()
    keys = response(json.dumps(issuer.jwks).encode())
    async with publishing(keys, context) as jwks, recording() as server:
        url = f"https://127.0.0.1:{jwks.port}/jwks"
        async with make(server, tmp_path, identity=verifier(JwksUrl(url))) as client:
            with pytest.raises(Denied) as distrusted:
                await client.authenticate(issuer.token("ada"))
        assert distrusted.value.reason == "keys_unavailable"
        assert jwks.requests == []
        tls = TLSOptions(ca_data=authority.cert_pem.bytes().decode())
        async with make(server, tmp_path, identity=verifier(JwksUrl(url)), tls=tls) as client:
            assert (await client.authenticate(issuer.token("ada"))).id == "ada"


@pytest.mark.parametrize(
    "answer",
    [
        response(b"not found", status="404 Not Found"),
        response(b"", status="302 Found", Location="http://127.0.0.1:1/jwks"),
        response(b"[]"),
        response(b'{"keys": {}}'),
        response(b"{"),
    ],
)
async def test_keys_that_cannot_be_had_prove_nobody(answer: bytes, tmp_path: Path) -> None:
    async with publishing(answer) as jwks, recording() as server:
        identity = verifier(JwksUrl(f"http://127.0.0.1:{jwks.port}/jwks"))
        async with make(server, tmp_path, identity=identity) as client:
            with pytest.raises(Denied) as caught:
                await client.authenticate(Issuer().token("ada"))
            assert caught.value.reason == "keys_unavailable"


@pytest.mark.parametrize("url", ["http://issuer.example/jwks", "ftp://x/", "jwks.json", ""])
def test_keys_are_not_taken_from_where_anybody_could_swap_them(url: str) -> None:
    with pytest.raises(ConfigError, match="https"):
        JwksUrl(url)


async def test_without_a_verifier_no_token_proves_anything(tmp_path: Path) -> None:
    async with recording() as server, make(server, tmp_path) as client:
        with pytest.raises(ConfigError, match="identity"):
            await client.authenticate("a.b.c")


# -- how often it is sent -------------------------------------------------------------------------


def failing(status: str, **headers: str) -> Handler:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(response(b"sick", status=status, content_type="text/plain", **headers))

    return handle


@pytest.mark.row(17)
@pytest.mark.fault(4)
async def test_a_503_on_an_unsafe_call_is_sent_once(tmp_path: Path) -> None:
    async with recording(failing("503 Service Unavailable")) as server:
        async with make(server, tmp_path) as client:
            with pytest.raises(HTTPStatusError) as caught:
                await client.invoke_tool("db", "query")
        assert len(calls(server)) == 1
    assert (caught.value.status, caught.value.attempts) == (503, 1)
    assert caught.value.delivery == "answered"


@pytest.mark.fault(4)
async def test_a_503_on_a_reading_tool_of_a_trusted_server_is_sent_three_times(
    tmp_path: Path,
) -> None:
    async with recording(failing("503 Service Unavailable")) as server:
        async with make(server, tmp_path, server_trusted=True) as client:
            with pytest.raises(HTTPStatusError) as caught:
                await client.invoke_tool("db", "read")
        assert len(calls(server)) == 3
        assert len({each.id for each in calls(server)}) == 3
    assert caught.value.attempts == 3
    assert len(audited(tmp_path / "audit", "attempt")) == 2
    check_log(tmp_path / "audit")


@pytest.mark.row(15)
@pytest.mark.fault(2, 3, 4)
@pytest.mark.parametrize(
    "status", ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "409 Conflict", "429 Slow"]
)
async def test_what_a_healthy_server_refuses_is_sent_once_and_opens_no_breaker(
    status: str, tmp_path: Path
) -> None:
    async with recording(failing(status)) as server:
        async with make(server, tmp_path) as client:
            for _ in range(6):
                with pytest.raises(HTTPStatusError) as caught:
                    await client.invoke_tool("db", "query")
                assert not isinstance(caught.value, CircuitOpen)
            assert client.statistics().servers["db"].breaker.state == "closed"
        assert len(calls(server)) == 6
        assert isinstance(caught.value, RateLimited) is status.startswith("429")


@pytest.mark.fault(3)
async def test_one_sick_server_leaves_the_others_alone(tmp_path: Path) -> None:
    async with recording(failing("500 Internal Server Error")) as sick, recording() as well:
        async with make(sick, tmp_path) as client:
            await client.add_server("well", well.url)
            for _ in range(5):
                with pytest.raises(HTTPStatusError):
                    await client.invoke_tool("db", "query")
            with pytest.raises(CircuitOpen) as caught:
                await client.invoke_tool("db", "query")
            assert (await client.invoke_tool("well", "query")).text == "done"
        assert len(calls(sick)) == 5
    assert caught.value.retry_after_s is not None
    assert 0 < caught.value.retry_after_s <= 30


@pytest.mark.fault(5)
async def test_one_deadline_over_all_attempts(tmp_path: Path) -> None:
    async def silent(peer: Peer, received: Received) -> None:
        await anyio.sleep_forever()

    async with recording(silent) as server, make(server, tmp_path) as client:
        began = anyio.current_time()
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("db", "query", timeout_s=0.3, replay_safe=True)
        assert anyio.current_time() - began < 2.0
        assert len(calls(server)) == 1
    assert caught.value.delivery == "unknown"


@pytest.mark.row(5)
@pytest.mark.fault(5)
async def test_a_connection_that_breaks_after_the_request_is_not_used_to_send_it_again(
    tmp_path: Path,
) -> None:
    async def reset(peer: Peer, received: Received) -> None:
        await peer.reset()
        raise anyio.EndOfStream

    async with recording(reset) as server, make(server, tmp_path) as client:
        with pytest.raises(OutcomeUnknown):
            await client.invoke_tool("db", "query")
        assert len(calls(server)) == 1
    assert outcomes(tmp_path / "audit") == [("unknown", "unknown")]


@pytest.mark.row(14)
@pytest.mark.fault(27)
async def test_a_redirect_takes_neither_call_nor_credentials_elsewhere(tmp_path: Path) -> None:
    async with recording() as elsewhere:

        async def redirect(peer: Peer, received: Received) -> None:
            await peer.send(response(b"", status="302 Found", Location=elsewhere.url))

        async with recording(redirect) as server:
            headers = {"X-API-Key": "secret"}
            async with make(server, tmp_path, server_headers=headers) as client:
                with pytest.raises(GatewayError):
                    await client.invoke_tool("db", "query")
            assert len(calls(server)) == 1
        assert elsewhere.connections == 0


@pytest.mark.row(27)
@pytest.mark.fault(31)
@pytest.mark.parametrize("body", [b"<html>", b"{", b"[1]"])
async def test_an_answer_that_is_none_is_one_error_and_not_sent_again(
    body: bytes, tmp_path: Path
) -> None:
    async def nonsense(peer: Peer, received: Received) -> None:
        await peer.send(response(body))

    async with recording(nonsense) as server, make(server, tmp_path) as client:
        with pytest.raises(ProtocolError):
            await client.invoke_tool("db", "query", replay_safe=True)
        assert len(calls(server)) == 1


@pytest.mark.row(52)
@pytest.mark.fault(9)
async def test_the_wall_clock_moves_no_breaker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick = recording(failing("500 Internal Server Error"))
    async with sick as server, make(server, tmp_path) as client:
        for _ in range(5):
            with pytest.raises(HTTPStatusError):
                await client.invoke_tool("db", "query")
        before = client.statistics().servers["db"].breaker
        monkeypatch.setattr("time.time", lambda: 4e9)
        with pytest.raises(CircuitOpen):
            await client.invoke_tool("db", "query")
        after = client.statistics().servers["db"].breaker
        assert (after.state, after.open_until) == ("open", before.open_until)
        assert after.failures == before.failures == 5
