"""Calls that go on as tasks: the extension ``io.modelcontextprotocol/tasks`` (2026-07-28), and
the experimental tasks of 2025-11-25.

The two differ in who begins (the server; the client), in names (``ttlMs``; ``ttl``), and in
where the result is (in ``tasks/get``; behind ``tasks/result``). A task is the same: an id, a
status, and a suggestion how often to ask::

    working <--> input_required
       '-------------+--> completed | failed | cancelled

:class:`Polling` says when to ask, what to have answered, and how it ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, cast, final

from attrs import define, field, frozen

from sark_trio.errors import ProtocolError
from sark_trio.mcp.members import string_of
from sark_trio.mcp.messages import Fault

__all__ = [
    "EXTENSION",
    "Answer",
    "Ended",
    "Fetch",
    "Poll",
    "Polling",
    "Status",
    "Task",
    "is_created",
    "parse_task",
]

EXTENSION: Final = "io.modelcontextprotocol/tasks"

#: Bounds of what a server may suggest: less would be a busy loop, more would look dead.
POLL_S_MIN: Final = 0.05
POLL_S_MAX: Final = 30.0
#: Where it suggests nothing.
POLL_S: Final = 1.0
#: Travels in a header (``Mcp-Name``), and is kept.
ID_CHARS_MAX: Final = 1_024
#: Requests of one task that are answered; each may bother a person.
REQUESTS_MAX: Final = 100

Status = Literal["working", "input_required", "completed", "failed", "cancelled"]
_STATUSES: Final = frozenset({"working", "input_required", "completed", "failed", "cancelled"})
_ENDS: Final = frozenset({"completed", "failed", "cancelled"})


@final
@frozen(kw_only=True)
class Task:
    """What a server says of a task.

    :param ttl_ms: milliseconds from its creation for which the server keeps it; ``None``: for
        as long as it likes.
    :param result: of the request that it was (2026-07-28, ``completed``).
    :param error: the JSON-RPC error that it ended with (2026-07-28, ``failed``).
    :param input_requests: what it waits for (2026-07-28, ``input_required``).
    """

    task_id: str
    status: Status
    status_message: str | None = None
    created_at: str | None = None
    last_updated_at: str | None = None
    ttl_ms: int | None = None
    poll_interval_ms: int | None = None
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    error: Mapping[str, Any] | None = None
    input_requests: Mapping[str, Mapping[str, Any]] = field(factory=dict, repr=False)
    raw: Mapping[str, Any] = field(factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Whether its status will not change any more."""
        return self.status in _ENDS


def is_created(result: Mapping[str, Any], *, modern: bool) -> bool:
    """Whether *result*, of a request that may become a task, says that it did."""
    if modern:
        return result.get("resultType") == "task"
    return isinstance(result.get("task"), Mapping) and "content" not in result


def parse_task(result: Mapping[str, Any]) -> Task:
    """The task in *result*: of a request that became one, of ``tasks/get``, of a notification.

    :raises ProtocolError: there is none; ``delivery`` is ``answered``.
    """
    inner = result.get("task")
    raw = inner if isinstance(inner, Mapping) else result
    task_id, status = raw.get("taskId"), raw.get("status")
    if type(task_id) is not str or not 0 < len(task_id) <= ID_CHARS_MAX:
        raise _malformed("it has no id, or one that is too long")
    if type(status) is not str or status not in _STATUSES:
        raise _malformed("its status is unknown")
    requests = raw.get("inputRequests")
    return Task(
        task_id=task_id,
        status=cast("Status", status),
        status_message=string_of(raw, "statusMessage"),
        created_at=string_of(raw, "createdAt"),
        last_updated_at=string_of(raw, "lastUpdatedAt"),
        ttl_ms=_count(raw, "ttlMs", "ttl"),
        poll_interval_ms=_count(raw, "pollIntervalMs", "pollInterval"),
        result=_object(raw, "result"),
        error=_object(raw, "error"),
        input_requests=_requests(requests) if requests is not None else {},
        raw=raw,
    )


@final
@frozen
class Poll:
    """Ask ``tasks/get`` in so many seconds."""

    seconds: float


@final
@frozen
class Answer:
    """Have these requests answered, send ``tasks/update``, then ``on_answered``."""

    requests: Mapping[str, Mapping[str, Any]] = field(repr=False)


@final
@frozen
class Fetch:
    """The result is behind ``tasks/result`` (2025-11-25), which also brings the questions."""


@final
@frozen
class Ended:
    """The task has ended; ``asked_too_much`` if we end it, since it asks without end."""

    task: Task
    asked_too_much: bool = False


Step = Poll | Answer | Fetch | Ended


@final
@define(eq=False, repr=False)
class Polling:
    """The watch over one task. Total: no input raises.

    :param modern: of 2026-07-28; else of 2025-11-25.
    """

    task: Task
    modern: bool = field(kw_only=True)
    _answered: set[str] = field(factory=set, init=False)
    _polls: int = field(default=0, init=False)

    def next(self) -> Step:
        """What to do now, or how it ended. Asking changes nothing."""
        task = self.task
        if task.ended:
            return Fetch() if not self.modern and task.status != "cancelled" else Ended(task)
        if task.status == "input_required":
            if not self.modern:
                return Fetch()
            new = {k: r for k, r in task.input_requests.items() if k not in self._answered}
            if len(self._answered) + len(new) > REQUESTS_MAX:
                return Ended(task, asked_too_much=True)
            if new:
                return Answer(new)
        return Poll(self._interval_s())

    def on_task(self, task: Task) -> Step | Fault:
        """``tasks/get`` answered with *task*."""
        if self.task.ended or isinstance(self.next(), Ended):
            return Fault("the task has ended")
        if task.task_id != self.task.task_id:
            return Fault("that is another task")
        self.task = task
        self._polls += 1
        return self.next()

    def on_answered(self) -> Step | Fault:
        """The server has the answers to the requests of the last :class:`Answer`."""
        step = self.next()
        if not isinstance(step, Answer):
            return Fault("nothing was asked")
        # Each key is asked once in a task's life: while the server has not caught up with our
        # answers, the same request comes again, and no person sees it twice.
        self._answered |= step.requests.keys()
        return self.next()

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert len(self._answered) <= REQUESTS_MAX
        step = self.next()
        assert not isinstance(step, Poll) or POLL_S_MIN <= step.seconds <= POLL_S_MAX
        assert not isinstance(step, Answer) or not self._answered & step.requests.keys()

    def __repr__(self) -> str:
        return f"<Polling {self.task.status} polls={self._polls} answered={len(self._answered)}>"

    def _interval_s(self) -> float:
        asked_ms = self.task.poll_interval_ms
        if asked_ms is None:
            return POLL_S
        # Cut before it is divided: a peer's integer can be too long for a double.
        return max(min(asked_ms, POLL_S_MAX * 1000) / 1000, POLL_S_MIN)


def _requests(value: Any) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        raise _malformed("'inputRequests' is no object")
    for one in value.values():
        whole = isinstance(one, Mapping) and isinstance(one.get("params", {}), Mapping)
        if not whole or type(one.get("method")) is not str:
            raise _malformed("'inputRequests' holds what is no request")
    return value


def _object(raw: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    value = raw.get(key)
    return value if isinstance(value, Mapping) else None


def _count(raw: Mapping[str, Any], *keys: str) -> int | None:
    """Milliseconds under the newer name or the older one."""
    for key in keys:
        value = raw.get(key)
        if type(value) is int and value >= 0:
            return value
    return None


def _malformed(what: str) -> ProtocolError:
    return ProtocolError(f"the task is malformed: {what}", delivery="answered")
