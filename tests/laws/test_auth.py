"""The laws of authorization (auth): whatever a peer says, and however often it says it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sark_trio.auth.challenge import Challenge, Challenged, parse_challenges
from sark_trio.auth.failures import said
from sark_trio.auth.metadata import ServerMetadata, resource_metadata, server_metadata
from sark_trio.auth.record import Grant, Record, parse_record, record_text
from sark_trio.auth.redirect import begin, code_in
from sark_trio.auth.registration import ClientIdentity, registered
from sark_trio.auth.scopes import StepUps, parse_scope
from sark_trio.auth.token import TokenRefused, TokenSet, token_in
from sark_trio.auth.urls import (
    canonical_resource,
    is_loopback,
    is_resource_of,
    place_of,
    refusal,
    resource_metadata_urls,
    server_metadata_urls,
)
from sark_trio.errors import AuthenticationRequired
from tests.support.traces import traces

ISSUER = "https://as.example"
SERVER = ServerMetadata(
    issuer=ISSUER,
    token_endpoint=f"{ISSUER}/t",
    authorization_endpoint=f"{ISSUER}/a",
    challenge_methods=("S256",),
)
TOKENS = st.text(st.sampled_from("abzAZ019-._~!#$%&'*+^`|"), min_size=1, max_size=8)
JUNK = st.text(st.sampled_from('aB1 \t,="\\;/:é@{}[]\x00'), max_size=40)
PARTS = ["https", "http", "://", "127.0.0.1", "localhost", "[::1]", "h.example", ":", "8080", "/"]
URLS = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from([*PARTS, "a", "?", "#", "@", "\\", "%", "..", "[", "10.0.0.1", "é"]),
        max_size=9,
    ).map("".join),
    st.builds(
        "{}://{}{}".format,
        st.sampled_from(["http", "https", "HTTPS"]),
        st.sampled_from(["h.example", "H.example:8443", "127.0.0.1:1", "[::1]:2", "localhost"]),
        st.sampled_from(["", "/", "/mcp", "/a/mcp/", "/mcp?t=1", "//x"]),
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | JUNK | URLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JUNK, inner, max_size=3),
    max_leaves=6,
)


def documents(*names: str) -> st.SearchStrategy[bytes]:
    """Documents with these members, more or less as they should be, and things that are none."""
    members = st.dictionaries(st.sampled_from(names), VALUES | st.just(ISSUER), max_size=len(names))
    return st.one_of(st.binary(max_size=30), members.map(lambda value: json.dumps(value).encode()))


@pytest.mark.law("O1")
@given(st.lists(JUNK | st.text(max_size=60), max_size=4))
def test_o01_no_challenge_is_too_strange_to_read(values: list[str]) -> None:
    """Reading ``WWW-Authenticate`` never fails, and what is found can be asked for its parts."""
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower()
        assert all(name == name.lower() for name in challenge.parameters)
    told = Challenged(status=401, www_authenticate=tuple(values))
    assert told.challenge.scheme in {"bearer", "dpop"}
    assert told.reason in {"unauthorized", "dpop_nonce"}


@pytest.mark.law("O2")
@given(
    st.lists(
        st.tuples(
            TOKENS,
            st.dictionaries(
                TOKENS.map(str.lower),
                st.text(
                    st.characters(max_codepoint=126, min_codepoint=32), min_size=0, max_size=12
                ),
                min_size=1,
                max_size=3,
            ),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_o02_what_is_written_properly_is_read_back(written: list[tuple[str, Any]]) -> None:
    """Challenges that are written as RFC 9110 says are found whole, in their order."""
    texts = []
    for scheme, parameters in written:
        quoted = [
            f'{name}="{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"'
            for name, value in parameters.items()
        ]
        texts.append(f"{scheme} {', '.join(quoted)}")
    expected = tuple(Challenge(scheme.lower(), parameters) for scheme, parameters in written)
    assert parse_challenges([", ".join(texts)]) == parse_challenges(texts) == expected


@pytest.mark.law("O3")
@given(
    documents("resource", "authorization_servers", "scopes_supported"),
    documents("issuer", "token_endpoint", "authorization_endpoint", "scopes_supported"),
    documents("client_id", "client_secret", "token_endpoint_auth_method", "error"),
)
def test_o03_a_document_is_understood_or_refused(
    resource: bytes, server: bytes, client: bytes
) -> None:
    """Metadata and registrations are read, or end in ``AuthenticationRequired``; in nothing else.

    What is read is about the resource and the issuer that were asked.
    """
    with suppress(AuthenticationRequired):
        found = resource_metadata(resource, "https://h.example/mcp")
        assert is_resource_of(found.resource, "https://h.example/mcp")
        assert found.authorization_servers
    with suppress(AuthenticationRequired):
        metadata = server_metadata(server, ISSUER)
        assert metadata.issuer == ISSUER
        assert place_of(metadata.token_endpoint) is not None
    with suppress(AuthenticationRequired):
        assert registered(201, client, SERVER, "http://127.0.0.1/").client_id


@pytest.mark.law("O4")
@given(URLS)
@example("https://h.example:443/a")
def test_o04_derived_urls_stay_at_their_origin(url: str) -> None:
    """Every URL that is derived from another one is a plain URL of the same origin, or is not."""
    place = place_of(url)
    derived = (*resource_metadata_urls(url), *server_metadata_urls(url))
    if place is None:
        assert derived == ()
        return
    for each in (*derived, canonical_resource(url)):
        there = place_of(each)
        assert there is not None
        assert there.origin == place.origin
    assert is_resource_of(canonical_resource(url), url)
    assert len(set(derived)) == len(derived)


@pytest.mark.law("O5")
@given(URLS, st.booleans())
def test_o05_nothing_passes_the_gate_but_https_and_what_is_here_from_here(
    url: str, loopback: bool
) -> None:
    """A URL that a peer names is asked over TLS only, and on this machine only from there."""
    if refusal(url, loopback=loopback) is None:
        place = place_of(url)
        assert place is not None
        assert place.scheme == "https" or is_loopback(url)
        assert loopback or not is_loopback(url)


@pytest.mark.law("O6")
@given(
    st.sampled_from(["ours", "other", None]),
    st.sampled_from([ISSUER, f"{ISSUER}/", "https://evil.example", None]),
    st.sampled_from(["c0de", "", None]),
    st.sampled_from(["denied", None]),
    st.booleans(),
)
def test_o06_a_code_is_used_only_if_all_that_vouches_for_it_does(
    state: str | None, iss: str | None, code: str | None, error: str | None, says: bool
) -> None:
    """A code counts if state is ours and ``iss`` the recorded one, or rightly absent."""
    server = ServerMetadata(
        issuer=ISSUER,
        token_endpoint=SERVER.token_endpoint,
        authorization_endpoint=SERVER.authorization_endpoint,
        challenge_methods=("S256",),
        says_issuer=says,
    )
    pending = begin(
        server, client_id="c", redirect_uri="u", resource="r", scopes=(), chance=bytes(64)
    )
    fields = {
        "state": pending.state if state == "ours" else state,
        "iss": iss,
        "code": code,
        "error": error,
    }
    query = urlencode({name: value for name, value in fields.items() if value is not None})
    good_issuer = iss == ISSUER or (iss is None and not says)
    good = state == "ours" and good_issuer and code == "c0de" and error is None
    try:
        used = code_in(f"http://127.0.0.1/cb?{query}", pending)
    except AuthenticationRequired as exc:
        assert not good
        assert good_issuer or "denied" not in str(exc)
    else:
        assert good
        assert used == "c0de"


@pytest.mark.law("O7")
@given(
    st.integers(200, 599),
    documents("access_token", "token_type", "expires_in", "refresh_token", "scope", "error"),
    st.booleans(),
)
def test_o07_an_answer_of_a_token_endpoint_is_tokens_or_a_refusal(
    status: int, body: bytes, dpop: bool
) -> None:
    """Whatever a token endpoint answers, it is tokens that can be sent, or one of two errors."""
    with suppress(AuthenticationRequired, TokenRefused):
        tokens = token_in(status, body, now_wall=0.0, requested=(), dpop=dpop)
        assert tokens.access_token.isascii()
        assert tokens.access_token.isprintable()
        assert " " not in tokens.access_token
        assert tokens.scheme == ("DPoP" if dpop else "Bearer")
        assert status == 200


@pytest.mark.law("O8")
@given(st.text(min_size=1, max_size=12), st.text(max_size=20), st.text(max_size=20))
def test_o08_an_error_repeats_no_secret(secret: str, before: str, after: str) -> None:
    """A description that holds what we sent is not shown; what is shown can be printed."""
    shown = said({"error": "bad", "error_description": f"{before}{secret}{after}"}, [secret])
    assert shown in {"bad", "it does not say why"}
    assert said({"error": before}).isprintable()


@pytest.mark.law("O9")
@given(traces(st.tuples(JUNK, JUNK), most=60), st.integers(1, 3), st.integers(1, 5))
def test_o09_step_ups_are_finite(challenges: list[tuple[str, str]], tries: int, kinds: int) -> None:
    """However a server challenges, users are sent away at most *tries* times for each challenge.

    Never for what was granted already, and for a bounded number of challenges in all.
    """
    ups = StepUps(tries_max=tries, challenges_max=kinds)
    allowed: dict[frozenset[str], int] = {}
    for granted, wanted in challenges:
        scopes = parse_scope(wanted)
        if ups.may_try(parse_scope(granted), scopes):
            allowed[frozenset(scopes)] = allowed.get(frozenset(scopes), 0) + 1
            assert not set(scopes) <= set(parse_scope(granted))
    assert all(count <= tries for count in allowed.values())
    assert len(allowed) <= kinds


@pytest.mark.law("O10")
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["i", "j", "k"]), st.text(st.characters(codec="ascii"), max_size=5)
        ),
        max_size=8,
    )
)
def test_o10_what_one_issuer_gave_is_found_at_that_one_only(grants: list[tuple[str, str]]) -> None:
    """A record gives back at each issuer what that issuer gave last, also after being stored."""
    record, model = Record(), dict[str, str]()
    for issuer, token in grants:
        client = ClientIdentity(issuer=issuer, client_id=token or "c", auth_method="none")
        grant = Grant(client=client, tokens=TokenSet(access_token=token))
        record = parse_record(record_text(record.using(issuer, grant)))
        model[issuer] = token
    for issuer in ("i", "j", "k"):
        tokens, client = record.at(issuer).tokens, record.at(issuer).client
        assert (None if tokens is None else tokens.access_token) == model.get(issuer)
        assert client is None or client.issuer == issuer
