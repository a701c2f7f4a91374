"""The five subjects of authorization, end to end: a caller, our gateway, a real OPA, a real server.

Everything between the caller and the tool is real but the tool itself, which keeps every byte
that it gets. Each test runs on every event loop.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sark_trio import GatewayClient, Http, Opa, Principal, TokenVerifier
from sark_trio.governance.opa import Headers
from tests.support.client import audited, check_log
from tests.support.gateway import Answer, Served, serving
from tests.support.governance import POLICIES
from tests.support.http_servers import Peer, RawServer, Received, modern, result, serve
from tests.support.opa import http_exchange
from tests.support.peers import opa_server
from tests.support.tokens import AUDIENCE, ISSUER, Issuer

pytestmark = pytest.mark.anyio

KEY = "the-robots-own-key-0123456789"
UPSTREAM_KEY = "what-the-database-wants"
TOOLS = [{"name": "query", "inputSchema": {"type": "object"}}]


class Scene:
    """What a test looks at."""

    def __init__(self, folder: Path) -> None:
        self.audit = folder / "audit"
        self.issuer = Issuer()
        #: Requests to OPA, as they left.
        self.asked: list[tuple[Headers, bytes]] = []
        self.server: RawServer
        self.served: Served

    async def exchange(
        self, method: str, url: str, headers: Headers, body: bytes, timeout_s: float
    ) -> tuple[int, Headers, bytes]:
        self.asked.append((headers, body))
        return await http_exchange(method, url, headers, body, timeout_s)

    def bearer(self, subject: str, **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token(subject, **claims)}"}

    async def invoke(self, who: dict[str, str], **parameters: Any) -> Answer:
        call = {"server": "db", "tool": "query", "parameters": parameters}
        return await self.served.ask("POST", "/api/v1/invoke", call, **who)

    @property
    def calls(self) -> list[Received]:
        """Calls that reached the server."""
        return [each for each in self.server.requests if each.rpc == "tools/call"]

    @property
    def everything(self) -> bytes:
        """Every byte that OPA, the server or the log got."""
        sent = b"".join(
            bytes(each.body) + str(each.headers).encode() for each in self.server.requests
        )
        asked = b"".join(body + str(headers).encode() for headers, body in self.asked)
        return sent + asked + b"".join(path.read_bytes() for path in self.audit.iterdir())


@pytest.fixture(scope="module")
def opa_url() -> Iterator[str]:
    with opa_server(POLICIES / "gateway.rego") as url:
        yield url


@asynccontextmanager
async def scene(folder: Path, opa_url: str) -> AsyncIterator[Scene]:
    place = Scene(folder)

    async def answer(peer: Peer, received: Received) -> None:
        value = {"tools": TOOLS}
        if received.rpc != "tools/list":
            value = {"content": [{"type": "text", "text": "three rows"}]}  # type: ignore[dict-item]
        await peer.send(result(received, value))

    async def keys() -> Any:
        return place.issuer.jwks

    async with serve(modern(answer)) as place.server:
        client = GatewayClient(
            servers={"db": Http(place.server.url, headers={"X-API-Key": UPSTREAM_KEY})},
            policy=Opa(opa_url, exchange=place.exchange, timeout_s=10),
            audit=place.audit,
            identity=TokenVerifier(
                keys=keys, issuer=ISSUER, audience=AUDIENCE, algorithms=("ES256",)
            ),
        )
        robot = Principal(id="robot", kind="service", roles=("analyst",))
        doors: dict[str, Any] = {"api_keys": {KEY: robot}, "verifier": client.authenticate}
        async with client, serving(client, **doors) as place.served:
            yield place
    check_log(place.audit)


@pytest.mark.fault(20, 21, 26)
async def test_opa_authorization_flow(tmp_path: Path, opa_url: str) -> None:
    """A call is decided by OPA, recorded before it leaves, made, and recorded again."""
    async with scene(tmp_path, opa_url) as place:
        found = await place.invoke(place.bearer("ann", roles=["analyst"]), sql="select 1")
        assert found.status == 200
        assert found.json["result"]["content"][0]["text"] == "three rows"
        (call,) = place.calls
        assert call.json["params"]["arguments"] == {"sql": "select 1"}
        # The first question is about the call; a list of tools is asked for by nobody here.
        (question,) = [json.loads(body)["input"] for _, body in place.asked]
        assert question["action"] == "gateway:tool:invoke"
        assert (question["user"]["id"], question["user"]["roles"]) == ("ann", ["analyst"])
        assert (question["server_name"], question["tool_name"]) == ("db", "query")
        assert question["parameters"] == {"sql": "select 1"}
        # The same again is answered from the decision that is kept; other arguments are not.
        await place.invoke(place.bearer("ann", roles=["analyst"]), sql="select 1")
        assert len(place.asked) == 1
        await place.invoke(place.bearer("ann", roles=["analyst"]), sql="select 2")
        await place.invoke(place.bearer("bob", roles=["analyst"]), sql="select 1")
        assert len(place.asked) == 3
    intent, *_ = audited(place.audit, "intent")
    outcome, *_ = audited(place.audit, "outcome")
    assert (intent["principal_id"], intent["server"], intent["tool"]) == ("ann", "db", "query")
    assert (outcome["outcome"], outcome["request_id"]) == ("ok", intent["request_id"])


@pytest.mark.fault(14, 15, 16)
async def test_parameter_filtering(tmp_path: Path, opa_url: str) -> None:
    """What the policy strips does not leave, neither for one caller nor for the next."""
    async with scene(tmp_path, opa_url) as place:
        ann = place.bearer("ann", roles=["analyst"])
        for secrets in ({"password": "hunter2"}, {"token": "t0ken", "api_key": "k3y"}, {}):
            assert (await place.invoke(ann, sql="select 1", **secrets)).status == 200
        bob = place.bearer("bob", roles=["admin"])
        assert (await place.invoke(bob, sql="select 2", password="hunter2")).status == 200
        assert (await place.invoke(ann, password="hunter2")).status == 200
        sent = [each.json["params"]["arguments"] for each in place.calls]
        assert sent == [{"sql": "select 1"}] * 3 + [{"sql": "select 2"}, {}]
        intents = audited(place.audit, "intent")
        assert [each["args"] for each in intents] == sent
        log = b"".join(path.read_bytes() for path in place.audit.iterdir())
        wire = b"".join(bytes(each.body) for each in place.server.requests)
        for secret in (b"hunter2", b"t0ken", b"k3y"):
            assert secret not in wire
            assert secret not in log


@pytest.mark.fault(2, 24, 25)
async def test_authorization_denied(tmp_path: Path, opa_url: str) -> None:
    """A denial is typed, sends no byte, says no word of the policy's, and harms nobody else."""
    async with scene(tmp_path, opa_url) as place:
        ann = place.bearer("ann", roles=["analyst", "viewer"])
        assert (await place.invoke(ann, sql="select 1")).status == 200
        sent = len(place.server.requests)
        for _ in range(6):
            found = await place.invoke(ann, sql="SELECT 1; DROP TABLE users")
            assert (found.status, found.error["type"]) == (403, "denied")
            assert "statement" not in found.body.decode()
            found = await place.invoke(place.bearer("eve", roles=["viewer"]), sql="select 1")
            assert found.status == 403
            found = await place.served.rpc(
                "tools/call",
                {"name": "db__query", "arguments": {"sql": "drop table t"}},
                **ann,
            )
            assert (found.status, found.error["code"]) == (200, 403)
        assert len(place.server.requests) == sent
        # Eighteen denials open no breaker.
        assert (await place.invoke(ann, sql="select 1")).status == 200
    denied = audited(place.audit, "denied")
    assert len(denied) == 18
    assert "a statement and no more" in denied[0]["reason"]


