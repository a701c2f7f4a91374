"""Who is told, and how a source tells them.

A *hook* is any callable that takes an :class:`~.events.Event`. It is called in the middle of
things, by the task that the event happens to: it must not block, must not await, and gets no
second chance. What it raises is counted and goes nowhere. One that fails for :data:`FAILURES_MAX`
events in a row, or that holds up the event loop again and again, is told nothing any more, and the
other hooks are told that. One that has to block belongs into :class:`~.aside.Aside`.

A hook that has a method ``carrier`` also says what travels with a call as its trace context.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, Self, final, runtime_checkable

from attrs import define, field, frozen

from sark_trio.telemetry.events import CallInfo, Event, HookDisabled

__all__ = ["Carrier", "Emit", "Emitter", "Hook", "HookStatistics", "Reporter", "trace_context"]

#: A hook that failed so often in a row is broken; one success in between begins a new count.
FAILURES_MAX: Final = 100
#: Seconds that an event may take in one hook: what calls of a millisecond can bear.
EVENT_S_MAX: Final = 0.01
#: Seconds in all that a hook may hold up the loop beyond that; a quick event gives some back.
HELD_S_MAX: Final = 1.0
#: Of one event so much counts: a machine that stood still once is not the hook's fault.
ONCE_S_MAX: Final = 0.4
#: What :class:`~.events.HookDisabled` says of one that was too slow.
TOO_SLOW: Final = "TooSlow"
#: Hooks of one client: each is called for every event.
HOOKS_MAX: Final = 16
#: W3C Trace Context, section 3.2. A version of ff, or an id of zeros, is none.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII
)
#: Visible ASCII and inner spaces: what a header can hold as it is.
_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", re.ASCII)
#: Longest values: W3C Trace Context, section 3.3.1.5, asks for 512 to be propagated; W3C
#: Baggage, section 3.3.2, for 8,192.
_LENGTHS_MAX: Final = {"tracestate": 512, "baggage": 8_192}

Emit = Callable[[Event], None]
#: Seconds of a clock that only goes forward.
Clock = Callable[[], float]


class Hook(Protocol):
    """Whoever wants to know. A plain function is one."""

    def __call__(self, event: Event, /) -> None:
        """Take note of *event*, without blocking."""


@runtime_checkable
class Carrier(Protocol):
    """A hook that knows which trace a call belongs to."""

    def carrier(self, call: CallInfo, /) -> Mapping[str, str]:
        """Any of ``traceparent``, ``tracestate`` and ``baggage``. Asked once a call, after
        :class:`~.events.CallStarted`.
        """


@final
@frozen(kw_only=True)
class HookStatistics:
    """A snapshot of what became of one hook. *slow*: events that took it too long."""

    hook: str
    failures: int
    disabled: bool
    slow: int = 0


@final
@define(eq=False)
class _Told:
    """One hook and its record."""

    hook: Hook
    carrier: Callable[[CallInfo], Mapping[str, str]] | None = field(init=False)
    failures: int = field(default=0, init=False)
    failures_in_row: int = field(default=0, init=False)
    slow: int = field(default=0, init=False)
    #: Seconds beyond what is allowed, less what was given back.
    held_s: float = field(default=0.0, init=False)
    disabled: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.carrier = self.hook.carrier if isinstance(self.hook, Carrier) else None

    @property
    def label(self) -> str:
        # A function's own name, else that of the hook's class: never a repr, which may say more.
        name = getattr(self.hook, "__qualname__", None)
        return name if isinstance(name, str) else type(self.hook).__qualname__


@final
@define(eq=False)
class Emitter:
    """Tells hooks. Made by :meth:`of`, and only where there are any."""

    _hooks: tuple[_Told, ...]
    _clock: Clock

    @classmethod
    def of(cls, hooks: Iterable[Hook], *, clock: Clock = float) -> Self | None:
        """The emitter to *hooks*; ``None`` if there are none.

        :param clock: measures how long hooks take; the default measures nothing.
        :raises ValueError: one of them cannot be called, or there are too many.
        """
        told = tuple(_Told(hook) for hook in hooks)
        if len(told) > HOOKS_MAX:
            raise ValueError(f"{len(told)} hooks are more than {HOOKS_MAX}")
        for one in told:
            if not callable(one.hook):
                raise ValueError(  # noqa: TRY004 - an option that cannot be, like any other
                    f"a hook is a callable that takes an event, not a {one.label}"
                )
        return cls(told, clock) if told else None

    def emit(self, event: Event) -> None:
        """Tell every hook. Nothing that a hook raises comes out, but for what ends the program."""
        began = self._clock()
        for one in self._hooks:
            if one.disabled:
                continue
            try:
                one.hook(event)
            except Exception as exc:  # noqa: BLE001 - somebody else's code; the call goes on
                self._failed(one, exc)
            else:
                one.failures_in_row = 0
            began = self._took(one, began)

    def carrier(self, call: CallInfo) -> Mapping[str, str] | None:
        """The trace context of *call*, from the first hook that has one."""
        for one in self._hooks:
            if one.carrier is not None and not one.disabled:
                began = self._clock()
                try:
                    found = trace_context(one.carrier(call))
                except Exception as exc:  # noqa: BLE001 - as above
                    self._failed(one, exc)
                    found = {}
                self._took(one, began)
                if found:
                    return found
        return None

    def statistics(self) -> tuple[HookStatistics, ...]:
        """A snapshot, in the order of the hooks."""
        return tuple(
            HookStatistics(
                hook=one.label, failures=one.failures, disabled=one.disabled, slow=one.slow
            )
            for one in self._hooks
        )

    def _failed(self, one: _Told, exc: Exception) -> None:
        one.failures += 1
        one.failures_in_row += 1
        self._judge(one, type(exc).__name__)

    def _took(self, one: _Told, began: float) -> float:
        """Count what *one* took since *began* against it; when the next one begins."""
        now = self._clock()
        beyond_s = min(now - began, ONCE_S_MAX) - EVENT_S_MAX
        if beyond_s > 0:
            one.slow += 1
            one.held_s += beyond_s
            self._judge(one, TOO_SLOW)
            return self._clock()
        if one.held_s:
            one.held_s = max(0.0, one.held_s + beyond_s)
        return now

    def _judge(self, one: _Told, why: str) -> None:
        broken = one.failures_in_row >= FAILURES_MAX or one.held_s >= HELD_S_MAX
        if broken and not one.disabled:
            one.disabled = True
            self.emit(HookDisabled(hook=one.label, error_type=why))


@final
@frozen
class Reporter:
    """How one server's transport tells: its own name for the server, and where events go."""

    server: str
    emit: Emit


def trace_context(found: Mapping[str, Any]) -> dict[str, str]:
    """What of *found* can be sent: a ``traceparent`` that is one, and what may go with it.

    MCP 2026-07-28, "OpenTelemetry trace context", wants the W3C's formats; the W3C wants no
    ``tracestate`` without a valid ``traceparent``. Values too long or not plain are left out.
    """
    parent = found.get("traceparent")
    kept: dict[str, str] = {}
    if isinstance(parent, str) and _TRACEPARENT.fullmatch(parent):
        kept["traceparent"] = parent
    for key, length_max in _LENGTHS_MAX.items():
        value = found.get(key)
        if not isinstance(value, str) or len(value) > length_max or not _PLAIN.fullmatch(value):
            continue
        if key == "baggage" or kept:
            kept[key] = value
    return kept
