"""The record of one server, between memory and the store; and the key that its tokens are for."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, final

import anyio
from attrs import evolve

from sark_trio.auth.failures import failed
from sark_trio.auth.record import Grant, Record, parse_record, record_text
from sark_trio.client.authorizing.keys import Proofs, SigningKey
from sark_trio.client.authorizing.options import Auth, OAuth, OAuthClient
from sark_trio.stores.tokens import SharedTokenStore

__all__ = ["Keeper"]

#: For a store to keep one text. Closing waits for it, and must end.
SAVE_S: Final = 5.0


@final
class Keeper:
    """Keeps the record of the server at *url* in the options' store."""

    __slots__ = ("_loaded", "_lock", "_options", "_proofs", "name", "record")

    def __init__(self, url: str, options: Auth) -> None:
        #: What the store knows it by. Other options are another identity.
        self.name = f"{type(options).__name__} {_who(options)} {url}"
        self.record = Record()
        self._options = options
        self._proofs: Proofs | None = None
        self._loaded = False
        self._lock = anyio.Lock(fast_acquire=True)

    async def load(self) -> None:
        """Read the record, once.

        :raises GatewayError: it cannot be read.
        """
        if self._loaded:
            return
        async with self._lock:
            if not self._loaded:
                text = await self._options.store.load(self.name)
                self._take(Record() if text is None else parse_record(text))
                self._loaded = True

    def turn(self) -> AbstractAsyncContextManager[None]:
        """For renewing the tokens while no other process does, where the store is shared."""
        store = self._options.store
        return store.turn(self.name) if isinstance(store, SharedTokenStore) else nullcontext()

    async def renewed_elsewhere(self, now_wall: float) -> bool:
        """Whether another process has got good tokens meanwhile; then they are ours.

        Tokens of its that are not good any more are taken, too: it has rotated ours away.
        """
        before = self.record.grant.tokens
        text = await self._options.store.load(self.name)
        if text is not None:
            self._take(parse_record(text))
        tokens = self.record.grant.tokens
        return tokens is not None and tokens != before and tokens.is_fresh(now_wall)

    async def keep(self, issuer: str, grant: Grant) -> None:
        """*grant* is what holds now, from *issuer*.

        :raises AuthenticationRequired: the store takes too long; what is in memory holds.
        """
        client, options = grant.client, self._options
        if (
            client is not None
            and isinstance(options, OAuthClient)
            and options.client_id is not None
        ):
            grant = evolve(grant, client=evolve(client, client_secret=None))
        bound = self.record.bound or issuer
        self.record = evolve(self.record.using(issuer, grant), bound=bound)
        # Cancelled in between, what is in memory would be lost with it: a rotated token is gone.
        try:
            with anyio.fail_after(SAVE_S, shield=True):
                await options.store.save(self.name, record_text(self.record))
        except TimeoutError:
            raise failed(f"the store did not keep the tokens within {SAVE_S:g} s") from None

    async def clear(self) -> None:
        """Forget everything."""
        self.record = Record()
        self._proofs = None
        await self._options.store.delete(self.name)

    def check_binding(self, issuer: str) -> None:
        """Configured credentials belong to the issuer that they were first used at.

        :raises AuthenticationRequired: *issuer* is another one.
        """
        options = self._options
        fixed = isinstance(options, OAuthClient) and options.client_id is not None
        if fixed and options.issuer is None and self.record.bound not in {None, issuer}:
            raise failed(
                "the server has changed its authorization server; the configured credentials "
                "are not shown to another one (set issuer, or sign out first)"
            )

    def proofs(self) -> Proofs:
        """What makes DPoP proofs with the key of the present tokens."""
        if self._proofs is None:
            key = self.record.key
            made = SigningKey.generate() if key is None else SigningKey.from_jwk(key)
            self.record = evolve(self.record, key=made.private)
            self._proofs = Proofs(made)
        return self._proofs

    def _take(self, record: Record) -> None:
        if record.key != self.record.key:
            self._proofs = None
        wanted = self._options.issuer
        if wanted is not None and record.issuer != wanted:
            # The operator has named another one since: the old one's tokens are not presented.
            record = evolve(record, issuer=wanted)
        self.record = record


def _who(options: Auth) -> str:
    known = options.client_id if isinstance(options, OAuthClient) else None
    document = options.client_metadata_url if isinstance(options, OAuth) else None
    return known or document or "-"
