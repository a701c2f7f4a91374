"""How much of the machine a child process may use, and whether it uses more.

Three limits are the kernel's (``setrlimit``): it refuses what exceeds them, and the program sees
an error of its own. Two are watched from outside, over the whole session that the child leads:
memory in use, for the kernel's limit is on *addresses*, and the share of a processor, for the
kernel's limit is on the seconds of a life.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, final

from attrs import Attribute, define, field, frozen

from sark_trio.machines.checks import Validator, between, whole
from sark_trio.machines.deadline import TIME_S_MAX

__all__ = ["Exceeded", "LimitWatch", "ResourceLimits", "Usage"]

#: Of memory and addresses: the largest that every kernel takes as a number.
_BYTES_MAX: Final = 2**63 - 1
#: Samples in a window: finer ones would only cost.
SAMPLES_MAX: Final = 64


def _maybe(check: Validator) -> Validator:
    """*check*, or ``None``."""

    def check_if_given(instance: Any, attribute: Attribute[Any], value: Any) -> None:
        if value is not None:
            check(instance, attribute, value)

    return check_if_given


@final
@frozen(kw_only=True)
class ResourceLimits:
    """Limits on one server's processes (Linux). ``None`` leaves one as it is.

    :param address_space_bytes_max: addresses of one process (``RLIMIT_AS``). Runtimes that
        reserve addresses ahead (V8, Go, the JVM) do not even start under a tight one, so there
        is none by default.
    :param open_files_max: descriptors of one process (``RLIMIT_NOFILE``); by default the 1,024
        that systems give an ordinary program.
    :param processes_max: processes and threads of the *user* as a whole (``RLIMIT_NPROC``); what
        is right depends on who else runs, so there is none by default.
    :param rss_bytes_max: memory in use by all its processes together, pages that they share
        counted once for each; by default 1 GiB.
    :param cpu_percent_max: share of one processor, 200 is two of them, over *cpu_window_s*. None
        by default: a server that is busy because it was asked to be is not at fault.
    :param interval_s: seconds between two looks at what is watched.
    :raises ValueError: a limit is out of its bounds.
    """

    address_space_bytes_max: int | None = field(
        default=None, validator=_maybe(whole(1, _BYTES_MAX))
    )
    open_files_max: int | None = field(default=1024, validator=_maybe(whole(1, 2**31 - 1)))
    processes_max: int | None = field(default=None, validator=_maybe(whole(1, 2**31 - 1)))
    rss_bytes_max: int | None = field(default=2**30, validator=_maybe(whole(1, _BYTES_MAX)))
    cpu_percent_max: float | None = field(default=None, validator=_maybe(between(1, 1_000_000)))
    cpu_window_s: float = field(default=10.0, validator=between(0.1, 3_600))
    interval_s: float = field(default=1.0, validator=between(0.01, 3_600))

    @property
    def watched(self) -> bool:
        """Whether there is anything to look at from time to time."""
        return self.rss_bytes_max is not None or self.cpu_percent_max is not None


@final
@frozen
class Usage:
    """What the processes of a server use.

    :param cpu_s: processor seconds of all of them so far, children that ended included.
    """

    rss_bytes: int
    cpu_s: float


@final
@frozen
class Exceeded:
    """A limit that was not kept: its name, what was measured, what is allowed."""

    limit: str
    value: float
    allowed: float


@final
@define(eq=False, repr=False)
class LimitWatch:
    """Judges what is measured of one child, from its start to its end.

    The processor's share is that of a whole window: starting up keeps one busy, too.
    """

    limits: ResourceLimits
    #: (when, processor seconds), the first of them as old as the window or the oldest there is.
    _samples: deque[tuple[float, float]] = field(factory=deque, init=False)

    def sample(self, now: float, usage: Usage) -> Exceeded | None:
        """Is *usage*, as measured at *now*, more than is allowed?"""
        most = self.limits.rss_bytes_max
        if most is not None and usage.rss_bytes > most:
            return Exceeded("rss_bytes_max", usage.rss_bytes, most)
        share, allowed = self._cpu_percent(now, usage.cpu_s), self.limits.cpu_percent_max
        if share is not None and allowed is not None and share > allowed:
            return Exceeded("cpu_percent_max", share, allowed)
        return None

    def check_invariants(self) -> None:
        """Assert that samples are few and in order."""
        times = [at for at, _ in self._samples]
        assert times == sorted(times)
        assert len(times) <= SAMPLES_MAX + 2

    def __repr__(self) -> str:
        return f"<LimitWatch samples={len(self._samples)}>"

    def _cpu_percent(self, now: float, cpu_s: float) -> float | None:
        samples, window_s = self._samples, self.limits.cpu_window_s
        latest = samples[-1][0] if samples else 0.0
        now = now if latest < now < TIME_S_MAX else latest
        while len(samples) > 1 and samples[1][0] <= now - window_s:
            samples.popleft()
        share = None
        if samples and samples[0][0] <= now - window_s:
            since, cpu_then_s = samples[0]
            # What a child used goes from the sum when nobody of the session waited for it.
            share = 100 * max(0.0, cpu_s - cpu_then_s) / (now - since)
        if not samples or now - samples[-1][0] >= window_s / SAMPLES_MAX:
            samples.append((now, cpu_s))
        return share
