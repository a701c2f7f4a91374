"""The queue in front of a pipe, against a naive one."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sark_trio.errors import GatewayError, WriteTimeout
from sark_trio.transports import outbox as module
from sark_trio.transports.outbox import BYTES_MAX, EXTRA_MAX, MESSAGES_MAX, Entry, Outbox


class OutboxMachine(RuleBasedStateMachine):
    """What comes out is what was put in, in order, less what was taken back in time."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.waiting: list[tuple[Entry, bytes]] = []
        self.begun: list[int] = []
        self.expected = b""
        self.written = b""
        self.count = 0

    @rule(size=st.integers(1, 20))
    def put(self, size: int) -> None:
        data = bytes([self.count % 256]) * size
        number = self.count
        entry = self.outbox.put(data, lambda: self.begun.append(number), call_id=number)
        self.waiting.append((entry, data))
        self.count += 1

    @precondition(lambda self: self.waiting)
    @rule(share=st.floats(0, 1))
    def advance(self, share: float) -> None:
        batch = b"".join(self.outbox.batch())
        taken = batch[: round(len(batch) * share)]
        self.written += taken
        self.outbox.advance(len(taken))
        left = len(taken)
        while left:
            entry, data = self.waiting.pop(0)
            self.expected += data[:left]
            if left < len(data):
                self.waiting.insert(0, (entry, data[left:]))
            left = max(0, left - len(data))

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 100))
    def withdraw(self, pick: int) -> None:
        index = pick % len(self.waiting)
        entry, _ = self.waiting[index]
        assert self.outbox.withdraw(entry) is not entry.begun
        if not entry.begun:
            del self.waiting[index]
            assert not self.outbox.withdraw(entry)

    @invariant()
    def agrees(self) -> None:
        assert self.written == self.expected
        assert len(self.outbox) == len(self.waiting)
        assert b"".join(self.outbox.batch()) == b"".join(
            data for _, data in self.waiting[: module.BATCH_MAX]
        )
        assert self.outbox.call_ids() == [entry.call_id for entry, _ in self.waiting]
        assert self.begun == sorted(set(self.begun))


TestOutbox = OutboxMachine.TestCase


def test_room_ends_with_messages_or_with_bytes():
    outbox = Outbox()
    entries = [outbox.put(b"x") for _ in range(MESSAGES_MAX)]
    assert not outbox.has_room()
    assert outbox.withdraw(entries[0])
    assert outbox.has_room()
    outbox.put(b"x" * BYTES_MAX)
    assert not outbox.has_room()


def test_extras_need_no_room_but_are_bounded():
    outbox = Outbox()
    accepted = [outbox.put_extra(b"x") for _ in range(1000)]
    assert accepted.count(True) == MESSAGES_MAX + EXTRA_MAX
    assert repr(outbox) == "<Outbox 320 messages, 320 bytes, 0 in line>"


@pytest.mark.anyio
async def test_the_line_is_served_in_order_and_a_deserter_passes_his_turn_on():
    outbox = Outbox()
    for _ in range(MESSAGES_MAX):
        outbox.put(b"x")
    served: list[int] = []
    scopes: dict[int, anyio.CancelScope] = {}

    async def stand(number: int) -> None:
        with anyio.CancelScope() as scopes[number]:
            await outbox.wait_room()
            outbox.put(b"y")
            served.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(stand, number)
            await anyio.wait_all_tasks_blocked()
        scopes[1].cancel()  # while he waits
        await anyio.wait_all_tasks_blocked()
        outbox.advance(1)
        scopes[0].cancel()  # in the very step in which he was called
        await anyio.wait_all_tasks_blocked()
        assert served in ([0], [2])
        assert not outbox.has_room()
        for _ in range(5):
            outbox.advance(1)
            await anyio.wait_all_tasks_blocked()
        assert served in ([0, 2, 3, 4], [2, 3, 4])
    assert outbox.has_room()


@pytest.mark.anyio
async def test_a_line_that_is_sent_away_leaves_no_promise_behind():
    outbox = Outbox()
    for _ in range(MESSAGES_MAX):
        outbox.put(b"x")
    errors: list[GatewayError] = []

    async def stand() -> None:
        with pytest.raises(WriteTimeout) as caught:
            await outbox.wait_room()
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(stand)
        await anyio.wait_all_tasks_blocked()
        outbox.fail_line(lambda: WriteTimeout("not read"))
    assert len({id(error) for error in errors}) == 3
    outbox.advance(1)
    assert outbox.has_room()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("sent_away", [True, False])
async def test_a_promise_to_one_who_was_cancelled_in_the_same_step_is_kept_for_others(
    anyio_backend: str, sent_away: bool
):
    outbox = Outbox()
    for _ in range(MESSAGES_MAX):
        outbox.put(b"x")
    first, second = (asyncio.ensure_future(outbox.wait_room()) for _ in range(2))
    await asyncio.sleep(0)
    outbox.advance(1)
    if sent_away:
        outbox.fail_line(lambda: WriteTimeout("not read"))
    first.cancel()  # asyncio cancels a task that was woken already
    with pytest.raises(asyncio.CancelledError):
        await first
    if sent_away:
        with pytest.raises(WriteTimeout):
            await second
    else:
        async with asyncio.timeout(5):
            await second
    assert outbox.has_room()
    outbox.put(b"x")
    assert not outbox.has_room()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_who_is_sent_away_and_cancelled_in_the_same_step_had_no_promise(
    anyio_backend: str,
):
    outbox = Outbox()
    for _ in range(MESSAGES_MAX):
        outbox.put(b"x")
    stander = asyncio.ensure_future(outbox.wait_room())
    await asyncio.sleep(0)
    outbox.fail_line(lambda: WriteTimeout("not read"))
    stander.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stander
    assert not outbox.has_room()
    outbox.advance(1)
    outbox.put(b"x")
    assert not outbox.has_room()


def test_a_message_can_be_taken_out_whole() -> None:
    outbox, begun = Outbox(), []
    first = outbox.put(b"first", lambda: begun.append("first"), call_id=1)
    second = outbox.put(b"second", call_id=2)
    assert outbox.first() is first
    assert outbox.take() is first
    assert not outbox.withdraw(first)
    assert begun == []
    first.begin()
    first.begin()
    assert begun == ["first"]
    assert outbox.first() is second
    second.begin()
    assert not outbox.withdraw(second)
    outbox.advance(len(second.data))
    assert len(outbox) == 0
    assert outbox.has_room()


@pytest.mark.anyio
async def test_taking_a_message_makes_room_for_the_next_in_line() -> None:
    outbox = Outbox()
    for _ in range(MESSAGES_MAX):
        outbox.put(b"x")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.wait_room)
        await anyio.wait_all_tasks_blocked()
        outbox.take()
    assert outbox.has_room()
