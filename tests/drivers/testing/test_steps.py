"""The sweep reaches every step, repeats itself exactly, and finds planted leaks."""

from __future__ import annotations

import os
from typing import Literal

import anyio
import pytest
from trio.testing import MockClock

from sark_trio.testing import Leaked, Sweep, Victim, sweep

BACKENDS: list[Literal["trio", "asyncio"]] = ["trio", "asyncio"]


async def three_rounds(victim: Victim) -> None:
    with victim:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_step_of_the_victim_is_cancelled_once(backend: Literal["trio", "asyncio"]) -> None:
    found = sweep(three_rounds, backend=backend)
    assert found == Sweep(runs=5, steps=3, cancelled=4)
    assert str(found) == "5 runs over 3 steps, 4 of them cancelled"


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_of_other_tasks_count_too(backend: Literal["trio", "asyncio"]) -> None:
    async def scenario(victim: Victim) -> None:
        async def helper() -> None:
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            done.set()

        done = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(helper)
            with victim:
                await done.wait()

    assert sweep(scenario, backend=backend).steps > 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_leak_in_one_step_only_is_found_and_located(
    backend: Literal["trio", "asyncio"],
) -> None:
    async def careless() -> None:
        await anyio.lowlevel.checkpoint()
        opened.extend(os.pipe())
        # The window: cancelled here, nobody closes them.
        await anyio.lowlevel.checkpoint()
        while opened:
            os.close(opened.pop())

    opened: list[int] = []

    async def scenario(victim: Victim) -> None:
        with victim:
            await careless()

    with pytest.raises(Leaked, match=r"descriptor: .*pipe") as caught:
        sweep(scenario, backend=backend)
    assert caught.value.__notes__[-1].startswith("cancelled at step ")
    assert len(opened) == 2
    for descriptor in opened:
        os.close(descriptor)


def test_an_assertion_of_the_scenario_is_passed_on_with_its_step() -> None:
    async def scenario(victim: Victim) -> None:
        ended = False
        with victim:
            await anyio.lowlevel.checkpoint()
            ended = True
        assert ended

    with pytest.raises(AssertionError) as caught:
        sweep(scenario)
    assert caught.value.__notes__ == ["cancelled at step 0, trio, seed 0"]


def test_on_trio_a_seed_is_an_order_of_tasks_and_always_the_same_one() -> None:
    def order(seed: int) -> list[list[int]]:
        runs: list[list[int]] = []

        async def scenario(victim: Victim) -> None:
            taken: list[int] = []
            runs.append(taken)

            async def one(number: int) -> None:
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
                    taken.append(number)

            with victim:
                async with anyio.create_task_group() as tasks:
                    for number in range(4):
                        tasks.start_soon(one, number)

        sweep(scenario, seeds=(seed,))
        return runs

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_time_can_be_virtual() -> None:
    async def scenario(victim: Victim) -> None:
        with victim:
            await anyio.sleep(3600)

    found = sweep(scenario, clock=lambda: MockClock(autojump_threshold=0))
    assert found.cancelled >= 1


def test_a_scenario_without_a_victim_is_a_mistake() -> None:
    async def scenario(victim: Victim) -> None:
        del victim

    with pytest.raises(AssertionError, match="never entered its victim"):
        sweep(scenario)
