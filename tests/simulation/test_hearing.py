"""Streams of changes that the simulation cut, one at a time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from sark_trio import AllowAll, AuditLog, Change, GatewayClient
from sark_trio.client.servers import Http
from tests.simulation.clock import VirtualClock
from tests.simulation.desk import RESOURCES, Desk
from tests.simulation.dice import Dice
from tests.simulation.disk import SimDisk
from tests.simulation.network import Network
from tests.simulation.server import SimServer
from tests.support.client import ALICE

pytestmark = pytest.mark.trio

TOOLS, GAP = Change("tools"), Change("gap")


@pytest.mark.parametrize(
    ("numbered", "heard"),
    [
        # Of what was said meanwhile nobody knows; or it is said again, and nothing is missing.
        (False, [GAP]),
        (True, [TOOLS]),
    ],
)
async def test_a_stream_that_comes_back_tells_what_was_missed_or_that_something_may_be(
    numbered: bool, heard: list[Change], autojump_clock: MockClock
) -> None:
    dice = Dice(0)
    dice.healed = True
    desk = Desk("cut", dice, modern=False)
    server = SimServer(dice, desk=desk, numbered=numbered)
    async with trio.open_nursery() as tasks:
        network = Network(dice, tasks, VirtualClock())
        network.add("cut.test", server.accept)
        async with (
            GatewayClient(
                servers={"cut": Http("http://cut.test/mcp", network=network)},
                policy=AllowAll(),
                audit=AuditLog("log", files=SimDisk()),
                principal=ALICE,
            ) as client,
            client.subscribe("cut", resources=RESOURCES, tools_list=True) as changes,
        ):
            desk.change(None)
            assert await anext(changes) == TOOLS
            ((voice,),) = [session.voices for session in server.sessions.values()]
            voice.wire.reset()
            desk.change(None)
            found = list[Change]()
            with trio.move_on_after(60):
                while True:
                    found.append(await anext(changes))
            assert found[: len(heard)] == heard
            assert (GAP in found) is (heard == [GAP])
            desk.change(RESOURCES[1])
            assert await anext(changes) == Change("resource", RESOURCES[1])
        tasks.cancel_scope.cancel()
