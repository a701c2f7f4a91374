"""Tasks of 2025-11-25: tool calls that go on while nobody waits, and whose end is fetched later.

This gateway runs them itself, so that every tool can be called as one, whatever its server knows of
tasks. What runs is an ordinary call: decided, recorded before and after, made in time. Here is kept
who may ask for it, and its end, until its time is up.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, final

import anyio
from attrs import define, evolve, field

from sark_trio import GatewayClient
from sark_trio.client.relay import Ask, Relay
from sark_trio.errors import ClientClosed, Denied, GatewayError, Overloaded
from sark_trio.gateway.faults import fault_of
from sark_trio.gateway.limits import caller_of
from sark_trio.gateway.refusals import INTERNAL_ERROR, INVALID_PARAMS, RpcRefused, no_method
from sark_trio.gateway.visitor import Visitor, meta_of
from sark_trio.mcp.tasks import Status

__all__ = ["CAPABILITY", "REVISION", "Making", "Tasks"]

#: The one that has them.
REVISION: Final = "2025-11-25"
#: No ``list``: where nobody has to prove who they are, it would show everybody's to everybody.
CAPABILITY: Final[Mapping[str, Any]] = {"cancel": {}, "requests": {"tools": {"call": {}}}}
#: Of one caller, ended ones that are still kept included; each keeps a result.
OWNED_MAX: Final = 32
#: Of all callers together.
TASKS_MAX: Final = 1_000
#: Seconds for which a task is kept from its beginning on: at least, where nothing is said, at most.
TTL_S_MIN: Final = 1.0
TTL_S: Final = 600.0
TTL_S_MAX: Final = 3_600.0
#: How often to ask, for those who do not wait for the result.
POLL_MS: Final = 1_000
_RELATED: Final = "io.modelcontextprotocol/related-task"
_LOG: Final = logging.getLogger("sark_trio.gateway")

#: Makes the call within so many seconds, for that relay.
Making = Callable[[Relay, float], Awaitable[dict[str, Any]]]


@final
@define(eq=False)
class _Asker:
    """Somebody who waits for the result, and can be asked meanwhile."""

    ask: Ask
    scopes: set[anyio.CancelScope] = field(factory=set)

    def leave(self) -> None:
        """What is not answered yet is asked of somebody else."""
        for scope in self.scopes:
            scope.cancel()


@final
@define(eq=False)
class _Task:
    """One task.

    :param owner: who may ask for it.
    """

    owner: str
    ttl_s: float
    id: str = field(factory=lambda: secrets.token_urlsafe(24))
    status: Status = field(default="working", init=False)
    message: str | None = field(default=None, init=False)
    ended: anyio.Event = field(factory=anyio.Event, init=False)
    _created: str = field(init=False)
    _updated: str = field(init=False)
    _result: dict[str, Any] = field(factory=dict, init=False)
    #: What the call ended with instead, or why it has no end.
    _error: GatewayError | str | None = field(default=None, init=False)
    _scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _questions: int = field(default=0, init=False)
    _asker: _Asker | None = field(default=None, init=False)
    _came: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._created = self._updated = _now()

    async def run(self, make: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Make the call, and keep its end for as long as the task is kept."""
        until = anyio.current_time() + self.ttl_s
        try:
            with self._scope:
                self._end(await make())
        except GatewayError as exc:
            self._fail(exc)
        except Exception:  # noqa: BLE001 - it is logged in full, and costs this task only
            _LOG.exception("a task failed")
            self._fail("the gateway failed")
        finally:
            self._fail(ClientClosed("the server was closed meanwhile", delivery="unknown"))
        await anyio.sleep(until - anyio.current_time())

    def cancel(self) -> None:
        """End it; the call hears of it at once, and its server as soon as can be."""
        self._error = "the task was cancelled"
        self._move("cancelled", "cancelled by its caller")
        self._scope.cancel()

    async def outcome(self, ask: Ask | None) -> dict[str, Any]:
        """The result of the call, when there is one.

        :raises GatewayError, RpcRefused: the call ended with that.
        """
        with self._waiting(ask):
            await self.ended.wait()
        if isinstance(self._error, GatewayError):
            raise self._error.twin()
        if self._error is not None:
            raise RpcRefused(INTERNAL_ERROR, self._error)
        return self._related(self._result)

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask whoever waits for the result, or the next one who comes to."""
        question = self._related(params)
        self._questions += 1
        self._move("input_required")
        try:
            while True:
                if self._asker is None:
                    await self._came.wait()
                    continue
                with anyio.CancelScope() as scope, _held(self._asker.scopes, scope):
                    return await self._asker.ask(method, question)
        finally:
            self._questions -= 1
            if not self._questions:
                self._move("working")

    def _related(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """*message*, which says that it belongs to this task ("Related Task Metadata")."""
        return {**message, "_meta": {**meta_of(message), _RELATED: {"taskId": self.id}}}

    @property
    def shown(self) -> dict[str, Any]:
        """It, as its caller sees it ("Data Types", Task)."""
        message = {} if self.message is None else {"statusMessage": self.message}
        return {
            "taskId": self.id,
            "status": self.status,
            **message,
            "createdAt": self._created,
            "lastUpdatedAt": self._updated,
            "ttl": round(self.ttl_s * 1000),
            "pollInterval": POLL_MS,
        }

    @contextmanager
    def _waiting(self, ask: Ask | None) -> Iterator[None]:
        """Whoever came last is asked: those before may have gone without a word."""
        asker = None if ask is None else _Asker(ask)
        if asker is not None:
            before, self._asker = self._asker, asker
            if before is not None:
                before.leave()
            self._came.set()
        try:
            yield
        finally:
            if asker is not None:
                if self._asker is asker:
                    self._asker, self._came = None, anyio.Event()
                asker.leave()

    def _end(self, result: dict[str, Any]) -> None:
        if not self.ended.is_set():
            self._result = result
            failed = result.get("isError") is True
            self._move("failed" if failed else "completed", "the tool failed" if failed else None)

    def _fail(self, error: GatewayError | str) -> None:
        if not self.ended.is_set():
            self._error = error
            self._move("failed", error if isinstance(error, str) else fault_of(error).message)

    def _move(self, status: Status, message: str | None = None) -> None:
        if self.ended.is_set():
            return
        self.status, self.message, self._updated = status, message, _now()
        if status not in {"working", "input_required"}:
            self.ended.set()


@final
@define(eq=False)
class Tasks:
    """All tasks of a gateway."""

    _client: GatewayClient
    _by_id: dict[str, _Task] = field(factory=dict, init=False)
    _owned: Counter[str] = field(factory=Counter, init=False)

    def __len__(self) -> int:
        return len(self._by_id)

    async def begin(
        self, server: str, wish: Mapping[str, Any], visitor: Visitor, make: Making
    ) -> dict[str, Any]:
        """Begin a task (``CreateTaskResult``).

        :param wish: the member ``task`` of the request.
        :raises RpcRefused: *wish* is none.
        :raises Overloaded: there are as many as may be.
        """
        task = _Task(caller_of(visitor.principal), _ttl_s(wish))
        if self._owned[task.owner] >= OWNED_MAX or len(self._by_id) >= TASKS_MAX:
            raise Overloaded("as many tasks are kept as may be", reason="tasks")
        # Progress and log messages have no request any more that they could belong to.
        relay = evolve(visitor.relay({}), ask=task.ask, on_log=None, log_level=None)

        async def run() -> None:
            try:
                await task.run(lambda: make(relay, task.ttl_s))
            finally:
                self._drop(task)

        self._by_id[task.id] = task
        self._owned[task.owner] += 1
        try:
            await self._client.run_beside(server, run)
        except BaseException:
            self._drop(task)
            raise
        return {"task": task.shown}

    async def answer(
        self, method: str, params: Mapping[str, Any], visitor: Visitor
    ) -> dict[str, Any]:
        """The result of ``tasks/get``, ``tasks/result`` or ``tasks/cancel``.

        :raises RpcRefused: there are no tasks in that conversation, or there is no such task of
            that caller's; its own error, where the call ended with one.
        :raises GatewayError: the same; ``Denied``: the caller is switched off.
        """
        if not visitor.tasks:
            raise no_method()
        if self._client.is_blocked(visitor.principal or self._client.principal):
            raise Denied("the caller is switched off", reason="blocked")
        task_id = params.get("taskId")
        task = self._by_id.get(task_id) if isinstance(task_id, str) else None
        if task is None or task.owner != caller_of(visitor.principal):
            raise RpcRefused(INVALID_PARAMS, "there is no such task")
        if method == "tasks/result":
            return await task.outcome(visitor.ask)
        if method == "tasks/cancel":
            if task.ended.is_set():
                raise RpcRefused(INVALID_PARAMS, f"the task is {task.status} already")
            task.cancel()
        return task.shown

    def _drop(self, task: _Task) -> None:
        del self._by_id[task.id]
        self._owned[task.owner] -= 1
        self._owned += Counter()  # without those who have none


@contextmanager
def _held(scopes: set[anyio.CancelScope], scope: anyio.CancelScope) -> Iterator[None]:
    scopes.add(scope)
    try:
        yield
    finally:
        scopes.discard(scope)


def _ttl_s(wish: Mapping[str, Any]) -> float:
    """For how long a task is kept that is to be kept as *wish* says, or near that."""
    ttl_ms = wish.get("ttl")
    if ttl_ms is None:
        return TTL_S
    if isinstance(ttl_ms, bool) or not isinstance(ttl_ms, int | float):
        raise RpcRefused(INVALID_PARAMS, "'ttl' must be a number of milliseconds")
    # Cut before it is divided: a peer's integer can be too long for a double.
    return max(TTL_S_MIN, min(ttl_ms, TTL_S_MAX * 1000) / 1000)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
