from __future__ import annotations

from typing import Any

import attrs
import pytest

from sark_trio.governance.principal import Principal


def test_names_are_sorted_sets() -> None:
    who = Principal(id="a", roles=["b", "a", "b"], permissions="one", teams=())  # type: ignore[arg-type]
    assert (who.roles, who.permissions, who.teams) == (("a", "b"), ("one",), ())


def test_a_caller_is_told_from_others_by_kind_and_id() -> None:
    who = Principal(id="alice", credential_hash="old", roles=("analyst",))
    assert who.key == Principal(id="alice", credential_hash="new").key == "user:alice"
    assert who.key != Principal(id="alice", kind="service").key


@pytest.mark.fault(14)
def test_repr_shows_id_and_kind_only() -> None:
    who = Principal(
        id="alice",
        roles=("r0le",),
        email="alice@example.com",
        claims={"tenant": "acme"},
        credential_hash="c0ffee",
    )
    assert repr(who) == "Principal(id='alice', kind='user')"


@pytest.mark.security(4)
@pytest.mark.fault(14)
def test_a_principal_has_no_place_for_a_token() -> None:
    assert not [field.name for field in attrs.fields(Principal) if "token" in field.name]


def test_when_its_credential_ends_is_no_fact_about_a_caller() -> None:
    who, renewed = Principal(id="a", expires_at=1), Principal(id="a", expires_at=2.5)
    assert who == renewed
    assert hash(Principal(id="a")) == hash(renewed)
    assert (who.expires_at, renewed.expires_at, Principal(id="a").expires_at) == (1, 2.5, None)


@pytest.mark.fault(17)
def test_anonymous_is_somebody_without_rights() -> None:
    nobody = Principal.anonymous()
    assert (nobody.id, nobody.kind) == ("anonymous", "anonymous")
    assert (nobody.roles, nobody.permissions, nobody.teams) == ((), (), ())


@pytest.mark.parametrize("name", ["", "a" * 513, "a\nb", "a\u202eb", "a\u200bb", 7])
def test_an_id_that_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="id must"):
        Principal(id=name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "root"},
        {"kind": ["user"]},
        {"email": 5},
        {"trust_level": object()},
        {"environment": b"prod"},
        {"credential_hash": 7},
        {"expires_at": "soon"},
        {"expires_at": True},
    ],
)
def test_a_fact_of_the_wrong_kind_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Principal(id="a", **wrong)


def test_facts_that_are_not_json_are_refused() -> None:
    with pytest.raises(ValueError, match="claims"):
        Principal(id="a", claims={"a": object()})
    with pytest.raises(ValueError, match="texts"):
        Principal(id="a", roles=[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than"):
        Principal(id="a", roles=[str(i) for i in range(1_001)])  # type: ignore[arg-type]


@pytest.mark.fault(20)
def test_claims_of_the_original_are_read() -> None:
    who = Principal.from_claims(
        {
            "sub": "u1",
            "email": "u@example.com",
            "role": "analyst",
            "roles": ["viewer"],
            "scope": "db/query files/read",
            "permissions": ["x y"],
            "teams": ["red"],
            "tenant": "acme",
            "secret": "s",
        },
        keep=("tenant", "absent"),
        credential_hash="h",
    )
    assert who == Principal(
        id="u1",
        email="u@example.com",
        roles=("analyst", "viewer"),
        permissions=("db/query", "files/read", "x y"),
        teams=("red",),
        claims={"tenant": "acme"},
        credential_hash="h",
    )


def test_other_names_of_the_same_claims_are_read() -> None:
    who = Principal.from_claims({"sub": "u", "scp": "a b", "groups": ["g"], "environment": "prod"})
    assert (who.permissions, who.teams, who.environment) == (("a", "b"), ("g",), "prod")


def test_what_only_agents_have_is_read_of_agents_only() -> None:
    claims = {"sub": "u", "agent_type": "worker", "capabilities": ["query"]}
    user = Principal.from_claims(claims)
    assert (user.kind, user.agent_type, user.capabilities) == ("user", None, ())
    agent = Principal.from_claims({**claims, "agent_id": "a"})
    assert (agent.kind, agent.agent_type, agent.capabilities) == ("agent", "worker", ("query",))


@pytest.mark.parametrize(
    ("claims", "kind", "name"),
    [
        ({"sub": "u"}, "user", "u"),
        ({"sub": "u", "client_id": "c"}, "user", "u"),
        ({"client_id": "c"}, "service", "c"),
        ({"agent_id": "a", "client_id": "c"}, "agent", "a"),
        ({"agent_id": "a", "sub": "u", "client_id": "c"}, "agent", "a"),
    ],
)
def test_who_it_is_among_several_ids(claims: dict[str, Any], kind: str, name: str) -> None:
    who = Principal.from_claims(claims)
    assert (who.kind, who.id) == (kind, name)


def test_a_token_is_read_by_its_verifier() -> None:
    class Verifier:
        def verify_nowait(self, token: str, now_wall: float) -> Principal:
            return Principal(id=f"{token}@{now_wall}")

    assert Principal.from_token("t", Verifier(), now_wall=7.5).id == "t@7.5"


def test_as_much_as_is_allowed_is_taken() -> None:
    names = [str(number) for number in range(1_000)]
    who = Principal(id="a" * 512, roles=tuple(names), claims={"list": names[:998]})
    assert (len(who.id), len(who.roles), len(who.claims["list"])) == (512, 1_000, 998)
    with pytest.raises(ValueError, match="claims: more than 1000 values"):
        Principal(id="a", claims={"list": names[:999]})


def test_agents_and_services() -> None:
    agent = Principal.from_claims(
        {"agent_id": "a1", "sub": "x", "trust_level": "limited", "environment": "prod"}
    )
    assert (agent.id, agent.kind, agent.trust_level) == ("a1", "agent", "limited")
    assert Principal.from_claims({"client_id": "s1"}).kind == "service"


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": 7},
        {"sub": None},
        {"agent_id": 7, "sub": "u"},
        {"sub": "u", "roles": {"admin": True}},
        {"sub": "u", "roles": ["a", 1]},
        {"sub": "u", "email": ["e"]},
    ],
)
def test_half_read_claims_are_refused(claims: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"id must|claim"):
        Principal.from_claims(claims)
