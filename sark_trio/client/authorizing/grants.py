"""The ways to a token: a user who signs in, ourselves, the company, or the platform."""

from __future__ import annotations

import secrets
from typing import Final, final

import anyio
from attrs import evolve, frozen

from sark_trio.auth.failures import failed
from sark_trio.auth.forms import (
    client_credentials,
    code_grant,
    jwt_bearer,
    refresh_grant,
    revocation,
    token_exchange,
)
from sark_trio.auth.metadata import ServerMetadata
from sark_trio.auth.redirect import begin, code_in
from sark_trio.auth.registration import (
    ClientIdentity,
    choose_method,
    document_identity,
    registered,
    registration_request,
)
from sark_trio.auth.token import TokenSet
from sark_trio.client.authorizing.discovery import Found
from sark_trio.client.authorizing.endpoint import TokenEndpoint
from sark_trio.client.authorizing.keys import Proofs
from sark_trio.client.authorizing.network import Network
from sark_trio.client.authorizing.options import (
    Assertion,
    Auth,
    EnterpriseManaged,
    OAuth,
    OAuthClient,
    WorkloadIdentity,
)

__all__ = ["Grants"]

_JSON: Final = (("content-type", "application/json"), ("accept", "application/json"))


@final
@frozen(eq=False)
class Grants:
    """Gets tokens as the options of one server say."""

    options: Auth
    network: Network
    endpoint: TokenEndpoint

    async def obtain(
        self,
        found: Found,
        scopes: tuple[str, ...],
        *,
        known: ClientIdentity | None,
        proofs: Proofs | None,
    ) -> tuple[ClientIdentity, TokenSet]:
        """New tokens for what was *found*, and who got them.

        :param known: who we are at that issuer, if we have been there.
        :raises TokenRefused, AuthenticationRequired: there are none.
        """
        options, server = self.options, found.server
        if isinstance(options, OAuth):
            return await self._sign_in(options, found, scopes, known, proofs)
        client = self.configured(server) or ClientIdentity(
            issuer=server.issuer, client_id="", auth_method="none"
        )
        if isinstance(options, EnterpriseManaged):
            form = await self._vouched(options, found, scopes)
        elif isinstance(options, WorkloadIdentity):
            form = jwt_bearer(await _assertion(options.assertion), found.resource, scopes)
        else:
            form = client_credentials(found.resource, scopes)
        tokens = await self.endpoint.tokens(
            server.token_endpoint, form, client, requested=scopes, proofs=proofs
        )
        return client, tokens

    async def refresh(
        self,
        token_endpoint: str,
        client: ClientIdentity,
        tokens: TokenSet,
        resource: str,
        *,
        proofs: Proofs | None,
    ) -> TokenSet:
        """The tokens that follow *tokens*; the same errors as :meth:`obtain`."""
        assert tokens.refresh_token is not None
        form = refresh_grant(tokens.refresh_token, resource)
        whole = self._with_secret(client)
        return await self.endpoint.tokens(
            token_endpoint, form, whole, requested=tokens.requested, proofs=proofs, before=tokens
        )

    async def revoke(self, url: str, client: ClientIdentity, tokens: TokenSet) -> None:
        """Have *tokens* revoked at *url*; the same errors as :meth:`obtain`.

        The refresh token first: most servers then revoke the access tokens, too (RFC 7009, 2.1).
        """
        whole = self._with_secret(client)
        if tokens.refresh_token is not None:
            form = revocation(tokens.refresh_token, "refresh_token")
            await self.endpoint.revoke(url, form, whole)
        await self.endpoint.revoke(url, revocation(tokens.access_token, "access_token"), whole)

    def configured(self, server: ServerMetadata) -> ClientIdentity | None:
        """Who the options say that we are at *server*."""
        options = self.options
        if not isinstance(options, OAuthClient) or options.client_id is None:
            return None
        return ClientIdentity(
            issuer=server.issuer,
            client_id=options.client_id,
            client_secret=options.client_secret,
            auth_method=choose_method(
                server.auth_methods,
                has_secret=options.client_secret is not None,
                has_key=options.private_key is not None,
            ),
        )

    def _with_secret(self, client: ClientIdentity) -> ClientIdentity:
        """*client* with the configured secret, which no store holds."""
        options = self.options
        if isinstance(options, OAuthClient) and options.client_id == client.client_id:
            return evolve(client, client_secret=options.client_secret)
        return client

    async def _sign_in(
        self,
        options: OAuth,
        found: Found,
        scopes: tuple[str, ...],
        known: ClientIdentity | None,
        proofs: Proofs | None,
    ) -> tuple[ClientIdentity, TokenSet]:
        if options.redirects is None:
            raise failed("a user must sign in first (`sark login SERVER`, or give `redirects`)")
        waiting = await options.redirects.open()
        try:
            client = await self._identity(options, found, scopes, known, waiting.redirect_uri)
            pending = begin(
                found.server,
                client_id=client.client_id,
                redirect_uri=waiting.redirect_uri,
                resource=found.resource,
                scopes=scopes,
                chance=secrets.token_bytes(64),
                key_thumbprint=None if proofs is None else proofs.key.thumbprint,
            )
            try:
                with anyio.fail_after(options.login_timeout_s):
                    redirect = await waiting.authorize(pending.url)
            except TimeoutError:
                raise failed(f"nobody signed in within {options.login_timeout_s:g} s") from None
        finally:
            await waiting.aclose()
        form = code_grant(pending, code_in(redirect, pending), found.resource)
        tokens = await self.endpoint.tokens(
            found.server.token_endpoint, form, client, requested=scopes, proofs=proofs
        )
        return client, tokens

    async def _identity(
        self,
        options: OAuth,
        found: Found,
        scopes: tuple[str, ...],
        known: ClientIdentity | None,
        redirect_uri: str,
    ) -> ClientIdentity:
        """Who we are: configured, our document, registered before, or registered now."""
        server = found.server
        configured = self.configured(server)
        if configured is not None:
            return configured
        document = options.client_metadata_url
        if document is not None and server.takes_documents:
            has_key = options.private_key is not None
            return document_identity(server, document, redirect_uri, has_key=has_key)
        if known is not None and known.redirect_uri == redirect_uri:
            return known
        if server.registration_endpoint is None:
            raise failed("the authorization server registers nobody: configure a client_id")
        body = registration_request(
            server,
            client_name=options.client_name,
            redirect_uri=redirect_uri,
            scopes=scopes,
            dpop=options.dpop,
        )
        answer = await self.network.ask("POST", server.registration_endpoint, _JSON, body)
        return registered(answer[0], answer[2], server, redirect_uri)

    async def _vouched(
        self, options: EnterpriseManaged, found: Found, scopes: tuple[str, ...]
    ) -> dict[str, str]:
        """The grant that the company's identity provider gives us for this server."""
        us = ClientIdentity(
            issuer=options.idp_token_endpoint,
            client_id=options.idp_client_id,
            client_secret=options.idp_client_secret,
            auth_method="none" if options.idp_client_secret is None else "client_secret_basic",
        )
        exchange = token_exchange(
            await _assertion(options.id_token),
            audience=found.server.issuer,
            resource=found.resource,
            scopes=scopes,
        )
        jag = await self.endpoint.identity_assertion(options.idp_token_endpoint, exchange, us)
        return jwt_bearer(jag, found.resource, scopes)


async def _assertion(source: Assertion) -> str:
    assertion = source if isinstance(source, str) else await source()
    if not assertion.isascii():
        raise failed("there is no assertion to be had")
    return assertion.strip()
