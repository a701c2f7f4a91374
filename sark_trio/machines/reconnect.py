"""An event stream that outlives its connections: when to connect, from where, and what is new.

Theory of operation. The driver is a loop: ``begin``, connect, read, ``on_closed``, do what that
says. One connection lives at a time: none begins before the last one was told to be closed.

- *Where we are.* An event's id is committed when the event *was handed over*, not when it came:
  what was lost on the way to its reader comes again. So each event is handed over, or given up
  by the next ``begin``, before another one is looked at.
- *What is new.* A server may replay more than it was asked for: ids that were committed are
  remembered, the latest 1,024, and an event that has one of them is a duplicate. Ids persist
  from event to event (WHATWG HTML, section 9.2.6), so several in a row may have the same: then
  the first, the second, ... of a row is compared with the first, the second, ... of before.
- *Whether to go on.* Connecting is no progress, nor is a priming event. Progress is an event
  that is new, whether or not the reader wants it; five connections without it are enough.
- *How long to wait.* What the server asks for within bounds, and never less; from the second
  time on at least what the retry schedule says, for a server that comes back quickly when it
  is well may take longer when it is not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal, final

from attrs import define, field

from sark_trio.machines.backoff import backoff
from sark_trio.machines.deadline import TIME_S_MAX, seconds_until
from sark_trio.machines.streams import (
    JITTER,
    RETRY_AFTER_S_MAX,
    RETRY_S_MAX,
    RETRY_S_MIN,
    SEEN_MAX,
    TABLE,
    VERDICTS,
    Authenticate,
    Connect,
    Deliver,
    Duplicate,
    End,
    Event,
    Fault,
    Hangup,
    Phase,
    ReconnectOptions,
    ReconnectStatistics,
    RenewSession,
    Skip,
    Stop,
    Wait,
    judge,
    tally,
)

__all__ = [
    "Authenticate",
    "Connect",
    "Deliver",
    "Duplicate",
    "End",
    "Fault",
    "Hangup",
    "Phase",
    "ReconnectOptions",
    "ReconnectStatistics",
    "Reconnector",
    "RenewSession",
    "Skip",
    "Stop",
    "Wait",
    "judge",
]

_COUNTERS: Final = ("connects", "reconnects", "delivered", "duplicates", "skipped", "faults")


@final
@define(eq=False, repr=False)
class Reconnector:
    """One event stream, beginning after *last_event_id*, when *seen* were there already.

    ``now`` is in monotonic seconds; one before the last one counts as the last one.
    """

    options: ReconnectOptions = field(factory=ReconnectOptions)
    _phase: Phase = field(default=Phase.DISCONNECTED, init=False)
    _now: float = field(default=0.0, init=False)
    #: Committed; empty where there is nothing to resume from.
    _last_id: str = field(default="", alias="last_event_id", kw_only=True)
    #: How many events of each id were committed, the latest id last.
    _seen: OrderedDict[str, int] = field(default=(), converter=tally, alias="seen", kw_only=True)
    _retry_ms: int | None = field(default=None, init=False)
    #: Reconnections, and ends that stop the stream if they come again, since the last progress.
    _fruitless: int = field(default=0, init=False)
    _spent: set[End] = field(factory=set, init=False)
    _wake_at: float = field(default=0.0, init=False)
    _heard_at: float = field(default=0.0, init=False)
    #: The id of the event that is being handed over.
    _handing: str | None = field(default=None, init=False)
    #: Of this connection: the row of events with one id, and whether there was any id.
    _row: tuple[str, int] = field(default=("", 0), init=False)
    _named: bool = field(default=False, init=False)
    _stop: Stop | None = field(default=None, init=False)
    _connects: int = field(default=0, init=False)
    _reconnects: int = field(default=0, init=False)
    _delivered: int = field(default=0, init=False)
    _duplicates: int = field(default=0, init=False)
    _skipped: int = field(default=0, init=False)
    _faults: int = field(default=0, init=False)

    @property
    def phase(self) -> Phase:
        """Where the stream stands."""
        return self._phase

    @property
    def last_event_id(self) -> str | None:
        """The id to resume from: that of the last event that was handed over or skipped."""
        return self._last_id or None

    # Connections.

    def begin(self, now: float) -> Connect | Wait | Stop | Fault:
        """Connect, if it is time. An event that is still being handed over is given up."""
        self._advance(now)
        if self._stop is not None:
            return self._stop
        if (self._phase, Event.BEGUN) not in TABLE:
            return self._fault("begin")
        if self._phase is Phase.RECONNECTING and self._now < self._wake_at:
            return Wait(seconds_until(self._now, self._wake_at))
        self._move(Event.BEGUN)
        self._connects += 1
        self._handing, self._row, self._named = None, ("", 0), False
        return Connect(self.last_event_id)

    def on_connected(self, now: float) -> Fault | None:
        """A response came that :func:`judge` takes for a stream of events."""
        self._advance(now)
        if (self._phase, Event.OPENED) not in TABLE:
            return self._fault("on_connected")
        self._move(Event.OPENED)
        self._heard_at = self._now
        return None

    def on_closed(
        self, now: float, end: End, jitter: float, retry_after_s: float | None = None
    ) -> Wait | RenewSession | Authenticate | Stop | Fault:
        """The connection *is closed* by either side, or could not be made.

        :param end: how; of a response that is no stream, what :func:`judge` says.
        :param retry_after_s: what the response asks for, where it does.
        """
        self._advance(now)
        if self._stop is not None:
            return self._stop
        if (self._phase, Event.LOST) not in TABLE:
            return self._fault("on_closed")
        if (reason := self._reason_to_stop(end, retry_after_s)) is not None:
            return self._halt(Stop(reason, end))
        self._move(Event.LOST)
        self._fruitless += 1
        self._reconnects += 1
        self._wake_at = self._now
        verdict = VERDICTS[end]
        if verdict == "wait":
            delay_s = self._delay_s(jitter, retry_after_s)
            self._wake_at += delay_s
            return Wait(delay_s)
        self._spent.add(end)
        if verdict == "authenticate":
            return Authenticate()
        # A new session counts its events anew: old ids would hide new events.
        self._last_id = ""
        self._seen.clear()
        self._handing = None
        return RenewSession()

    def stop(self, now: float) -> Stop:
        """We want no more of it. An event that is being handed over may still be committed."""
        self._advance(now)
        return self._halt(Stop("closed")) if self._stop is None else self._stop

    # What comes in.

    def on_bytes(self, now: float) -> Fault | None:
        """Something was read: an event, a part of one, a comment."""
        self._advance(now)
        if self._phase is not Phase.CONNECTED:
            return self._fault("on_bytes")
        self._heard_at = self._now
        return None

    def on_retry_field(self, retry_ms: int | None) -> None:
        """The parser's reconnection time, milliseconds. ``None``, or what is none, is ignored."""
        if type(retry_ms) is int and retry_ms >= 0:
            self._retry_ms = retry_ms

    def on_event(
        self,
        now: float,
        event_id: str,
        kind: Literal["message", "filtered", "priming"] = "message",
    ) -> Deliver | Duplicate | Skip | Fault:
        """An event was parsed.

        :param event_id: the last event id as of this event; empty where there is none.
        :param kind: ``filtered``: of a type that the reader does not want. ``priming``: it has
            an id and nothing else, to resume from.
        """
        self._advance(now)
        if self._phase is not Phase.CONNECTED or self._handing is not None:
            return self._fault("on_event")
        self._heard_at = self._now
        self._named = self._named or event_id != ""
        if kind != "priming":
            known_id, count = self._row
            self._row = (event_id, count + 1 if known_id == event_id else 1)
            if self._row[1] <= self._seen.get(event_id, 0):
                self._seen.move_to_end(event_id)
                self._duplicates += 1
                return Duplicate(event_id)
        if kind == "message":
            self._handing = event_id
            return Deliver(event_id)
        self._skipped += 1
        self._commit(event_id, progress=kind == "filtered")
        return Skip(event_id)

    def on_handed_over(self, now: float, event_id: str) -> Fault | None:
        """The reader has the event of the last ``Deliver``."""
        self._advance(now)
        if self._handing is None or self._handing != event_id:
            return self._fault("on_handed_over")
        self._handing = None
        self._heard_at = self._now
        self._delivered += 1
        self._commit(event_id, progress=True)
        return None

    # Time.

    def tick(self, now: float) -> Hangup | None:
        """Let time pass: has the connection been silent for too long?"""
        self._advance(now)
        if self._phase is not Phase.CONNECTED or self._handing is not None:
            return None
        return Hangup() if self._now >= self._heard_at + self.options.idle_s else None

    def next_deadline(self) -> float | None:
        """When ``tick`` says to hang up, or ``begin`` to connect.

        While an event is being handed over nobody reads, and silence proves nothing.
        """
        if self._phase is Phase.RECONNECTING:
            return self._wake_at
        if self._phase is Phase.CONNECTED and self._handing is None:
            return self._heard_at + self.options.idle_s
        return None

    # Looking on.

    def statistics(self) -> ReconnectStatistics:
        """A snapshot of state and counters."""
        return ReconnectStatistics(
            phase=self._phase,
            last_event_id=self.last_event_id,
            retry_ms=self._retry_ms,
            fruitless=self._fruitless,
            **{name: getattr(self, f"_{name}") for name in _COUNTERS},
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert (self._phase is Phase.CLOSED) == (self._stop is not None)
        assert 0 <= self._fruitless <= self.options.reconnects_max
        assert self._fruitless <= self._reconnects
        assert self._connects <= self._reconnects + 1
        assert len(self._seen) <= SEEN_MAX
        assert "" not in self._seen
        assert all(count > 0 for count in self._seen.values())
        assert self._handing is None or self._phase is not Phase.CONNECTING
        assert len(self._spent) <= self._fruitless

    def __repr__(self) -> str:
        fruitless = f"fruitless={self._fruitless}/{self.options.reconnects_max}"
        return f"<Reconnector {self._phase} last_id={self._last_id!r} {fruitless}>"

    def _advance(self, now: float) -> None:
        if self._now < now < TIME_S_MAX:
            self._now = now

    def _fault(self, event: str) -> Fault:
        self._faults += 1
        handing = "" if self._handing is None else f", handing over {self._handing!r}"
        return Fault(event, f"the stream is {self._phase}{handing}")

    def _move(self, event: Event) -> None:
        self._phase = TABLE[self._phase, event]

    def _halt(self, stop: Stop) -> Stop:
        self._move(Event.STOPPED)
        self._stop = stop
        return stop

    def _commit(self, event_id: str, *, progress: bool) -> None:
        # No id at all leaves us where we are; one that is *set* to nothing does not.
        if event_id or self._named:
            self._last_id = event_id
        if not progress:
            return
        self._fruitless = 0
        self._spent.clear()
        if event_id:
            # The latest, or new: of a row, the event before this one has made it the latest.
            self._seen[event_id] = self._seen.get(event_id, 0) + 1
            if len(self._seen) > SEEN_MAX:
                self._seen.popitem(last=False)

    def _reason_to_stop(
        self, end: End, retry_after_s: float | None
    ) -> Literal["final", "repeated", "exhausted", "retry_after", "no_id"] | None:
        options = self.options
        verdict = VERDICTS[end]
        if verdict == "stop" or (verdict == "renew" and not options.sessions):
            return "final"
        if end in self._spent:
            return "repeated"
        if options.resume_only and (not self._last_id or verdict == "renew"):
            return "no_id"
        if self._fruitless >= options.reconnects_max:
            return "exhausted"
        if retry_after_s is not None and retry_after_s > RETRY_AFTER_S_MAX:
            return "retry_after"
        return None

    def _delay_s(self, jitter: float, retry_after_s: float | None) -> float:
        schedule, turn = self.options.schedule, self._fruitless
        if self._retry_ms is None:
            delay_s = backoff(schedule, turn, jitter)
        else:
            asked_s = min(max(self._retry_ms / 1000, RETRY_S_MIN), RETRY_S_MAX)
            delay_s = asked_s + jitter * min(JITTER * asked_s, RETRY_S_MAX - asked_s)
            if turn > 1:
                delay_s = max(delay_s, backoff(schedule, turn - 1, jitter))
        if retry_after_s is not None:
            # Never earlier than asked, and not all at once.
            delay_s = max(delay_s, retry_after_s + jitter * min(1.0, retry_after_s / 10))
        return delay_s
