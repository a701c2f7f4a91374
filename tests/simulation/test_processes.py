"""Simulated processes under the real transport, one question at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from attrs import define
from trio.testing import MockClock

from sark_trio.transports.base import Outgoing
from sark_trio.transports.process import GRACE_S
from sark_trio.transports.stdio import StdioTransport
from tests.simulation.desk import Desk, Visit
from tests.simulation.dice import Dice
from tests.simulation.processes import Kernel, Program
from tests.support.stdio import running

pytestmark = pytest.mark.trio


@define(eq=False)
class Moody(Desk):
    """Answers what it likes to."""

    ignored: tuple[str, ...] = ()

    async def result(
        self, method: str, params: Mapping[str, Any], visit: Visit | None = None
    ) -> dict[str, Any] | None:
        if method in self.ignored or params.get("name") in self.ignored:
            await trio.sleep_forever()
        return await super().result(method, params, visit)


def tool(name: str, **options: Any) -> Outgoing:
    params = {"name": name, "arguments": {"n": 1}}
    return Outgoing(method="tools/call", params=params, **options)


def moody(tasks: trio.Nursery, *, modern: bool = True) -> tuple[Kernel, Moody, StdioTransport]:
    """A process without any fault but what a test gives it, and a transport to it."""
    dice = Dice(0)
    dice.healed = True
    kernel = Kernel(dice, tasks)
    desk = Moody("moody", dice, modern=modern)
    kernel.programs["moody"] = Program(desk)
    return kernel, desk, StdioTransport(("moody",), spawn=kernel.spawn)


@pytest.mark.parametrize("modern", [True, False])
async def test_a_question_that_some_other_answer_answers_is_not_waited_for(
    modern: bool, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as tasks:
        kernel, desk, transport = moody(tasks, modern=modern)
        async with running(transport):
            await transport.connect()
            desk.ignored = ("put", "ping", "server/discover")
            with trio.move_on_after(5):
                await transport.request(tool("put", timed_out=lambda: True))
            assert transport.statistics().details["pending"] == 1
            await transport.request(tool("read"))
            assert transport.statistics().details["pending"] == 0
            # A process that answers is let alone, however long that question is not.
            await trio.sleep(12)
            assert transport.statistics().restarts == 0
        assert kernel.left() == []


async def test_who_heeds_nothing_is_killed_after_its_time_and_not_before(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as tasks:
        kernel, _, transport = moody(tasks)
        async with running(transport):
            await transport.connect()
            (process,) = kernel.processes
            process.heeds_end = process.heeds_term = False
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(sum(GRACE_S))
        assert process.exit_code == -9
        assert kernel.left() == []
