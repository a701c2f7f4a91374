from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from attrs import evolve

from sark_trio.auth.metadata import ServerMetadata
from sark_trio.auth.redirect import Pending, begin, code_challenge, code_in
from sark_trio.errors import AuthenticationRequired

ISSUER = "https://as.example"
SERVER = ServerMetadata(
    issuer=ISSUER,
    token_endpoint=f"{ISSUER}/t",
    authorization_endpoint=f"{ISSUER}/a",
    challenge_methods=("S256",),
    says_issuer=True,
)
BACK = "http://127.0.0.1:1/cb"


def pending(server: ServerMetadata = SERVER, **more: str) -> Pending:
    return begin(
        server,
        client_id="me",
        redirect_uri=BACK,
        resource="https://mcp.example/mcp",
        scopes=("a", "b"),
        chance=bytes(range(64)),
        **more,
    )


def back(request: Pending, **fields: str | None) -> str:
    whole = {"code": "c0de", "state": request.state, "iss": ISSUER, **fields}
    return f"{BACK}?{urlencode({n: v for n, v in whole.items() if v is not None})}"


def test_the_challenge_of_rfc_7636_appendix_b() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_request_says_everything_once() -> None:
    request = pending(key_thumbprint="thumb")
    query = parse_qs(urlsplit(request.url).query)
    assert query["resource"] == ["https://mcp.example/mcp"]
    assert query["scope"] == ["a b"]
    assert query["code_challenge"] == [code_challenge(request.verifier)]
    assert query["dpop_jkt"] == ["thumb"]
    assert 43 <= len(request.verifier) <= 128
    assert request.state not in request.verifier
    assert request.verifier not in repr(request)
    assert request.state not in repr(request).replace(request.url, "")


def test_a_query_of_the_endpoint_is_kept() -> None:
    server = evolve(SERVER, authorization_endpoint=f"{ISSUER}/a?tenant=1")
    assert pending(server).url.startswith(f"{ISSUER}/a?tenant=1&response_type=code")


@pytest.mark.parametrize(
    "server",
    [
        evolve(SERVER, authorization_endpoint=None),
        evolve(SERVER, challenge_methods=None),
        evolve(SERVER, challenge_methods=("plain",)),
    ],
)
def test_servers_without_the_flow_are_refused(server: ServerMetadata) -> None:
    with pytest.raises(AuthenticationRequired):
        pending(server)


def test_a_good_response_gives_the_code() -> None:
    request = pending()
    assert code_in(back(request), request) == "c0de"
    quiet = evolve(request, says_issuer=False)
    assert code_in(back(quiet, iss=None), quiet) == "c0de"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"iss": "https://as.example/"}, "issuer"),
        ({"iss": "HTTPS://as.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"state": "other"}, "state"),
        ({"state": None}, "state"),
        ({"state": "\u00e9"}, "state"),
        ({"code": None}, "no code"),
        ({"code": ""}, "no code"),
        ({"error": "access_denied", "code": None}, "access_denied"),
    ],
)
def test_a_response_that_is_not_used(fields: dict[str, str | None], why: str) -> None:
    request = pending()
    with pytest.raises(AuthenticationRequired, match=why) as caught:
        code_in(back(request, **fields), request)
    assert request.state not in str(caught.value)
    assert "c0de" not in str(caught.value)


def test_nothing_of_a_strangers_error_is_shown() -> None:
    request = pending()
    strange = back(request, iss="https://evil.example", error="call +1 555 now")
    with pytest.raises(AuthenticationRequired) as caught:
        code_in(strange, request)
    assert "555" not in str(caught.value)


@pytest.mark.parametrize(
    "redirect",
    [None, "x" * 20_000, "http://[", f"{BACK}?code=a&code=b", f"{BACK}?{'&'.join('a' * 200)}"],
)
def test_what_is_no_response_at_all(redirect: str) -> None:
    with pytest.raises(AuthenticationRequired):
        code_in(redirect, pending())
