"""One request to a token endpoint: the proof of who asks, DPoP, and a nonce where one is wanted."""

from __future__ import annotations

import secrets
import time
from typing import final

from attrs import field, frozen

from sark_trio.auth.forms import FORM_HEADERS, encode_form, proven, secrets_in
from sark_trio.auth.proofs import assertion_claims
from sark_trio.auth.registration import ClientIdentity
from sark_trio.auth.token import NonceNeeded, TokenSet, check_revoked, id_jag_in, token_in
from sark_trio.client.authorizing.keys import Proofs, SigningKey
from sark_trio.client.authorizing.network import Network

__all__ = ["TokenEndpoint"]

Form = dict[str, str]


@final
@frozen(eq=False, kw_only=True)
class TokenEndpoint:
    """Asks token endpoints as one client does.

    :param key: what ``private_key_jwt`` signs with.
    """

    network: Network
    key: SigningKey | None = field(repr=False)

    async def tokens(
        self,
        url: str,
        form: Form,
        client: ClientIdentity,
        *,
        requested: tuple[str, ...],
        proofs: Proofs | None,
        before: TokenSet | None = None,
    ) -> TokenSet:
        """The tokens that *form* gets.

        :raises TokenRefused: it gets an error.
        :raises AuthenticationRequired: it gets no answer, or none that can be used.
        """
        try:
            return await self._tokens(url, form, client, requested, proofs, before)
        except NonceNeeded:
            # Once: a server that does not take its own nonce never will (RFC 9449, section 8).
            return await self._tokens(url, form, client, requested, proofs, before)

    async def identity_assertion(self, url: str, form: Form, client: ClientIdentity) -> str:
        """The ID-JAG that *form* gets. The same errors as :meth:`tokens`."""
        status, body, hidden = await self._post(url, form, client, None)
        return id_jag_in(status, body, secrets=hidden)

    async def revoke(self, url: str, form: Form, client: ClientIdentity) -> None:
        """Have the token in *form* revoked. The same errors as :meth:`tokens`."""
        status, body, hidden = await self._post(url, form, client, None)
        check_revoked(status, body, secrets=hidden)

    async def _tokens(
        self,
        url: str,
        form: Form,
        client: ClientIdentity,
        requested: tuple[str, ...],
        proofs: Proofs | None,
        before: TokenSet | None,
    ) -> TokenSet:
        status, body, hidden = await self._post(url, form, client, proofs)
        return token_in(
            status,
            body,
            now_wall=time.time(),
            requested=requested,
            dpop=proofs is not None,
            before=before,
            secrets=hidden,
        )

    async def _post(
        self, url: str, form: Form, client: ClientIdentity, proofs: Proofs | None
    ) -> tuple[int, bytes, tuple[str, ...]]:
        now, assertion = time.time(), None
        if client.auth_method == "private_key_jwt" and self.key is not None:
            claims = assertion_claims(
                client.client_id, client.issuer, now_wall=now, unique=secrets.token_urlsafe(16)
            )
            assertion = self.key.sign({}, claims)
        whole, headers = proven(form, client, assertion)
        if proofs is not None:
            proof = proofs.make("POST", url, now_wall=now, unique=secrets.token_urlsafe(16))
            headers = (*headers, ("dpop", proof))
        status, answered, body = await self.network.ask(
            "POST", url, (*FORM_HEADERS, *headers), encode_form(whole)
        )
        if proofs is not None:
            proofs.note(
                url, next((value for name, value in answered if name == "dpop-nonce"), None)
            )
        return status, body, secrets_in(whole, client)