@pytest.mark.fault(14, 17, 48)
async def test_jwt_token_propagation(tmp_path: Path, opa_url: str) -> None:
    """What a token proves reaches policy and log; the token itself reaches nobody."""
    async with scene(tmp_path, opa_url) as place:
        claims = {"roles": ["analyst"], "email": "ann@example.org", "teams": ["data"]}
        token = place.bearer("ann", **claims)
        assert (await place.invoke(token, sql="select 1")).status == 200
        (question,) = [json.loads(body)["input"] for _, body in place.asked]
        user = question["user"]
        assert (user["id"], user["email"], user["teams"]) == ("ann", "ann@example.org", ["data"])
        assert audited(place.audit, "intent")[0]["principal_id"] == "ann"
        raw = token["Authorization"].removeprefix("Bearer ")
        for part in (raw, *raw.split(".")):
            assert part.encode() not in place.everything
        assert all("authorization" not in dict(each.headers) for each in place.server.requests)
        # What proves nothing gets nowhere: another's signature, another audience, too late.
        before = len(place.asked)
        forged = {"Authorization": f"Bearer {Issuer().token('ann', roles=['admin'])}"}
        for who in (
            forged,
            place.bearer("ann", aud="other"),
            place.bearer("ann", exp=1_000_000_000),
            {"Authorization": "Bearer"},
            {},
        ):
            assert (await place.invoke(who, sql="select 1")).status == 401
        assert len(place.asked) == before
        assert len(place.calls) == 1


@pytest.mark.fault(27, 48)
async def test_api_key_authentication(tmp_path: Path, opa_url: str) -> None:
    """Our callers' keys say who they are; the server's own key goes to the server alone."""
    async with scene(tmp_path, opa_url) as place:
        robot = {"X_API_Key": KEY}
        assert (await place.invoke(robot, sql="select 1")).status == 200
        (intent,) = audited(place.audit, "intent")
        assert (intent["principal_id"], intent["principal_kind"]) == ("robot", "service")
        (call,) = place.calls
        assert dict(call.headers)["x-api-key"] == UPSTREAM_KEY
        for wrong in (KEY[:-1], KEY + "0", "", KEY.upper()):
            found = await place.invoke({"X_API_Key": wrong}, sql="select 1")
            assert found.status == 401
        # A token outranks the key beside it, and a wrong key spoils a good token.
        both = {**robot, **place.bearer("ann", roles=["viewer"])}
        assert (await place.invoke(both, sql="select 1")).status == 403
        spoiled = {"X_API_Key": "wrong-key-wrong-key", **place.bearer("ann", roles=["analyst"])}
        assert (await place.invoke(spoiled, sql="select 1")).status == 401
        assert KEY.encode() not in place.everything
        assert UPSTREAM_KEY.encode() not in b"".join(
            path.read_bytes() for path in place.audit.iterdir()
        )
        assert UPSTREAM_KEY.encode() not in b"".join(body for _, body in place.asked)
