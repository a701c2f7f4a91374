"""``/api/v1/gateway``: decisions over HTTP, by a real OPA and by the same policy in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sark_trio import AuditLog, GatewayClient, Opa, Principal, Rego, TokenVerifier, ToolRule
from sark_trio.client.servers import Memory
from tests.support.audit_disk import MemoryDisk
from tests.support.backends import BACKENDS
from tests.support.client import Desk, audited, check_log, tool
from tests.support.gateway import Answer, Served, serving
from tests.support.governance import POLICIES
from tests.support.peers import opa_server
from tests.support.tokens import AUDIENCE, ISSUER, Issuer

pytestmark = pytest.mark.anyio

POLICY = POLICIES / "agents.rego"
AUDIT_KEY = "the-key-of-the-other-gateway"
API = "/api/v1/gateway"


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def opa_url() -> Iterator[str]:
    with opa_server(POLICY) as url:
        yield url


@pytest.fixture(params=["opa", "rego"])
def policy(request: pytest.FixtureRequest, opa_url: str) -> Any:
    """The same policy, on its own server and in process."""
    return Rego(POLICY) if request.param == "rego" else Opa(opa_url, timeout_s=10)


class House:
    """A gateway, its issuer of tokens, and its log."""

    def __init__(self) -> None:
        self.issuer, self.disk, self.db = Issuer(), MemoryDisk(), Desk(tools=[tool("query")])
        self.served: Served

    def bearer(self, subject: str = "", **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token(subject, **claims)}"}

    async def decide(self, who: dict[str, str], path: str = "authorize", **body: Any) -> Answer:
        return await self.served.ask("POST", f"{API}/{path}", body, **who)

    def record(self, audit_id: str) -> dict[str, Any]:
        (found,) = (
            r for r in audited(self.disk, "allowed", "denied") if r["request_id"] == audit_id
        )
        return found


@asynccontextmanager
async def house(policy: Any, **options: Any) -> AsyncIterator[House]:
    place = House()

    async def keys() -> Any:
        return place.issuer.jwks

    client = GatewayClient(
        servers={
            "db": Memory(place.db, tools={"query": ToolRule(sensitivity="high")}),
            "vault": Memory(Desk(tools=[tool("open")])),
        },
        policy=policy,
        audit=AuditLog("log", files=place.disk),
        identity=TokenVerifier(keys=keys, issuer=ISSUER, audience=AUDIENCE, algorithms=("ES256",)),
        agents={"billing": "production", "lab": "staging"},
    )
    options = {"verifier": client.authenticate, "audit_key": AUDIT_KEY, **options}
    async with client, serving(client, **options) as place.served:
        yield place
    check_log(place.disk)


INVOKE = {
    "action": "gateway:tool:invoke",
    "server_name": "db",
    "tool_name": "query",
    "parameters": {"sql": "select 1", "password": "hunter2"},
}


@pytest.mark.fault(20, 21, 26, 48, 50)
async def test_a_call_that_somebody_else_makes_is_decided_and_recorded(policy: Any) -> None:
    async with house(policy) as place:
        ann = place.bearer("ann", roles=["analyst", "viewer"])
        found = await place.decide(ann, **INVOKE)
        said = found.json
        assert found.status == 200
        assert (said["allow"], said["reason"]) == (True, "allowed")
        assert said["filtered_parameters"] == {"sql": "select 1"}
        # The operator says that the tool is sensitive: an allow of it lives a minute.
        assert said["cache_ttl"] == 60
        record = place.record(said["audit_id"])
        assert (record["kind"], record["principal_id"]) == ("allowed", "ann")
        assert (record["server"], record["tool"]) == ("db", "query")
        assert record["args"] == {"sql": "select 1"}
        assert record["args_digest"].startswith("hmac-sha256:")
        assert "an analyst" in record["reason"]
    assert place.db.arrived == []
    assert b"hunter2" not in b"".join(bytes(part) for part in place.disk.contents.values())


@pytest.mark.fault(22, 24, 25)
async def test_a_denial_says_one_word_and_is_kept_by_nobody(policy: Any) -> None:
    async with house(policy) as place:
        dropping = {**INVOKE, "parameters": {"sql": "SELECT 1; DROP TABLE users"}}
        for roles in (["analyst"], ["analyst", "viewer"], [], ["viewer"]):
            found = await place.decide(place.bearer("ann", roles=roles), **dropping)
            said = found.json
            assert (found.status, said["allow"], said["reason"]) == (200, False, "denied")
            assert (said["filtered_parameters"], said["cache_ttl"]) == (None, 0)
            assert "drop" not in found.body.decode().lower()
            assert place.record(said["audit_id"])["kind"] == "denied"
        both = place.bearer("root", roles=["admin", "analyst"])
        assert (await place.decide(both, **dropping)).json["allow"] is True


async def test_the_stricter_word_on_sensitivity_counts(policy: Any) -> None:
    async with house(policy) as place:
        ann = place.bearer("ann", roles=["analyst"])

        async def ttl(**more: Any) -> tuple[bool, int]:
            said = (await place.decide(ann, **{**INVOKE, **more})).json
            return said["allow"], said["cache_ttl"]

        # Policy refuses what is critical; the caller's own "low" lowers nothing.
        assert await ttl(sensitivity_level="critical") == (False, 0)
        assert await ttl(sensitivity_level="low") == (True, 60)
        assert await ttl(tool_name="other", sensitivity_level="low") == (True, 300)
        assert await ttl(tool_name=None, server_name="db") == (True, 300)
        root = place.bearer("root", roles=["admin"])
        for level, seconds in (("low", 1800), ("medium", 300), ("high", 60), ("critical", 0)):
            elsewhere = {"server_name": "not-ours", "sensitivity_level": level}
            said = (await place.decide(root, **{**INVOKE, **elsewhere})).json
            assert (said["allow"], said["cache_ttl"]) == (True, seconds)


async def test_every_action_is_asked_about_and_no_other(policy: Any) -> None:
    async with house(policy) as place:
        ann = place.bearer("ann", roles=["analyst"])
        for action in ("gateway:server:list", "gateway:server:info", "gateway:tool:discover"):
            for server, allow in (("db", True), ("vault", False)):
                said = (await place.decide(ann, action=action, server_name=server)).json
                assert (said["allow"], said["filtered_parameters"]) == (allow, None)
        for body in (
            {},
            {"action": "gateway:everything"},
            {"action": 7},
            {**INVOKE, "parameters": []},
            {**INVOKE, "context": "x"},
            {**INVOKE, "server_name": 3},
            {**INVOKE, "sensitivity_level": "extreme"},
        ):
            found = await place.decide(ann, **body)
            assert (found.status, found.error["type"]) == (422, "invalid_request")
            assert found.json["detail"] == found.error["message"]
        for raw in (b"{", b"[]", b'{"action":1,"action":2}'):
            headers = {"Content_Type": "application/json", **ann}
            assert (
                await place.served.ask("POST", f"{API}/authorize", raw, **headers)
            ).status == 422


async def test_who_proves_nothing_is_told_so(policy: Any) -> None:
    async with house(policy) as place:
        for headers in (
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": "Basic YTpi"},
            place.bearer("ann", aud="somebody-else"),
            {"Authorization": f"Bearer {Issuer().token('ann')}"},
        ):
            for path in ("authorize", "authorize-a2a"):
                found = await place.decide(headers, path, **INVOKE)
                assert (found.status, found.error["type"]) == (401, "unauthenticated")
                assert "www-authenticate" in found.headers
    assert audited(place.disk, "allowed", "denied") == []


# -- agents ---------------------------------------------------------------------------------------

ASK = {
    "source_agent_id": "planner",
    "target_agent_id": "billing",
    "capability": "query",
    "message_type": "request",
    "parameters": {"month": 3, "api_key": "k3y"},
}
PLANNER: dict[str, Any] = {
    "agent_id": "planner",
    "agent_type": "worker",
    "trust_level": "limited",
    "environment": "production",
    "capabilities": ["query", "delegate", "execute"],
}


@pytest.mark.fault(21, 25, 48, 50)
@pytest.mark.parametrize(
    ("claims", "more", "allow", "reason"),
    [
        ({}, {}, True, "allowed"),
        ({}, {"capability": "delegate"}, True, "allowed"),
        # By policy: what this trust may not ask, and whom nobody may.
        ({}, {"capability": "execute"}, False, "denied"),
        ({}, {"target_agent_id": "internal-ledger"}, False, "denied"),
        ({"trust_level": "trusted"}, {"capability": "execute"}, True, "allowed"),
        # Before any policy: what the token proves, against what the caller says.
        ({}, {"source_agent_id": "root"}, False, "source_mismatch"),
        ({"trust_level": "untrusted"}, {}, True, "allowed"),
        ({"trust_level": "untrusted"}, {"target_agent_id": "lab"}, False, "environment_crossing"),
        (
            {"trust_level": "untrusted"},
            {"target_agent_id": "unheard-of", "target_environment": "production"},
            False,
            "environment_crossing",
        ),
        ({}, {"target_environment": "staging"}, False, "environment_mismatch"),
        ({}, {"target_environment": "production"}, True, "allowed"),
        ({"capabilities": ["delegate"]}, {}, False, "capability_missing"),
        ({"capabilities": None}, {}, False, "capability_missing"),
        ({}, {"context": {"delegation_depth": 2}}, True, "allowed"),
        ({}, {"context": {"delegation_depth": 3}}, False, "delegation_too_deep"),
    ],
)
async def test_one_agent_asks_another(
    policy: Any, claims: dict[str, Any], more: dict[str, Any], allow: bool, reason: str
) -> None:
    async with house(policy) as place:
        who = {name: value for name, value in {**PLANNER, **claims}.items() if value is not None}
        found = await place.decide(place.bearer(**who), "authorize-a2a", **{**ASK, **more})
        said = found.json
        assert found.status == 200
        assert (said["allow"], said["reason"]) == (allow, reason)
        assert said["cache_ttl"] == (60 if allow else 0)
        assert said["filtered_parameters"] == ({"month": 3} if allow else None)
        record = place.record(said["audit_id"])
        assert record["kind"] == ("allowed" if allow else "denied")
        assert (record["principal_id"], record["principal_kind"]) == ("planner", "agent")
        asked = {**ASK, **more}
        assert record["labels"] == {
            "target_agent": asked["target_agent_id"],
            "capability": asked["capability"],
        }


async def test_only_agents_ask_as_agents_and_in_the_right_words(policy: Any) -> None:
    async with house(policy) as place:
        found = await place.decide(place.bearer("ann", roles=["admin"]), "authorize-a2a", **ASK)
        assert (found.status, found.error["reason"]) == (401, "not_an_agent")
        planner = place.bearer(**PLANNER)
        for wrong in (
            {"capability": "rule"},
            {"source_agent_id": None},
            {"target_agent_id": ""},
            {"message_type": 3},
            {"context": {"delegation_depth": "2"}},
            {"context": {"delegation_depth": -1}},
            {"context": {"delegation_depth": True}},
            {"payload_metadata": []},
        ):
            found = await place.decide(planner, "authorize-a2a", **{**ASK, **wrong})
            assert (found.status, found.error["type"]) == (422, "invalid_request"), wrong
        assert audited(place.disk, "allowed", "denied") == []


# -- lists, reports, and what goes wrong ----------------------------------------------------------


@pytest.mark.fault(20)
async def test_lists_hold_what_the_caller_may_see(policy: Any) -> None:
    async with house(policy) as place:
        ann = place.bearer("ann", roles=["analyst"])
        root = place.bearer("root", roles=["admin"])
        for who, servers, tools in (
            (ann, ["db"], ["query"]),
            (root, ["db", "vault"], ["query", "open"]),
            (place.bearer("eve"), [], []),
        ):
            listed = (await place.served.ask("GET", f"{API}/servers", **who)).json
            assert [one["server_name"] for one in listed] == servers
            found = await place.served.ask("GET", f"{API}/tools", **who)
            assert [one["tool_name"] for one in found.json] == tools
            # The registry's dialect and MCP say the same.
            listed = (await place.served.ask("GET", "/api/v1/servers", **who)).json
            assert [one["server_name"] for one in listed["servers"]] == servers
            found = await place.served.ask("GET", "/api/v1/tools", **who)
            assert [one["tool_name"] for one in found.json["tools"]] == tools
            found = await place.served.rpc("tools/list", {}, **who)
            offered = [one["name"].partition("__")[2] for one in found.json["result"]["tools"]]
            assert offered == tools
            status = 200 if "vault" in servers else 404
            path = "/api/v1/servers/vault"
            assert (await place.served.ask("GET", path, **who)).status == status
        one = (await place.served.ask("GET", f"{API}/tools?server_name=db", **ann)).json
        assert [(each["tool_name"], each["sensitivity_level"]) for each in one] == [
            ("query", "high")
        ]
        assert (await place.served.ask("GET", f"{API}/tools?server_name=no", **ann)).status == 404


EVENT = {
    "event_type": "tool_invoke",
    "user_id": "ann",
    "server_name": "db",
    "tool_name": "query",
    "decision": "allow",
    "reason": "by role",
    "timestamp": 1_700_000_000,
    "gateway_request_id": "g-1",
    "metadata": {"nested": {"list": [1, None]}},
}


@pytest.mark.fault(48, 49)
async def test_another_gateway_reports_what_it_did() -> None:
    async with house(None) as place:
        key = {"X_Gateway_Api_Key": AUDIT_KEY}
        found = await place.served.ask("POST", f"{API}/audit", EVENT, **key)
        assert (found.status, found.json["status"]) == (201, "logged")
        (record,) = audited(place.disk, "event")
        assert record["name"] == "reported"
        assert record["details"]["audit_id"] == found.json["audit_id"]
        assert record["details"]["event"] == {**EVENT, "agent_id": None}
        for headers in ({}, {"X_Gateway_Api_Key": "another-key-another-key"}):
            assert (await place.served.ask("POST", f"{API}/audit", EVENT, **headers)).status == 401
        for wrong in (
            {"event_type": "other"},
            {"decision": "maybe"},
            {"timestamp": "now"},
            {"reason": None},
            {"metadata": []},
        ):
            found = await place.served.ask("POST", f"{API}/audit", {**EVENT, **wrong}, **key)
            assert found.status == 422
        large = {**EVENT, "metadata": {"blob": "x" * 20_000}}
        assert (await place.served.ask("POST", f"{API}/audit", large, **key)).status == 413
        assert len(audited(place.disk, "event")) == 1


async def test_without_a_key_nobody_reports() -> None:
    async with house(None, audit_key=None) as place:
        found = await place.served.ask("POST", f"{API}/audit", EVENT, X_Gateway_Api_Key="")
        assert (found.status, found.json["detail"]) == (
            503,
            "no key for reports is configured",
        )


@pytest.mark.fault(22)
async def test_what_cannot_be_decided_or_recorded_is_a_no_that_nobody_keeps() -> None:
    async with house(Opa("http://127.0.0.1:9", timeout_s=2)) as place:
        root = place.bearer("root", roles=["admin"])
        for _ in range(2):
            said = (await place.decide(root, **INVOKE)).json
            assert (said["allow"], said["cache_ttl"]) == (False, 0)
            assert place.record(said["audit_id"])["kind"] == "denied"
        found = await place.served.ask("GET", f"{API}/servers", **root)
        assert (found.status, found.json["detail"]) == (403, "policy could not decide")
        # The policy comes back: nothing of the outage was kept.
        place.served.client.reload_policy(Rego(POLICY))
        assert (await place.decide(root, **INVOKE)).json["allow"] is True
        place.disk.errors["sync"] = [OSError(5, "I/O error")]
        said = (await place.decide(root, **INVOKE)).json
        assert (said["allow"], said["audit_id"], said["cache_ttl"]) == (False, None, 0)
        assert said["reason"] == "audit_unavailable"


async def test_a_caller_without_credentials_is_the_clients_own_principal() -> None:
    client = GatewayClient(
        servers={"db": Memory(Desk(tools=[tool("query")]))},
        policy=Rego(POLICY),
        audit=AuditLog("log", files=MemoryDisk()),
        principal=Principal(id="local", roles=("analyst",)),
    )
    async with client, serving(client) as served:
        assert (await served.ask("POST", f"{API}/authorize", INVOKE)).json["allow"] is True
        assert len((await served.ask("GET", f"{API}/servers")).json) == 1
        assert (await served.ask("POST", f"{API}/authorize-a2a", ASK)).status == 401


def test_the_key_for_reports_cannot_be_guessed(tmp_path: Path) -> None:
    from sark_trio.gateway import create_app

    client = GatewayClient(policy=None, audit=AuditLog(tmp_path))
    with pytest.raises(ValueError, match="audit_key"):
        create_app(client, audit_key="short")
