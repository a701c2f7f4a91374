"""Who is told, and how a source tells them.

A *hook* is any callable that takes an :class:`~.events.Event`. It is called in the middle of
things, by the task that the event happens to: it must not block, must not await, and gets no
second chance. What it raises is counted and goes nowhere; after :data:`FAILURES_MAX` events in a
row it is told nothing any more, and the other hooks are told that.

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
    """A snapshot of what became of one hook."""

    hook: str
    failures: int
    disabled: bool


@final
@define(eq=False)
class _Told:
    """One hook and its record."""

    hook: Hook
    carrier: Callable[[CallInfo], Mapping[str, str]] | None = field(init=False)
    failures: int = field(default=0, init=False)
    failures_in_row: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.carrier = self.hook.carrier if isinstance(self.hook, Carrier) else None

    @property
    def disabled(self) -> bool:
        return self.failures_in_row >= FAILURES_MAX

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
    #: Those that are still told.
    _listening: tuple[_Told, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._listening = self._hooks

    @classmethod
    def of(cls, hooks: Iterable[Hook]) -> Self | None:
        """The emitter to *hooks*; ``None`` if there are none.

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
        return cls(told) if told else None

    def emit(self, event: Event) -> None:
        """Tell every hook. Nothing that a hook raises comes out, but for what ends the program."""
        for one in self._listening:
            try:
                one.hook(event)
            except Exception as exc:  # noqa: BLE001 - somebody else's code; the call goes on
                self._failed(one, exc)
            else:
                one.failures_in_row = 0

    def carrier(self, call: CallInfo) -> Mapping[str, str] | None:
        """The trace context of *call*, from the first hook that has one."""
        for one in self._listening:
            if one.carrier is not None:
                try:
                    found = trace_context(one.carrier(call))
                except Exception as exc:  # noqa: BLE001 - as above
                    self._failed(one, exc)
                else:
                    if found:
                        return found
        return None

    def statistics(self) -> tuple[HookStatistics, ...]:
        """A snapshot, in the order of the hooks."""
        return tuple(
            HookStatistics(hook=one.label, failures=one.failures, disabled=one.disabled)
            for one in self._hooks
        )

    def _failed(self, one: _Told, exc: Exception) -> None:
        one.failures += 1
        one.failures_in_row += 1
        if one.disabled and one in self._listening:
            self._listening = tuple(each for each in self._listening if each is not one)
            self.emit(HookDisabled(hook=one.label, error_type=type(exc).__name__))


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
