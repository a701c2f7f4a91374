"""Keys from an issuer's URL: one fetch for all who need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sark_trio import JwksUrl
from sark_trio.errors import ProtocolError

pytestmark = pytest.mark.trio


class Issuer:
    """Answers after a second, and counts."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.asked = 0

    async def __call__(
        self, method: str, url: str, headers: Any, body: bytes, timeout_s: float
    ) -> tuple[int, Sequence[tuple[str, str]], bytes]:
        self.asked += 1
        await trio.sleep(1)
        return self.status, (), b'{"keys": []}'


async def test_a_hundred_tokens_at_once_are_one_fetch(autojump_clock: MockClock) -> None:
    issuer, found = Issuer(), []
    keys = JwksUrl("https://issuer.example/jwks").bind(issuer)

    async def ask() -> None:
        found.append(await keys())

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert issuer.asked == 1
    assert found == [{"keys": []}] * 100
    await keys()
    assert issuer.asked == 2


async def test_a_failed_fetch_fails_all_who_wait_each_with_its_own_error(
    autojump_clock: MockClock,
) -> None:
    issuer, errors = Issuer(status=500), list[ProtocolError]()
    keys = JwksUrl("https://issuer.example/jwks").bind(issuer)

    async def ask() -> None:
        with pytest.raises(ProtocolError, match="status 500") as caught:
            await keys()
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert issuer.asked == 1
    assert len({id(error) for error in errors}) == 3


async def test_whoever_waits_for_a_cancelled_fetch_fetches(autojump_clock: MockClock) -> None:
    issuer, found = Issuer(), []
    keys = JwksUrl("https://issuer.example/jwks").bind(issuer)

    async def ask() -> None:
        found.append(await keys())

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            nursery.start_soon(ask)  # runs after the one that leads and is cancelled
            await keys()
    assert issuer.asked == 2
    assert found == [{"keys": []}]
