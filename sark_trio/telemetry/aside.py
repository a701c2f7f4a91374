"""A hook that may block: it is told in a thread of its own, behind a queue that has an end."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, final

from attrs import define, field, frozen

from sark_trio.machines.checks import whole
from sark_trio.telemetry.events import Event
from sark_trio.telemetry.hooks import Carrier, Hook

__all__ = ["Aside", "AsideStatistics"]

#: Seconds after the last event for which the thread stays.
IDLE_S: Final = 5.0


@final
@frozen(kw_only=True)
class AsideStatistics:
    """A snapshot: events that were told, that the hook raised at, that found no place in the
    queue, and that wait in it.
    """

    told: int
    failures: int
    dropped: int
    waiting: int


@final
@define(eq=False, repr=False)
class Aside:
    """Tells *hook* of events in a thread of its own, one after the other, in their order.

    The event loop never waits for it: where ``queue_max`` events wait already, one more is
    dropped and counted. The thread is there while there is something to tell, and never keeps
    the program from ending; :meth:`flush` waits for what is left.

    :param hook: may block. What it raises is counted. It is called in another thread, so it must
        not touch what belongs to the event loop.
    :param queue_max: default 1,000 events, which are a second of a busy client.
    :raises ValueError: the hook is asked for a trace context, which cannot wait.
    """

    hook: Hook = field()
    queue_max: int = field(default=1_000, kw_only=True, validator=whole(1, 1_000_000))
    _queue: deque[Event] = field(factory=deque, init=False)
    _changed: threading.Condition = field(factory=threading.Condition, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    #: Whether an event has been taken from the queue, and the hook not come back from it.
    _telling: bool = field(default=False, init=False)
    _told: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _dropped: int = field(default=0, init=False)

    @hook.validator
    def _check_hook(self, _: object, value: Hook) -> None:
        if isinstance(value, Carrier):
            raise ValueError(  # noqa: TRY004 - an option that cannot be, like any other
                "a hook that says what travels with a call has to answer at once"
            )

    def __repr__(self) -> str:
        return f"<Aside {type(self.hook).__qualname__} waiting={len(self._queue)}>"

    def __call__(self, event: Event) -> None:
        """Put *event* into the queue, or drop it."""
        with self._changed:
            if len(self._queue) >= self.queue_max or not self._has_thread():
                self._dropped += 1
                return
            self._queue.append(event)
            self._changed.notify_all()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait, and block, until everything was told; whether it was within *timeout_s*."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout_s)

    def statistics(self) -> AsideStatistics:
        """What became of events so far."""
        with self._changed:
            return AsideStatistics(
                told=self._told,
                failures=self._failures,
                dropped=self._dropped,
                waiting=len(self._queue),
            )

    def _is_idle(self) -> bool:
        return not self._queue and not self._telling

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._tell, name="sark_trio hook", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads are allowed to this process
                return False
            self._thread = thread
        return True

    def _tell(self) -> None:
        while (event := self._next()) is not None:
            failed = False
            try:
                self.hook(event)
            except BaseException:  # noqa: BLE001 - nobody but the next event waits for this thread
                failed = True
            with self._changed:
                self._telling = False
                self._told += not failed
                self._failures += failed
                self._changed.notify_all()

    def _next(self) -> Event | None:
        """The next event; ``None`` if for a while there was none, and this thread is nobody's."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._queue, IDLE_S):
                self._thread = None
                return None
            self._telling = True
            return self._queue.popleft()
