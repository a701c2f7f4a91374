"""The credentials of one server: presented, refreshed, asked for anew. One at a time, for all.

Theory of operation. Every request asks :meth:`Authorizer.credentials`, which answers out of
memory unless the token is about to expire. A refusal goes to :meth:`Authorizer.challenged`,
which says whether there is something new to try. Whatever takes time (refresh, sign-in) is a
flight: it runs in a task of our own, and everybody who needs it waits for the same one. Giving
up waiting ends no flight, for a rotated refresh token that nobody reads is lost; closing the
transport does.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from math import inf
from typing import Final, final

import anyio
import httpcore
from anyio.abc import TaskStatus
from attrs import evolve

from sark_trio.auth.challenge import Challenge, Challenged, Credentials
from sark_trio.auth.failures import failed
from sark_trio.auth.record import Grant
from sark_trio.auth.scopes import StepUps, first_scopes, more_scopes, parse_scope, with_offline
from sark_trio.auth.token import TokenRefused, TokenSet
from sark_trio.auth.urls import is_loopback
from sark_trio.client.authorizing.discovery import Found, discover
from sark_trio.client.authorizing.endpoint import TokenEndpoint
from sark_trio.client.authorizing.flights import Flights
from sark_trio.client.authorizing.grants import Grants
from sark_trio.client.authorizing.keeping import Keeper
from sark_trio.client.authorizing.keys import SigningKey
from sark_trio.client.authorizing.network import Network
from sark_trio.client.authorizing.options import Auth, OAuth, OAuthClient
from sark_trio.client.authorizing.revoking import SignedOut, revoke_all
from sark_trio.client.reach import check_of
from sark_trio.client.servers import Http
from sark_trio.errors import AuthenticationRequired, ConfigError
from sark_trio.net.addresses import AddressCheck
from sark_trio.net.tls import TLSOptions

__all__ = ["Authorizer", "authorizer_of"]

#: For a flight beside the user's own time: a dozen errands at most.
FLIGHT_S: Final = 60.0
#: A token that is refused within this time of its issue is no expired one.
NEW_S: Final = 60.0


@final
class Authorizer:
    """Presents and renews the tokens of the MCP server at *url*.

    :raises ConfigError: *url* is neither ``https`` nor on this machine, or a key is none.
    """

    def __init__(
        self,
        url: str,
        options: Auth,
        *,
        server_tls: TLSOptions | None = None,
        server_check: AddressCheck | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        if not url.lower().startswith("https://") and not is_loopback(url):
            raise ConfigError("tokens go over https:// only, or to this machine", source="auth")
        self._url = url
        self._options = options
        named = [options.issuer, getattr(options, "idp_token_endpoint", None)]
        self._network = Network(
            url,
            server_tls=server_tls,
            tls=options.tls,
            named=named,
            private=options.private_network,
            server_check=server_check,
            backend=backend,
        )
        key = None
        if isinstance(options, OAuthClient) and options.private_key is not None:
            key = SigningKey.from_pem(options.private_key, options.algorithm, options.key_id)
        endpoint = TokenEndpoint(network=self._network, key=key)
        self._grants = Grants(options, self._network, endpoint)
        self._keeper = Keeper(url, options)
        self._step_ups = StepUps()
        self._generation = 0
        #: The last generations that were accepted; refreshed after a refusal; asked for anew.
        self._accepted = self._refreshed_as = self._obtained_as = -1
        self._obtained_at = -inf
        user_s = options.login_timeout_s if isinstance(options, OAuth) else 0.0
        self._flights = Flights(FLIGHT_S + user_s)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own connections and flights until cancelled."""
        async with anyio.create_task_group() as group:
            await group.start(self._network.run)
            self._flights.group = group
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                # While the task group still takes tasks: none comes after.
                self._flights.group = None

    # What the transport asks.

    @property
    def busy(self) -> bool:
        """Whether tokens are being got."""
        return self._flights.busy

    async def credentials(self, method: str, url: str) -> Credentials:
        """What a request with *method* to *url* is to carry: nothing, where we have nothing.

        :raises GatewayError: the store cannot be read.
        """
        await self._keeper.load()
        tokens = self._tokens
        if tokens is not None and not tokens.is_fresh(time.time()):
            if tokens.refresh_token is not None:
                await self._refresh_quietly()
            tokens = self._tokens
            if tokens is not None and tokens.expires_at is not None:
                tokens = tokens if time.time() < tokens.expires_at else None
        if tokens is None:
            return Credentials((), self._generation)
        headers = [("Authorization", f"{tokens.scheme} {tokens.access_token}")]
        if tokens.scheme == "DPoP":
            proof = self._keeper.proofs().make(
                method,
                url,
                now_wall=time.time(),
                unique=secrets.token_urlsafe(16),
                token=tokens.access_token,
            )
            headers.append(("DPoP", proof))
        return Credentials(tuple(headers), self._generation)

    def accepted(self, generation: int) -> None:
        """A request with the tokens of *generation* was not refused."""
        self._accepted = max(self._accepted, generation)

    def note_nonce(self, url: str, nonce: str) -> None:
        """A response from *url* said which nonce the next proof must have (RFC 9449, 8.2)."""
        if self._options.dpop:
            self._keeper.proofs().note(url, nonce)

    async def challenged(self, told: Challenged) -> bool:
        """Whether the request that was refused so may succeed now; renews what must be.

        :raises AuthenticationRequired: there is no token to be had.
        """
        challenge = told.challenge
        if challenge.get("error") == "use_dpop_nonce":
            return self._options.dpop
        more = told.status == 403
        if more and challenge.get("error") != "insufficient_scope":
            return False
        wanted = parse_scope(challenge.get("scope")) if more else ()
        while self._flights.busy:
            await self._flights.join()
        tokens = self._tokens
        have = () if tokens is None else (*tokens.scopes, *tokens.requested)
        renewed = self._generation != told.generation and tokens is not None
        if renewed and set(wanted) <= set(have):
            return True  # somebody else was refused, too, and has seen to it
        if more and not self._step_ups.may_try(() if tokens is None else tokens.scopes, wanted):
            return False
        if not more and self._is_rejected_new(told.generation):
            raise failed("the server refuses the token that was just issued for it")
        await self._flights.join(lambda: self._renew(challenge, more=more))
        return True

    async def sign_in(self) -> Grant:
        """Get tokens now, whatever there is. :raises AuthenticationRequired: there are none."""
        await self._keeper.load()
        challenge = await self._probe()
        await self._flights.join(lambda: self._renew(challenge, more=True))
        return self._keeper.record.grant

    async def sign_out(self) -> SignedOut:
        """Forget all that is kept about this server, and have its tokens revoked."""
        with suppress(ConfigError):  # what cannot be read can be forgotten
            await self._keeper.load()
        record = self._keeper.record
        await self._keeper.clear()
        self._generation += 1
        return await revoke_all(record, self._network, self._grants)

    def __repr__(self) -> str:
        tokens = "no tokens" if self._tokens is None else "tokens"
        return f"<Authorizer {type(self._options).__name__} {tokens} generation={self._generation}>"

    @property
    def _tokens(self) -> TokenSet | None:
        return self._keeper.record.grant.tokens

    async def _refresh_quietly(self) -> None:
        """Refresh ahead of time. If that fails, the server will say what it wants instead."""
        try:
            await self._flights.join(self._refresh)
        except AuthenticationRequired:
            return

    async def _refresh(self) -> None:
        async with self._keeper.turn():
            if not await self._renewed_elsewhere():
                grant = self._keeper.record.grant
                await self._refreshed(grant, grant.token_endpoint)

    async def _renewed_elsewhere(self) -> bool:
        found = await self._keeper.renewed_elsewhere(time.time())
        self._generation += found
        return found

    async def _refreshed(self, grant: Grant, token_endpoint: str) -> bool:
        """Whether *grant* could be refreshed. If it is refused, its tokens are no more."""
        if grant.client is None or grant.tokens is None or grant.tokens.refresh_token is None:
            return False
        issuer = grant.client.issuer
        proofs = self._keeper.proofs() if grant.tokens.scheme == "DPoP" else None
        try:
            tokens = await self._grants.refresh(
                token_endpoint, grant.client, grant.tokens, grant.resource, proofs=proofs
            )
        except TokenRefused as exc:
            # Forgotten there: whoever we were registered as does not exist any more.
            client = None if exc.code == "invalid_client" else grant.client
            await self._keep(issuer, evolve(grant, client=client, tokens=None))
            return False
        await self._keep(issuer, evolve(grant, tokens=tokens))
        return True

    async def _renew(self, challenge: Challenge, *, more: bool) -> None:
        """Find out who guards the server now, and get tokens there."""
        if not more and await self._renewed_elsewhere():
            return
        record = self._keeper.record
        found = await discover(
            self._network,
            self._url,
            challenge,
            issuer=self._options.issuer,
            present=record.issuer,
        )
        issuer = found.server.issuer
        self._keeper.check_binding(issuer)
        if found.needs_dpop and not self._options.dpop:
            raise failed("the server takes DPoP-bound tokens only: set dpop=True")
        # Of this issuer alone: what another one gave us is not shown to it.
        grant = record.at(issuer)
        presented = record.issuer == issuer
        # A token that was refreshed and never accepted: refreshing once more is no use.
        in_vain = self._refreshed_as == self._generation > self._accepted
        if presented and not more and not in_vain:
            async with self._keeper.turn():
                if await self._renewed_elsewhere():
                    return
                grant = self._keeper.record.at(issuer)
                if await self._refreshed(grant, found.server.token_endpoint):
                    self._refreshed_as = self._generation
                    return
            grant = self._keeper.record.at(issuer)
        scopes = self._scopes(found, challenge, grant.tokens if presented else None, more=more)
        await self._obtain(found, scopes, grant)

    async def _obtain(self, found: Found, scopes: tuple[str, ...], grant: Grant) -> None:
        proofs = self._keeper.proofs() if self._options.dpop else None
        try:
            client, tokens = await self._grants.obtain(
                found, scopes, known=grant.client, proofs=proofs
            )
        except TokenRefused as exc:
            if exc.code == "invalid_client":
                await self._keep(found.server.issuer, evolve(grant, client=None, tokens=None))
            raise
        kept = Grant(
            client=client,
            tokens=tokens,
            resource=found.resource,
            token_endpoint=found.server.token_endpoint,
        )
        await self._keep(found.server.issuer, kept)
        self._obtained_as, self._obtained_at = self._generation, anyio.current_time()

    def _scopes(
        self, found: Found, challenge: Challenge, before: TokenSet | None, *, more: bool
    ) -> tuple[str, ...]:
        asked = challenge.get("scope")
        scopes = first_scopes(self._options.scopes, asked, found.scopes_supported)
        if before is not None and more:
            scopes = more_scopes((*before.requested, *before.scopes), asked)
        if isinstance(self._options, OAuth):
            scopes = with_offline(scopes, found.server.scopes_supported)
        return scopes

    def _is_rejected_new(self, generation: int) -> bool:
        """Whether these tokens are new, and never were of use: then new ones will not be."""
        new = anyio.current_time() - self._obtained_at < NEW_S
        return new and self._obtained_as == generation > self._accepted

    async def _keep(self, issuer: str, grant: Grant) -> None:
        await self._keeper.keep(issuer, grant)
        self._generation += 1

    async def _probe(self) -> Challenge:
        """What the server asks for, asked without any credentials."""
        headers = (
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        )
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        status, answered, _ = await self._network.ask("POST", self._url, headers, body)
        values = tuple(value for name, value in answered if name == "www-authenticate")
        return Challenged(status=status, www_authenticate=values).challenge


def authorizer_of(server: Http) -> Authorizer | None:
    """Who gets *server*'s tokens, if somebody does.

    :raises ConfigError: as :class:`Authorizer`.
    """
    if server.auth is None:
        return None
    if not isinstance(server.auth, Auth):
        # Not shown: it may be a token in the wrong place.
        raise ConfigError(f"expected OAuth(...), got {type(server.auth).__name__}", source="auth")
    return Authorizer(
        server.url,
        server.auth,
        server_tls=server.tls,
        server_check=check_of(server.addresses),
        backend=server.network,
    )
