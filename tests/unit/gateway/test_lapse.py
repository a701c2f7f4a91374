"""How long somebody may stay, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from sark_trio import Principal
from sark_trio.gateway import lapse
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.lapse import Lapses
from tests.support.client import desk, open_client

#: Of the clock on the wall when the other one says 0.
EPOCH = 1_800_000_000.0


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """By how much the clock on the wall is ahead of where it began."""
    ahead = [0.0]
    began: list[float] = []

    def wall() -> float:
        began[:] = began or [trio.current_time()]
        return EPOCH + trio.current_time() - began[0] + ahead[0]

    monkeypatch.setattr(lapse, "_wall", wall)
    return ahead


@pytest.mark.trio
async def test_a_credential_is_good_until_its_end_and_no_longer(
    autojump_clock: MockClock, ahead: list[float]
) -> None:
    async with open_client(desk()) as client:
        began = trio.current_time()
        mine = Lapses(client).of(Principal(id="a", expires_at=EPOCH + 100.25))
        assert await mine.wait() == "credential_expired"
        assert trio.current_time() - began == pytest.approx(100.25, abs=1e-3)
        assert mine.ending() == "credential_expired"
        with trio.move_on_after(10_000) as waited:
            await Lapses(client).of(None).wait()
        assert waited.cancelled_caught


@pytest.mark.trio
async def test_a_machine_that_slept_looks_at_the_clock_soon(
    autojump_clock: MockClock, ahead: list[float]
) -> None:
    async with open_client(desk()) as client:
        mine = Lapses(client).of(Principal(id="a", expires_at=EPOCH + 10_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.wait)
            await trio.sleep(lapse.LOOK_S * 3.5)
            ahead[0] = 10_000.0
            began = trio.current_time()
        assert trio.current_time() - began <= lapse.LOOK_S


@pytest.mark.trio
async def test_a_block_and_closing_are_heard_at_once(
    autojump_clock: MockClock, ahead: list[float]
) -> None:
    async with open_client(desk()) as client:
        lapses = Lapses(client)
        client.observe(lapses)
        found: list[object] = []

        async def stay(name: str) -> None:
            found.append((name, await lapses.of(Principal(id=name)).wait(), trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay, "a")
            nursery.start_soon(stay, "b")
            await trio.testing.wait_all_tasks_blocked()
            client.block(principal="nobody", reason="r")
            client.block("desk", principal="b", reason="r")
            client.block(principal="a", reason="r")
            now = trio.current_time()
            await trio.testing.wait_all_tasks_blocked()
            assert found == [("a", "blocked", now)]
            with pytest.raises(Refused) as caught:
                lapses.of(Principal(id="a"))
            assert (caught.value.fault.status, caught.value.fault.reason) == (403, "blocked")
            lapses.close()
        assert found[1:] == [("b", "closing", now)]
