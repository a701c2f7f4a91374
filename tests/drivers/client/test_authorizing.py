"""Tokens from a real authorization server on loopback: got, presented, renewed, and not leaked."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from joserfc import jwk, jws, jwt

from sark_trio import (
    AllowAll,
    AppRedirects,
    ClientCredentials,
    EnterpriseManaged,
    FileTokens,
    GatewayClient,
    Http,
    LoopbackRedirects,
    MemoryTokens,
    OAuth,
    WorkloadIdentity,
    sign_in,
    sign_out,
)
from sark_trio.client.authorizing import revoking
from sark_trio.client.authorizing.authorizer import Authorizer
from sark_trio.errors import AuthenticationRequired, ClientClosed, ConfigError, Denied, Forbidden
from sark_trio.transports.base import Outgoing
from tests.support.authority import REDIRECT_URI, Authority, authority, consent, user
from tests.support.http_servers import (
    modern,
    no_leaked_descriptors,
    open_transport,
    response,
    serve,
)

pytestmark = pytest.mark.anyio
CALL = {"method": "tools/call", "params": {"name": "echo", "arguments": {}}}


async def yes(_reason: str) -> bool:
    return True


def call(**more: Any) -> Outgoing:
    return Outgoing(**{**CALL, "may_resend": yes, **more})


def opened(site: Authority, auth: Any, **more: Any) -> Any:
    return open_transport(site.url, auth=Authorizer(site.url, auth), **more)


async def test_a_user_signs_in_once_and_everything_is_bound_to_the_server() -> None:
    async with authority() as site, opened(site, user()) as transport:
        for _ in range(3):
            await transport.request(call())
        assert site.grants() == ["authorization_code"]
        (asked,), (form,), (registration,) = site.authorizations, site.forms, site.registrations
        assert asked["resource"] == form["resource"] == site.url
        assert asked["scope"] == "read"
        assert asked["code_challenge_method"] == "S256"
        assert form["client_id"] == "client-1"
        assert registration["application_type"] == "native"
        assert registration["grant_types"] == ["authorization_code", "refresh_token"]
        assert site.presented() == [None, *["Bearer access-1"] * 4]


async def test_fifty_calls_with_an_expired_token_are_one_refresh() -> None:
    async with authority(expires_in=1) as site, opened(site, user()) as transport:
        await transport.request(call())
        site.expires_in, came = 3600, anyio.Event()

        async def hold() -> None:
            # The answer waits until others have had their chance to ask, too.
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            came.set()

        before, site.before_token = len(site.forms), hold
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(transport.request, call())
        assert came.is_set()
        assert site.grants()[before:] == ["refresh_token"]
        assert set(site.presented()[-50:]) == {f"Bearer access-{before + 1}"}


@pytest.mark.row(15)
async def test_fifty_calls_that_are_refused_are_one_refresh_and_each_is_sent_again() -> None:
    async with authority() as site, opened(site, user()) as transport:
        await transport.request(call())
        site.revoke()
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(transport.request, call())
        assert site.grants() == ["authorization_code", "refresh_token"]


async def test_a_rotated_refresh_token_replaces_the_old_one() -> None:
    async with authority() as site, opened(site, user()) as transport:
        for _ in range(4):
            await transport.request(call())
            site.revoke()
        used = [form.get("refresh_token") for form in site.forms]
        assert used == [None, "refresh-1", "refresh-2", "refresh-3"]
        assert len(site.refresh_tokens) == 1


async def test_a_refused_refresh_is_a_new_sign_in() -> None:
    async with authority() as site, opened(site, user()) as transport:
        await transport.request(call())
        site.revoke()
        site.refresh_tokens.clear()
        await transport.request(call())
        assert site.grants() == ["authorization_code", "refresh_token", "authorization_code"]
        assert len(site.registrations) == 1  # we are still who we were


async def test_a_refresh_that_does_not_help_is_followed_by_a_sign_in() -> None:
    async with authority(spoils_refreshed=True) as site, opened(site, user()) as transport:
        await transport.request(call())
        site.revoke()
        with pytest.raises(AuthenticationRequired):
            await transport.request(call())
        await transport.request(call())
        assert site.grants() == ["authorization_code", "refresh_token", "authorization_code"]


async def test_a_refusal_is_not_repeated_where_the_layer_above_forbids_it() -> None:
    asked: list[str] = []

    async def no(reason: str) -> bool:
        asked.append(reason)
        return False

    async with authority() as site, opened(site, user()) as transport:
        await transport.request(call())
        site.revoke()
        sent = len(site.presented())
        with pytest.raises(AuthenticationRequired) as caught:
            await transport.request(call(may_resend=no))
        assert caught.value.delivery == "answered"
        assert (asked, len(site.presented())) == (["unauthorized"], sent + 1)
        await transport.request(call(may_resend=no))  # with the token that was got meanwhile


async def test_more_scopes_are_asked_for_with_those_that_we_have() -> None:
    async with authority(needs="read write") as site, opened(site, user()) as transport:
        await transport.request(call())
        assert [each["scope"] for each in site.authorizations] == ["read", "read write"]


async def test_fifty_calls_that_need_more_scopes_are_one_step_up() -> None:
    async with authority(needs="read write") as site, opened(site, user()) as transport:
        await transport.connect()
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(transport.request, call())
        assert [each["scope"] for each in site.authorizations] == ["read", "read write"]


async def test_a_step_up_that_never_helps_ends() -> None:
    granted = {"grants_scope": "read", "answer": {"scope": "read"}}  # whatever is asked for
    async with authority(needs="admin", **granted) as site:
        async with opened(site, user()) as transport:
            for _ in range(5):
                with pytest.raises(Forbidden) as caught:
                    await transport.request(call())
        assert len(site.authorizations) == 3
        assert "insufficient_scope" in caught.value.www_authenticate[0]


async def test_scopes_that_were_granted_are_no_reason_to_ask_again() -> None:
    granted = {"grants_scope": "read", "answer": {"scope": "read admin"}}  # says so, but is not
    async with authority(needs="admin", **granted) as site:
        async with opened(site, user()) as transport:
            with pytest.raises(Forbidden):
                await transport.request(call())
        assert len(site.authorizations) == 1


@pytest.mark.parametrize(
    ("iss", "advertised"),
    [
        (lambda issuer: "https://evil.example", True),
        (lambda issuer: "https://evil.example", None),
        (lambda issuer: f"{issuer}/", True),
        (lambda issuer: None, True),
    ],
    ids=["wrong", "unasked", "normalized", "missing"],
)
async def test_a_response_of_another_issuer_is_not_used(iss: Any, advertised: Any) -> None:
    flag = {"authorization_response_iss_parameter_supported": advertised}
    async with authority(iss=iss, metadata=flag) as site, opened(site, user()) as transport:
        with pytest.raises(AuthenticationRequired, match="iss"):
            await transport.request(call())
        assert (len(site.authorizations), site.forms) == (1, [])


async def test_a_state_that_is_not_ours_is_not_used() -> None:
    async def forge(url: str) -> str:
        real = await consent(url)
        return real.replace("state=", "state=x")

    auth = OAuth(redirects=AppRedirects(REDIRECT_URI, forge))
    async with authority() as site, opened(site, auth) as transport:
        with pytest.raises(AuthenticationRequired, match="state"):
            await transport.request(call())
        assert site.forms == []


async def test_another_issuer_gets_nothing_of_the_first_one() -> None:
    async with authority() as site, authority() as other:
        async with opened(site, user()) as transport:
            await transport.request(call())
            site.revoke()
            site.issuer = other.origin
            other.authorizations.clear()
            with pytest.raises(AuthenticationRequired):
                await transport.request(call())  # its tokens are not good at the first server
        assert [form["grant_type"] for form in other.forms] == ["authorization_code"]
        assert len(other.registrations) == 1
        assert site.grants() == ["authorization_code"]
        shown = repr(other.forms) + repr(other.authorizations)
        assert "refresh-1" not in shown
        assert "access-1" not in shown


@pytest.mark.parametrize("named", [True, False])
async def test_configured_credentials_are_not_shown_to_another_issuer(named: bool) -> None:
    async with authority() as site, authority() as other:
        auth = user(client_id="me", client_secret="s3cret", issuer=site.origin if named else None)
        async with opened(site, auth) as transport:
            await transport.request(call())
            site.revoke()
            site.issuer = other.origin
            with pytest.raises(AuthenticationRequired, match=r"issuer|changed"):
                await transport.request(call())
        assert (other.forms, other.authorizations) == ([], [])
        assert site.forms[0]["basic"] == "me:s3cret"


@pytest.mark.row(63)
@pytest.mark.parametrize(
    "named",
    [
        "http://169.254.169.254",
        "https://169.254.169.254",
        "https://10.0.0.7",
        "http://as.example",
        "ftp://127.0.0.1",
        "https://user@127.0.0.1",
    ],
)
async def test_urls_that_lead_to_inner_places_are_not_asked(named: str) -> None:
    async with authority(issuer=named) as site, opened(site, user()) as transport:
        with pytest.raises(AuthenticationRequired):
            await transport.request(call())
        assert site.authorizations == []


@pytest.mark.row(63)
async def test_a_public_server_cannot_lead_us_to_this_machine() -> None:
    async with authority() as site, anyio.create_task_group() as group:
        made = Authorizer("https://mcp.example/mcp", user())
        await group.start(made.run)
        for url in (site.url, site.url.replace("127.0.0.1", "localhost"), "https://[::1]/"):
            with pytest.raises(AuthenticationRequired, match="refused"):
                await made._network.ask("GET", url)
        group.cancel_scope.cancel()
    assert site.server.requests == []


async def test_a_redirect_of_the_metadata_is_not_followed() -> None:
    async def script(peer: Any) -> None:
        while True:
            received = await peer.receive()
            if received.target == "/mcp":
                await peer.send(response(b"", "401 Unauthorized"))
            else:
                await peer.send(response(b"", "302 Found", Location="http://127.0.0.1:1/"))

    async with serve(script) as server:
        auth = Authorizer(server.url, OAuth())
        async with open_transport(server.url, auth=auth) as transport:
            with pytest.raises(AuthenticationRequired):
                await transport.request(call())


async def test_tokens_never_go_over_plain_http_to_another_machine() -> None:
    with pytest.raises(ConfigError, match="https"):
        Authorizer("http://mcp.example/mcp", user())


async def test_a_caller_who_gives_up_ends_nobody_elses_sign_in() -> None:
    asked, go = anyio.Event(), anyio.Event()

    async def slow(url: str) -> str:
        asked.set()
        await go.wait()
        return await consent(url)

    auth = OAuth(redirects=AppRedirects(REDIRECT_URI, slow))
    async with authority() as site, opened(site, auth) as transport:
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def give_up() -> None:
                with scope:
                    await transport.request(call())

            group.start_soon(give_up)
            group.start_soon(transport.request, call())
            await asked.wait()
            scope.cancel()
            go.set()
        assert len(site.authorizations) == 1


async def test_closing_during_a_sign_in_leaves_nothing() -> None:
    asked = anyio.Event()
    store = MemoryTokens()
    failures: list[Exception] = []

    async def never(url: str) -> str:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    with no_leaked_descriptors():
        auth = OAuth(redirects=AppRedirects(REDIRECT_URI, never), store=store)
        async with authority() as site, anyio.create_task_group() as group:

            async def try_it(transport: Any) -> None:
                try:
                    await transport.request(call())
                except ClientClosed as exc:
                    failures.append(exc)

            async with opened(site, auth) as transport:
                assert not transport.is_held_up()
                group.start_soon(try_it, transport)
                await asked.wait()
                # A user takes his time; the breaker does not hold that against the server.
                assert transport.is_held_up()
        assert len(failures) == 1
        assert site.forms == []
        assert not store._texts


async def test_cancelling_during_a_sign_in_leaves_nothing() -> None:
    store = MemoryTokens()

    async def look_away(url: str) -> None:
        scope.cancel()

    with no_leaked_descriptors():
        auth = OAuth(redirects=LoopbackRedirects(show=look_away), store=store)
        async with authority() as site:
            with anyio.CancelScope() as scope:
                async with opened(site, auth) as transport:
                    await transport.request(call())
            assert scope.cancelled_caught
            assert len(site.registrations) == 1
            assert site.forms == []
    assert not store._texts


async def test_no_token_is_in_the_audit_log_or_in_any_other_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with authority() as site:
        server = Http(site.url, auth=user(client_id="me", client_secret="s3cret"))
        async with GatewayClient(
            servers={"db": server}, policy=AllowAll(), audit=tmp_path / "audit"
        ) as client:
            await client.invoke_tool("db", "echo", {})
            site.revoke()
            site.refresh_tokens.clear()
            site.rejects_all = True
            with pytest.raises(AuthenticationRequired):
                await client.invoke_tool("db", "echo", {})
        assert len(site.forms) > 1
    written = b"".join([await path.read_bytes() async for path in _files(tmp_path / "audit")])
    # The user's browser logs, too; that is not ours.
    ours = [each.getMessage() for each in caplog.records if not each.name.startswith("httpcore")]
    shown = written.decode("utf-8", "replace") + "\n".join(ours)
    assert "echo" in shown
    for secret in ("access-", "refresh-", "s3cret", "code-"):
        assert secret not in shown


async def _files(folder: Path) -> AsyncIterator[anyio.Path]:
    async for path in anyio.Path(folder).rglob("*"):
        if await path.is_file():
            yield path


async def _modes(folder: Path) -> AsyncIterator[int]:
    async for path in anyio.Path(folder).iterdir():
        yield (await path.stat()).st_mode & 0o777


async def test_without_a_user_stored_tokens_are_used_and_renewed(tmp_path: Path) -> None:
    async with authority() as site:
        async with opened(site, user(store=FileTokens(tmp_path))) as transport:
            await transport.request(call())
        assert [mode async for mode in _modes(tmp_path)] == [0o600]
        async with opened(site, OAuth(store=FileTokens(tmp_path))) as transport:
            await transport.request(call())
            site.revoke()
            await transport.request(call())
            assert site.grants() == ["authorization_code", "refresh_token"]
            site.revoke()
            site.refresh_tokens.clear()
            with pytest.raises(AuthenticationRequired, match="sark login"):
                await transport.request(call())


async def test_a_token_that_another_process_renewed_is_taken_over() -> None:
    store = MemoryTokens()
    async with authority() as site:
        async with opened(site, user(store=store)) as one, opened(site, user(store=store)) as two:
            await one.request(call())
            await two.request(call())
            site.revoke()
            await one.request(call())
            await two.request(call())
        # A second use of the rotated refresh token would have been an alarm.
        assert site.grants() == ["authorization_code", "refresh_token"]


async def test_a_server_that_refuses_new_tokens_is_not_asked_in_circles() -> None:
    async with authority(rejects_all=True) as site, opened(site, user()) as transport:
        for _ in range(3):
            with pytest.raises(AuthenticationRequired):
                await transport.request(call())
        assert len(site.authorizations) == 1


async def test_we_ask_for_ourselves() -> None:
    auth = ClientCredentials(client_id="me", client_secret="s3 cret:", scopes="read")
    async with authority() as site, opened(site, auth) as transport:
        await transport.request(call())
        site.revoke()
        await transport.request(call())
        assert site.grants() == ["client_credentials"] * 2
        assert site.forms[0]["basic"] == "me:s3 cret:"
        assert site.forms[0]["scope"] == "read"


async def test_a_key_proves_who_asks() -> None:
    key = jwk.ECKey.generate_key("P-256")
    auth = ClientCredentials(
        client_id="me", private_key=key.as_pem(private=True).decode(), key_id="k1", scopes="read"
    )
    methods = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    async with authority(metadata=methods) as site, opened(site, auth) as transport:
        await transport.request(call())
        token = jwt.decode(site.forms[0]["client_assertion"], key, algorithms=["ES256"])
        assert token.header["kid"] == "k1"
        assert token.claims["iss"] == token.claims["sub"] == "me"
        assert token.claims["aud"] == site.origin


async def test_the_platform_vouches_and_its_refusal_is_final() -> None:
    tokens = iter(["first.jwt.x", "second.jwt.x"])

    async def read() -> str:
        return next(tokens)

    auth = WorkloadIdentity(client_id="me", assertion=read, scopes="read")
    async with authority() as site, opened(site, auth) as transport:
        site.failures = [(400, {"error": "invalid_grant"})]
        with pytest.raises(AuthenticationRequired, match="invalid_grant"):
            await transport.request(call())
        assert len(site.forms) == 1
        await transport.request(call())
        assert [form["assertion"] for form in site.forms] == ["first.jwt.x", "second.jwt.x"]


async def test_the_company_vouches_for_the_user() -> None:
    kind = "urn:ietf:params:oauth:token-type:id-jag"
    jag = {"access_token": "the-jag", "issued_token_type": kind, "token_type": "N_A"}
    async with authority() as site, authority(failures=[(200, jag)]) as idp:
        auth = EnterpriseManaged(
            client_id="me",
            client_secret="s3cret",
            id_token="the-id-token",
            idp_token_endpoint=f"{idp.origin}/token",
            idp_client_id="me-there",
            idp_client_secret="other",
            scopes="read",
        )
        async with opened(site, auth) as transport:
            await transport.request(call())
        (exchange,), (grant,) = idp.forms, site.forms
        assert exchange["subject_token"] == "the-id-token"
        assert (exchange["audience"], exchange["resource"]) == (site.origin, site.url)
        assert exchange["basic"] == "me-there:other"
        assert (grant["assertion"], grant["basic"]) == ("the-jag", "me:s3cret")


async def test_a_document_says_who_we_are_where_that_is_taken() -> None:
    document = "https://app.example/client.json"
    for takes, client_id in ((True, document), (False, "client-1")):
        flag = {"client_id_metadata_document_supported": takes}
        async with authority(metadata=flag) as site:
            async with opened(site, user(client_metadata_url=document)) as transport:
                await transport.request(call())
            assert site.forms[0]["client_id"] == client_id
            assert len(site.registrations) == (0 if takes else 1)


async def test_a_client_that_was_forgotten_registers_anew() -> None:
    async with authority(refreshes=False) as site, opened(site, user()) as transport:
        await transport.request(call())
        site.revoke()
        site.failures = [(401, {"error": "invalid_client"})]
        with pytest.raises(AuthenticationRequired, match="invalid_client"):
            await transport.request(call())
        await transport.request(call())
        assert len(site.registrations) == 2


async def test_a_nonce_is_honoured_once_per_request() -> None:
    nonce = {"error": "use_dpop_nonce"}
    site_options = {"answer": {"token_type": "DPoP"}, "failures": [(400, nonce)]}
    async with authority(**site_options) as site, opened(site, user(dpop=True)) as transport:
        await transport.request(call())
        assert len(site.forms) == 2
        site.revoke()
        site.refresh_tokens.clear()
        site.failures = [(400, nonce)] * 4
        with pytest.raises(AuthenticationRequired, match="use_dpop_nonce"):
            await transport.request(call())


async def test_a_nonce_of_the_resource_is_in_the_next_proof() -> None:
    async with authority(answer={"token_type": "DPoP"}, nonce="n-1") as site:
        async with opened(site, user(dpop=True)) as transport:
            await transport.request(call())
            site.nonce = "n-2"
            await transport.request(call())
        proofs = [each.headers["dpop"] for each in site.server.requests if "dpop" in each.headers]
        nonces = [
            json.loads(jws.extract_compact(proof.encode()).payload).get("nonce")
            for proof in proofs[1:]  # the first one was for the token endpoint
        ]
        assert nonces == [None, "n-1", "n-1", "n-1", "n-2"]


async def test_a_nonce_without_proofs_is_no_reason_to_try_again() -> None:
    async with authority(nonce="n-1") as site, opened(site, user()) as transport:
        with pytest.raises(AuthenticationRequired):
            await transport.request(call())
        assert len(site.authorizations) == 1


async def test_a_refusal_for_another_reason_is_the_answer() -> None:
    async with authority(forbids='Bearer error="invalid_request"') as site:
        async with opened(site, user()) as transport:
            with pytest.raises(Forbidden):
                await transport.request(call())
        assert site.authorizations == []


async def test_what_another_process_refreshed_ahead_of_time_is_taken_over() -> None:
    store = MemoryTokens()
    async with authority(expires_in=1) as site:
        async with opened(site, user(store=store)) as one, opened(site, user(store=store)) as two:
            await one.request(call())
            await two.request(call())
            site.expires_in, before = 3600, len(site.forms)
            await one.request(call())
            await two.request(call())
        assert site.grants()[before:] == ["refresh_token"]


async def test_a_configured_issuer_gets_nothing_that_another_one_stored() -> None:
    store = MemoryTokens()
    async with authority() as site, authority() as other:
        async with opened(site, user(store=store)) as transport:
            await transport.request(call())
        site.revoke()
        site.issuer = other.origin
        before = len(site.presented())
        async with opened(site, user(store=store, issuer=other.origin)) as transport:
            with pytest.raises(AuthenticationRequired):
                await transport.request(call())  # its tokens are not good here
        assert site.presented()[before] is None
        assert other.grants() == ["authorization_code"]


async def test_bound_tokens_are_used_with_their_key_after_a_restart() -> None:
    store = MemoryTokens()
    async with authority(answer={"token_type": "DPoP"}) as site:
        for _ in range(2):
            async with opened(site, user(dpop=True, store=store)) as transport:
                await transport.request(call())
        assert site.grants() == ["authorization_code"]
        proofs = [each.headers.get("dpop") for each in site.server.requests]
        keys = {str(jws.extract_compact(p.encode()).headers()["jwk"]) for p in proofs if p}
        assert len(keys) == 1


async def test_a_resource_that_wants_bound_tokens_says_so() -> None:
    wants = {"dpop_bound_access_tokens_required": True}
    async with authority(resource=wants) as site, opened(site, user()) as transport:
        with pytest.raises(AuthenticationRequired, match="dpop=True"):
            await transport.request(call())


async def test_signing_in_and_out_ahead_of_time() -> None:
    store = MemoryTokens()
    async with authority() as site:
        server = Http(site.url, auth=user(store=store))
        done = await sign_in(server)
        assert (done.issuer, done.scopes, done.renewable) == (site.origin, ("read",), True)
        async with opened(site, OAuth(store=store)) as transport:
            await transport.request(call())
        assert len(site.authorizations) == 1
        await sign_out(server)
        assert not store._texts
        with pytest.raises(ConfigError, match="nothing to sign in to"):
            await sign_in(Http(site.url))
        with pytest.raises(AuthenticationRequired, match="sark login"):
            await sign_in(Http(site.url, auth=OAuth()))


async def test_a_user_who_never_comes_back_is_waited_for_so_long() -> None:
    async def never(url: str) -> str:
        await anyio.sleep_forever()
        raise AssertionError

    auth = OAuth(redirects=AppRedirects(REDIRECT_URI, never), login_timeout_s=0.01)
    async with authority() as site, opened(site, auth) as transport:
        with pytest.raises(AuthenticationRequired, match="nobody signed in"):
            await transport.request(call())


@pytest.mark.row(61)
async def test_a_callback_that_breaks_is_one_plain_error() -> None:
    async def broken(url: str) -> str:
        raise RuntimeError("with a s3cret in it")

    auth = OAuth(redirects=AppRedirects(REDIRECT_URI, broken))
    async with authority() as site, opened(site, auth) as transport:
        with pytest.raises(AuthenticationRequired, match="RuntimeError") as caught:
            await transport.request(call())
        assert "s3cret" not in str(caught.value)


async def test_no_secret_is_in_an_error_or_a_repr() -> None:
    auth = ClientCredentials(client_id="me", client_secret="s3cret-of-mine", scopes="read")
    async with authority() as site:
        said = {"error": "invalid_request", "error_description": "no s3cret-of-mine, please"}
        site.failures = [(400, said)]
        made = Authorizer(site.url, auth)
        async with open_transport(site.url, auth=made) as transport:
            with pytest.raises(AuthenticationRequired, match="invalid_request") as caught:
                await transport.request(call())
            await transport.request(call())
            shown = "".join(traceback.format_exception(caught.value))
            shown += repr(auth) + repr(made) + repr(made._keeper.record) + repr(transport)
        assert "s3cret-of-mine" not in shown
        assert "access-2" not in shown


async def test_a_bearer_token_is_refused_where_a_bound_one_was_asked_for() -> None:
    async with authority() as site, opened(site, user(dpop=True)) as transport:
        with pytest.raises(AuthenticationRequired, match="DPoP"):
            await transport.request(call())


async def test_a_dpop_bound_token_comes_with_a_fresh_proof_each_time() -> None:
    async with authority(answer={"token_type": "DPoP"}) as site:
        async with opened(site, user(dpop=True)) as transport:
            await transport.request(call())
            await transport.request(call())
        requests = [each for each in site.server.requests if each.target == "/mcp"][1:]
        assert {each.headers["authorization"] for each in requests} == {"DPoP access-1"}
        assert len({each.headers["dpop"] for each in requests}) == len(requests) == 3
        assert "dpop_jkt" in site.authorizations[0]


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"code_challenge_methods_supported": None}, "PKCE"),
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ({"token_endpoint": "http://169.254.169.254/token"}, "refused"),
        ({"registration_endpoint": None}, "client_id"),
        ({"authorization_endpoint": None}, "authorization endpoint"),
    ],
)
async def test_metadata_that_cannot_be_used(metadata: dict[str, Any], why: str) -> None:
    async with authority(metadata=metadata) as site, opened(site, user()) as transport:
        with pytest.raises(AuthenticationRequired, match=why):
            await transport.request(call())
        assert site.forms == []


async def test_without_an_authorizer_the_error_says_what_the_server_wants() -> None:
    async with authority() as site, open_transport(site.url) as transport:
        with pytest.raises(AuthenticationRequired) as caught:
            await transport.request(call())
        assert caught.value.www_authenticate[0].startswith("Bearer ")
        assert "resource_metadata" in caught.value.www_authenticate[0]


async def test_a_broken_store_sends_nothing() -> None:
    class Broken:
        async def load(self, name: str) -> str | None:
            raise OSError("access-1 is what I was asked to keep")

        async def save(self, name: str, text: str) -> None: ...

        async def delete(self, name: str) -> None: ...

    async with serve(modern()) as server:
        auth = Authorizer(server.url, OAuth(store=Broken()))
        async with open_transport(server.url, auth=auth) as transport:
            with pytest.raises(Denied) as caught:
                await transport.request(call())
        assert "access-1" not in str(caught.value)
        assert server.requests == []


@pytest.mark.parametrize("ahead", [True, False], ids=["expired", "refused"])
async def test_processes_that_share_a_store_renew_one_after_the_other(
    tmp_path: Path, ahead: bool
) -> None:
    """Each has a store object of its own, as a process has; the directory is the same."""
    async with authority(expires_in=1 if ahead else 3600) as site:
        async with (
            opened(site, user(store=FileTokens(tmp_path))) as one,
            opened(site, user(store=FileTokens(tmp_path))) as two,
        ):
            await one.request(call())
            await two.request(call())
            site.expires_in, before = 3600, len(site.forms)
            if not ahead:
                site.revoke()

            async def hold() -> None:
                for _ in range(50):  # for the other one to come as far
                    await anyio.lowlevel.checkpoint()

            site.before_token = hold
            async with anyio.create_task_group() as group:
                group.start_soon(one.request, call())
                group.start_soon(two.request, call())
        assert site.grants()[before:] == ["refresh_token"]
        assert set(site.presented()[-2:]) == {f"Bearer access-{len(site.forms)}"}


async def test_signing_out_revokes_what_is_forgotten() -> None:
    store = MemoryTokens()
    async with authority() as site:
        site.offer_revocation()
        server = Http(site.url, auth=user(store=store))
        await sign_in(server)
        done = await sign_out(server)
        assert (done.revoked, dict(done.unrevoked)) == ((site.origin,), {})
        assert [(form["token_type_hint"], form["client_id"]) for form in site.revocations] == [
            ("refresh_token", "client-1"),
            ("access_token", "client-1"),
        ]
        assert not site.tokens
        assert not site.refresh_tokens
        assert not store._texts
        again = await sign_out(server)
        assert (again.revoked, dict(again.unrevoked)) == ((), {})


async def test_a_client_that_proves_who_it_is_does_so_when_it_revokes() -> None:
    async with authority() as site:
        site.offer_revocation()
        auth = ClientCredentials(client_id="me", client_secret="s3cret")
        server = Http(site.url, auth=auth)
        await sign_in(server)
        assert (await sign_out(server)).revoked == (site.origin,)
        (form,) = site.revocations  # there is no refresh token
        assert (form["basic"], form["token_type_hint"]) == ("me:s3cret", "access_token")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "offers no revocation"),
        ((503, {}), "HTTP 503"),
        ((400, {"error": "unsupported_token_type"}), "unsupported_token_type"),
        ((400, {"error": "invalid_client", "error_description": "refresh-1"}), "invalid_client"),
    ],
)
async def test_what_cannot_be_revoked_is_forgotten_and_said(
    answer: tuple[int, dict[str, Any]] | None, why: str
) -> None:
    store = MemoryTokens()
    async with authority(revocation=answer) as site:
        if answer is not None:
            site.offer_revocation()
        server = Http(site.url, auth=user(store=store))
        await sign_in(server)
        done = await sign_out(server)
        assert done.revoked == ()
        assert why in done.unrevoked[site.origin]
        assert "refresh-1" not in done.unrevoked[site.origin]
        assert not store._texts


async def test_an_authorization_server_that_is_gone_or_hangs_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryTokens()
    monkeypatch.setattr(revoking, "REVOKE_S", 0.05)
    async with authority(before_revocation=anyio.sleep_forever) as site:
        site.offer_revocation()
        server = Http(site.url, auth=user(store=store))
        await sign_in(server)
        assert "no answer within" in (await sign_out(server)).unrevoked[site.origin]
        assert not store._texts
        await sign_in(server)
    monkeypatch.undo()
    assert "does not answer" in (await sign_out(server)).unrevoked[site.origin]
    assert not store._texts


async def test_a_file_of_tokens_that_is_damaged_can_be_forgotten(tmp_path: Path) -> None:
    async with authority() as site:
        server = Http(site.url, auth=user(store=FileTokens(tmp_path)))
        await sign_in(server)
        (kept,) = [path async for path in anyio.Path(tmp_path).glob("*.json")]
        await kept.write_text("{")
        done = await sign_out(server)
        assert (done.revoked, dict(done.unrevoked)) == ((), {})
        assert not await kept.exists()


@pytest.mark.parametrize("steps", range(6))
async def test_at_every_step_of_its_end_whoever_asks_for_tokens_is_told_of_it(steps: int) -> None:
    """The errand begins in a task group that still takes tasks, and ends with it; or not at all."""
    made = Authorizer("https://mcp.example/mcp", user())
    ending = anyio.CancelScope()

    async def run(*, task_status: Any) -> None:
        with ending:
            await made.run(task_status=task_status)

    async with anyio.create_task_group() as group:
        await group.start(run)
        ending.cancel()
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(30), pytest.raises(ClientClosed):
            await made._flights.join(anyio.sleep_forever)
