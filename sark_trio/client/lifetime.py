"""How a client lives: one engine, three ways in.

The engine is a coroutine function (``run``) that owns every task of the client. Who runs it
decides what a host may do:

1. ``async with client`` on trio: the engine runs in a nursery that the entering task owns.
   trio demands that the same task leaves it, innermost first; where that does not hold,
   :class:`~sark_trio.errors.WrongTask` says so before anything is torn.
2. ``async with client`` on asyncio: the engine runs in a task of its own, so the block may be
   left from any task and in any order, as exit stacks and fixtures of asyncio frameworks do.
3. ``await task_group.start(client.run)``: the host owns the engine's task, and any task may
   call ``close()``.

No way holds a cancel scope across a ``yield``, and none lets an ExceptionGroup out for a
single failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from sark_trio.errors import UsageError, WrongTask

__all__ = ["Lifetime", "collapse"]

#: trio only: the blocks that each task has open, outermost first. Leaving them in another
#: order would corrupt trio's cancel scope stack for the whole program.
#: An entry goes when its last block is left, and a task cannot end before that.
_open_blocks: dict[int, list[Lifetime]] = {}


@final
@define(eq=False)
class Lifetime:
    """Enters and leaves one engine for ``async with``.

    :param run: the engine; reports started through ``task_status``.
    :param close: asks the engine to end and waits until it has.
    """

    _run: Callable[..., Awaitable[None]]
    _close: Callable[[], Awaitable[None]]
    _entered: bool = field(default=False, init=False)
    _nursery: TaskGroup | None = field(default=None, init=False)
    _owner: int = field(default=0, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _failure: BaseException | None = field(default=None, init=False)

    async def enter(self) -> None:
        """Start the engine and wait until it is ready; raise what kept it from that.

        :raises UsageError: it was entered before.
        """
        if self._entered:
            raise UsageError("a GatewayClient runs once; make another one")
        self._entered = True
        if _on_asyncio():
            await self._enter_asyncio()
        else:
            await self._enter_trio()

    async def leave(self, value: BaseException | None) -> None:
        """End the engine and wait for it; raise its own failure, if it had one.

        :param value: what the block raised.
        """
        if self._nursery is None:
            await self._leave_asyncio()
        else:
            await self._leave_trio(value)

    # -- asyncio: an engine task of its own ---------------------------------------------------

    async def _enter_asyncio(self) -> None:
        ready = anyio.Event()
        self._task = asyncio.create_task(self._engine(ready), name="sark_trio engine")
        try:
            await ready.wait()
        except BaseException:
            self._task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._task])
            raise
        if self._failure is not None:
            raise self._failure

    async def _engine(self, ready: anyio.Event) -> None:
        try:
            await self._run(task_status=_Ready(ready))
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 - kept for whoever leaves the block
            self._failure = exc
        finally:
            ready.set()

    async def _leave_asyncio(self) -> None:
        assert self._task is not None
        with anyio.CancelScope(shield=True):
            await self._close()
            await asyncio.wait([self._task])
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    # -- trio: a nursery of the entering task -------------------------------------------------

    async def _enter_trio(self) -> None:
        self._nursery = anyio.create_task_group()
        await self._nursery.__aenter__()
        try:
            await self._nursery.start(self._run_quietly)
        except BaseException as exc:
            await self._exit_nursery(exc)
            raise
        if self._failure is not None:
            await self._exit_nursery(None)
            failure, self._failure = self._failure, None
            raise failure
        self._owner = anyio.get_current_task().id
        _open_blocks.setdefault(self._owner, []).append(self)

    async def _run_quietly(self, *, task_status: TaskStatus[None]) -> None:
        """The engine, its own failure kept aside so that it does not cancel the host's block."""
        started = anyio.Event()
        try:
            await self._run(task_status=_Ready(started, task_status))
        except Exception as exc:  # noqa: BLE001 - raised when the block is left
            self._failure = exc
        if not started.is_set():
            task_status.started()

    async def _leave_trio(self, value: BaseException | None) -> None:
        self._check_task()
        blocks = _open_blocks[self._owner]
        blocks.pop()
        if not blocks:
            del _open_blocks[self._owner]
        with anyio.CancelScope(shield=True):
            await self._close()
        await self._exit_nursery(value)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _check_task(self) -> None:
        remedy = (
            "on trio a block must be left by the task that entered it, innermost first. "
            "Let a nursery that outlives both own the client instead: "
            "`await nursery.start(client.run)`, and `await client.close()` from any task"
        )
        if anyio.get_current_task().id != self._owner:
            raise WrongTask(f"this client's block was entered by another task: {remedy}")
        if _open_blocks[self._owner][-1] is not self:
            raise WrongTask(f"another client's block inside this one is still open: {remedy}")

    async def _exit_nursery(self, value: BaseException | None) -> None:
        """Wait for the end of the nursery, in which nothing but the engine ever ran.

        What the block raised is none of its business: it passes through as it is, group or not.
        """
        assert self._nursery is not None
        try:
            await self._nursery.__aexit__(None, None, None)
        except BaseException as exc:  # noqa: BLE001 - raised, unless it only repeats *value*
            single = collapse(exc)
            echo = isinstance(single, anyio.get_cancelled_exc_class())
            if value is not None and echo:
                return  # who was cancelled will hear it again; *value* would be lost
            raise single from single.__cause__


def collapse(group: BaseException) -> BaseException:
    """The one failure inside nested groups of one; a group of several stays a group."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group


@final
@define(eq=False)
class _Ready(TaskStatus[None]):
    """Sets an event when the engine reports started, and passes it on where there is whom to."""

    _event: anyio.Event
    _next: TaskStatus[None] | None = None

    def started(self, value: None = None) -> None:  # noqa: ARG002 - the protocol's signature
        self._event.set()
        if self._next is not None:
            self._next.started()


def _on_asyncio() -> bool:
    return anyio.get_cancelled_exc_class() is asyncio.CancelledError
