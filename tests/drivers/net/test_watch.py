"""Deadlines without cancel scopes, in virtual time."""

from __future__ import annotations

import anyio
import pytest
import trio

from sark_trio.net.watch import DeadlineWatch


@pytest.mark.trio
async def test_each_callback_is_called_at_its_deadline_and_a_disarmed_one_never(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = DeadlineWatch()
    seen: list[tuple[str, float]] = []

    def expire(name: str) -> None:
        seen.append((name, trio.current_time() - begun))

    async with anyio.create_task_group() as group:
        await group.start(watch.run)
        begun = trio.current_time()
        watch.arm("late", begun + 30, lambda: expire("late"))
        watch.arm("never", begun + 10, lambda: expire("never"))
        await trio.sleep(1)
        watch.arm("soon", begun + 5, lambda: expire("soon"))
        watch.disarm("never")
        watch.disarm("unknown")
        assert repr(watch) == "<DeadlineWatch running armed=2>"
        await trio.sleep(60)
        assert seen == [("soon", 5.0), ("late", 30.0)]
        group.cancel_scope.cancel()
    assert not watch.running


@pytest.mark.trio
async def test_a_deadline_that_moves_wakes_the_watcher_once_per_deadline_it_was_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = DeadlineWatch()
    hits: list[float] = []
    async with anyio.create_task_group() as group:
        await group.start(watch.run)
        for _ in range(10):
            now = trio.current_time()
            watch.arm("same", now + 30, lambda: hits.append(trio.current_time()))
            await trio.sleep(20)
        assert hits == []
        last = trio.current_time() - 20
        await trio.sleep(11)
        assert hits == [last + 30]
        group.cancel_scope.cancel()
