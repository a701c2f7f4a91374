"""Tokens on their way into a store, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from sark_trio import OAuth
from sark_trio.auth.record import Grant
from sark_trio.client.authorizing.keeping import SAVE_S, Keeper
from sark_trio.errors import AuthenticationRequired

ISSUER = "https://h.example"


class Store:
    """Takes *seconds* to keep a text."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.kept = ""

    async def load(self, name: str) -> str | None:
        return None

    async def save(self, name: str, text: str) -> None:
        await trio.sleep(self.seconds)
        self.kept = text

    async def delete(self, name: str) -> None: ...


@pytest.mark.trio
async def test_tokens_are_kept_although_nobody_waits_any_more(autojump_clock: MockClock) -> None:
    store = Store(SAVE_S / 2)
    keeper = Keeper(f"{ISSUER}/mcp", OAuth(store=store))
    with trio.move_on_after(0.1):
        await keeper.keep(ISSUER, Grant())
    assert trio.current_time() == SAVE_S / 2
    assert ISSUER in store.kept


@pytest.mark.trio
async def test_a_store_that_hangs_holds_up_nobody_for_ever(autojump_clock: MockClock) -> None:
    keeper = Keeper(f"{ISSUER}/mcp", OAuth(store=Store(1_000)))
    with pytest.raises(AuthenticationRequired, match="within 5 s"):
        await keeper.keep(ISSUER, Grant())
    assert trio.current_time() == SAVE_S
    assert keeper.record.issuer == ISSUER
