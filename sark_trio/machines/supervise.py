"""When a child process may be started again, and when one that lives has to be ended.

Theory of operation. The driver asks :meth:`Supervisor.start` before it starts a process, and
tells when one ended. While one runs it tells what it hears, and which calls it waited for in
vain; nothing else, so a process that nobody calls is never disturbed.

- *How often.* Every process after the first is a restart. One more than ``restarts_max`` within
  ``window_s`` (Erlang/OTP, "Maximum Restart Intensity") takes the server down: nothing is started
  until ``cool_off_s`` have passed, or an operator says :meth:`Supervisor.reset`.
- *How soon.* At once, since most deaths are single. From the second process in a row that
  answered no call, a delay that grows: a program that cannot run must not be run in a loop.
- *Who hangs.* A call that got no answer in its time proves little: the tool may be slow. It makes
  us ask, once, whether the process lives. What it answers, to whatever call, clears it; any
  output puts off the verdict, for a process that writes is not stuck. ``probe_s`` of silence end
  it, and so do ``timeouts_max`` calls in a row without any answer.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, final

from attrs import define, field

from sark_trio.machines.backoff import backoff
from sark_trio.machines.deadline import TIME_S_MAX, seconds_until
from sark_trio.machines.supervision import (
    TABLE,
    Down,
    Event,
    Fault,
    Kill,
    Phase,
    Probe,
    Start,
    SuperviseOptions,
    SupervisorStatistics,
    Wait,
)

__all__ = [
    "TABLE",
    "Down",
    "Event",
    "Fault",
    "Kill",
    "Phase",
    "Probe",
    "Start",
    "SuperviseOptions",
    "Supervisor",
    "SupervisorStatistics",
    "Wait",
]

_LIVING: Final = (Phase.RUNNING, Phase.PROBING)


@final
@define(eq=False, repr=False)
class Supervisor:
    """Supervises the processes of one server; see the module's docstring.

    ``now`` is in monotonic seconds; one before the last one counts as the last one.
    """

    options: SuperviseOptions = field(factory=SuperviseOptions)
    _phase: Phase = field(default=Phase.IDLE, init=False)
    _now: float = field(default=0.0, init=False)
    #: When the latest restarts were, at most ``restarts_max`` of them.
    _recent: deque[float] = field(init=False)
    _fresh: bool = field(default=True, init=False)
    #: Processes in a row that answered nothing, and whether this one did.
    _fruitless: int = field(default=0, init=False)
    _fruitful: bool = field(default=False, init=False)
    _start_at: float = field(default=0.0, init=False)
    _timeouts: int = field(default=0, init=False)
    _probe_until: float = field(default=0.0, init=False)
    _down_until: float = field(default=0.0, init=False)
    _restarts: int = field(default=0, init=False)
    _kills: int = field(default=0, init=False)
    _downs: int = field(default=0, init=False)
    _faults: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._recent = deque(maxlen=self.options.restarts_max)

    @property
    def phase(self) -> Phase:
        """How it stands with the process, as of the last event."""
        return self._phase

    # Starting.

    def start(self, now: float) -> Start | Wait | Down | Fault:
        """May a process be started?"""
        self._advance(now)
        if self._phase is Phase.DOWN:
            return Down(seconds_until(self._now, self._down_until))
        if self._phase is not Phase.IDLE:
            return self._fault("start")
        # Whoever would find the window full after the delay need not wait for that.
        if not self._fresh and self._full_at(max(self._now, self._start_at)):
            self._move(Event.EXCEEDED)
            self._downs += 1
            self._down_until = self._now + self.options.cool_off_s
            return Down(seconds_until(self._now, self._down_until))
        if self._now < self._start_at:
            return Wait(seconds_until(self._now, self._start_at))
        restart, self._fresh = not self._fresh, False
        if restart:
            self._recent.append(self._now)
            self._restarts += 1
        self._fruitful, self._timeouts = False, 0
        self._move(Event.STARTED)
        return Start(restart)

    def refusal(self, now: float) -> Down | None:
        """What :meth:`start` would refuse with for being down, without changing anything."""
        now = now if self._now < now < TIME_S_MAX else self._now
        if self._phase is not Phase.DOWN or now >= self._down_until:
            return None
        return Down(seconds_until(now, self._down_until))

    def ended(self, now: float, jitter: float) -> Fault | None:
        """The process is gone, or could not be started. After :meth:`close` that is no event."""
        self._advance(now)
        if self._phase is Phase.CLOSED:
            return None
        if (self._phase, Event.ENDED) not in TABLE:
            return self._fault("ended")
        self._move(Event.ENDED)
        self._fruitless = 0 if self._fruitful else self._fruitless + 1
        delay_s = 0.0
        if self._fruitless > 1:
            delay_s = backoff(self.options.backoff, self._fruitless - 1, jitter)
        self._start_at = self._now + delay_s
        return None

    # Running.

    def answered(self, now: float) -> Fault | None:
        """A call, or the probe, was answered."""
        self._advance(now)
        if self._phase is Phase.SICK:
            return None  # too late: it is being ended
        if self._phase not in _LIVING:
            return self._fault("answered")
        self._timeouts, self._fruitful = 0, True
        if self._phase is Phase.PROBING:
            self._move(Event.ANSWERED)
        return None

    def heard(self, now: float) -> None:
        """The process wrote something, whatever it was."""
        self._advance(now)
        if self._phase is Phase.PROBING:
            self._probe_until = self._now + self.options.probe_s

    def timed_out(self, now: float) -> Probe | Kill | Fault | None:
        """A call that the process had received got no answer in its time."""
        self._advance(now)
        if self._phase is Phase.SICK:
            return None
        if self._phase not in _LIVING:
            return self._fault("timed_out")
        self._timeouts += 1
        if self._timeouts >= self.options.timeouts_max:
            return self._kill("timeouts")
        if self._phase is Phase.PROBING:
            return None
        self._move(Event.TIMED_OUT)
        self._probe_until = self._now + self.options.probe_s
        return Probe()

    def tick(self, now: float) -> Kill | None:
        """Let time pass: was the probe left unanswered for too long?"""
        self._advance(now)
        if self._phase is Phase.PROBING and self._now >= self._probe_until:
            return self._kill("silent")
        return None

    # The operator.

    def reset(self, now: float) -> None:
        """An operator says that all is well: what happened so far counts no more."""
        self._advance(now)
        if self._phase is Phase.DOWN:
            self._move(Event.RESET)
        self._forget()

    def close(self, now: float) -> None:
        """No process is started from now on, and the end of this one is no failure."""
        self._advance(now)
        if self._phase is not Phase.CLOSED:
            self._move(Event.CLOSED)

    def next_deadline(self) -> float | None:
        """When mere waiting changes what :meth:`tick` or :meth:`start` say."""
        if self._phase is Phase.PROBING:
            return self._probe_until
        if self._phase is Phase.DOWN:
            return self._down_until
        return self._start_at if self._phase is Phase.IDLE and self._now < self._start_at else None

    def statistics(self) -> SupervisorStatistics:
        """A snapshot."""
        return SupervisorStatistics(
            phase=self._phase,
            restarts=self._restarts,
            recent=len(self._recent),
            timeouts=self._timeouts,
            kills=self._kills,
            downs=self._downs,
            down_until=self._down_until if self._phase is Phase.DOWN else None,
            faults=self._faults,
        )

    def check_invariants(self) -> None:
        """Assert what holds between any two events."""
        recent = list(self._recent)
        assert recent == sorted(recent)
        assert len(recent) <= self.options.restarts_max
        assert not recent or recent[-1] <= self._now
        assert self._timeouts < self.options.timeouts_max or self._phase is not Phase.RUNNING
        assert self._phase is not Phase.PROBING or self._timeouts > 0
        assert 0 <= self._now <= TIME_S_MAX

    def __repr__(self) -> str:
        return (
            f"<Supervisor {self._phase} restarts={self._restarts} recent={len(self._recent)}"
            f" timeouts={self._timeouts}>"
        )

    def _advance(self, now: float) -> None:
        if self._now < now < TIME_S_MAX:
            self._now = now
        if self._phase is Phase.DOWN and self._now >= self._down_until:
            self._move(Event.COOLED_OFF)
            self._forget()

    def _full_at(self, at: float) -> bool:
        """Whether one restart more at *at* would be too many: windows are half open."""
        if len(self._recent) < self.options.restarts_max:
            return False
        return not self._recent or at < self._recent[0] + self.options.window_s

    def _kill(self, why: Literal["timeouts", "silent"]) -> Kill:
        self._move(Event.GIVEN_UP)
        self._kills += 1
        return Kill(why)

    def _forget(self) -> None:
        self._recent.clear()
        self._fruitless, self._start_at = 0, self._now
        self._fresh = self._phase is Phase.IDLE

    def _move(self, event: Event) -> None:
        self._phase = TABLE[self._phase, event]

    def _fault(self, event: str) -> Fault:
        self._faults += 1
        return Fault(event, self._phase)
