"""Who waits for which answer, and what becomes of the room of those who send nothing."""

from __future__ import annotations

import anyio
import pytest

from sark_trio.errors import Overloaded
from sark_trio.machines.correlate import Correlator
from sark_trio.transports.outbox import MESSAGES_MAX, Outbox
from sark_trio.transports.switchboard import Call, Calls, Switchboard, Tally


@pytest.mark.anyio
@pytest.mark.parametrize("pending_max", [1, 1_000])
async def test_room_that_a_call_could_not_use_goes_to_the_next_in_line(pending_max: int) -> None:
    outbox = Outbox()
    calls: Calls = Correlator(pending_max=pending_max)
    board = Switchboard(calls=calls, outbox=outbox, tally=Tally(), on_event=None)
    if pending_max == 1:
        board.open(Call("holds"), 0.0)
    for _ in range(MESSAGES_MAX):
        outbox.put(b"x")
    sent: list[bool] = []

    async def hopeless() -> None:
        await outbox.wait_room()
        call = Call("tools/call")
        if pending_max == 1:
            with pytest.raises(Overloaded):
                board.open(call, 0.0)
        else:
            board.open(call, 0.0)
        board.abandon(call, reason="it can not be encoded")

    async def good() -> None:
        await outbox.wait_room()
        outbox.put(b"y")
        sent.append(True)

    async with anyio.create_task_group() as tasks:
        for _ in range(MESSAGES_MAX):
            tasks.start_soon(hopeless)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(good)
        await anyio.wait_all_tasks_blocked()
        outbox.advance(MESSAGES_MAX)
        await anyio.wait_all_tasks_blocked()
        assert sent == [True]
        tasks.cancel_scope.cancel()
    assert len(outbox) == 1
    assert outbox.has_room()
    assert calls.statistics().pending == (pending_max == 1)
