"""Which era a server is of, and which version to speak with it: a machine, once per server.

MCP 2026-07-28, "Versioning and Compatibility" and the "Backward Compatibility" of both
bindings. One rule serves both: we begin with ``server/discover``, which every modern server
must answer. On HTTP any request could be the probe, but this one has no effect that a legacy
server could repeat, and it brings the capabilities along.

- A discovery, or an error that only modern servers give, says **modern**; no way leads from
  there to ``initialize`` unless the server itself names a legacy version.
- Anything else says **legacy**: another error or result, silence or death on stdio, and on
  HTTP a 4xx that is about the request. Statuses about something else (credentials, rate,
  a sick server) say nothing, and nothing is concluded from them.
- Silence is weak evidence: a modern server may only be slow to start. If it then refuses
  ``initialize``, it is probed a second time, and never a third. So it is if it refuses the
  version of the probe and names that very version as one that it supports.

The driver does what :meth:`Negotiation.next` says and reports what came of it, until that is
:class:`Done` or :class:`Failed`. ``Done`` with a legacy version: it still owes the server
``notifications/initialized``. There is no time in here; how long silence lasts is the driver's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal, final

from attrs import define, field, frozen

from sark_trio.mcp.evidence import (
    Evidence,
    Signal,
    read_discovery,
    read_error,
    read_initialization,
    read_status,
)
from sark_trio.mcp.members import object_of
from sark_trio.mcp.messages import Agreed, Fault
from sark_trio.mcp.meta import SERVER_INFO
from sark_trio.mcp.versions import HTTP_SSE, MODERN, SPOKEN, is_modern

__all__ = [
    "STEPS_MAX",
    "TABLE",
    "Discover",
    "Done",
    "Failed",
    "Initialize",
    "Move",
    "Negotiation",
    "NegotiationStatistics",
    "Phase",
    "Step",
]

#: Two probes, and each legacy version offered once.
STEPS_MAX: Final = 1 + len(SPOKEN)
#: What a server of the old HTTP+SSE transport answers to a POST (2025-11-25, Transports).
_MAYBE_SSE: Final = frozenset({400, 404, 405})


@frozen
class Discover:
    """Send ``server/discover`` in this version."""

    version: str


@frozen
class Initialize:
    """Send ``initialize`` offering this version; after starting a new process if *restart*."""

    version: str
    restart: bool = False


@frozen
class Done:
    """The end: this was agreed."""

    agreed: Agreed


@frozen
class Failed:
    """The end: nothing was agreed.

    :param status: the HTTP status that ended it, where one did.
    :param try_sse: the server may speak the old HTTP+SSE transport instead.
    """

    message: str
    status: int | None = None
    try_sse: bool = False


Step = Discover | Initialize | Done | Failed


class Phase(Enum):
    """Where a negotiation stands."""

    PROBING = "probing"
    #: ``initialize`` after an answer to the probe, after its death, or without one (pinned).
    INITIALIZING = "initializing"
    #: ``initialize`` after a probe that nobody answered.
    GUESSING = "guessing"
    REPROBING = "reprobing"
    AGREED = "agreed"
    FAILED = "failed"


class Move(Enum):
    """What an answer leads to."""

    AGREE = "take what the answer says"
    TRUST = "take the version as agreed: the server objected to something else"
    FOLLOW = "ask again in the version that the peer named"
    FALL_BACK = "initialize"
    GUESS = "initialize, for want of an answer"
    RESTART = "initialize in a new process"
    REPROBE = "discover once more"
    FAIL = "give up"


#: The whole negotiation, but for one rule: a move that finds nothing left to try fails.
TABLE: Final[Mapping[tuple[Phase, Signal], Move]] = {
    (Phase.PROBING, Signal.FITS): Move.AGREE,
    (Phase.PROBING, Signal.NAMED): Move.FOLLOW,
    (Phase.PROBING, Signal.NONE_COMMON): Move.FAIL,
    (Phase.PROBING, Signal.MISMATCH): Move.FAIL,
    (Phase.PROBING, Signal.CAPABILITY): Move.TRUST,
    (Phase.PROBING, Signal.FOREIGN): Move.FALL_BACK,
    (Phase.PROBING, Signal.SILENT): Move.GUESS,
    (Phase.PROBING, Signal.EXITED): Move.RESTART,
    (Phase.PROBING, Signal.UNRELATED): Move.FAIL,
    (Phase.INITIALIZING, Signal.FITS): Move.AGREE,
    (Phase.INITIALIZING, Signal.NAMED): Move.FOLLOW,
    (Phase.INITIALIZING, Signal.NONE_COMMON): Move.FAIL,
    (Phase.INITIALIZING, Signal.MISMATCH): Move.REPROBE,
    (Phase.INITIALIZING, Signal.CAPABILITY): Move.REPROBE,
    (Phase.INITIALIZING, Signal.FOREIGN): Move.FAIL,
    (Phase.INITIALIZING, Signal.SILENT): Move.FAIL,
    (Phase.INITIALIZING, Signal.EXITED): Move.FAIL,
    (Phase.INITIALIZING, Signal.UNRELATED): Move.FAIL,
    (Phase.GUESSING, Signal.FITS): Move.AGREE,
    (Phase.GUESSING, Signal.NAMED): Move.FOLLOW,
    (Phase.GUESSING, Signal.NONE_COMMON): Move.FAIL,
    (Phase.GUESSING, Signal.MISMATCH): Move.REPROBE,
    (Phase.GUESSING, Signal.CAPABILITY): Move.REPROBE,
    (Phase.GUESSING, Signal.FOREIGN): Move.REPROBE,
    (Phase.GUESSING, Signal.SILENT): Move.FAIL,
    (Phase.GUESSING, Signal.EXITED): Move.FAIL,
    (Phase.GUESSING, Signal.UNRELATED): Move.FAIL,
    (Phase.REPROBING, Signal.FITS): Move.AGREE,
    (Phase.REPROBING, Signal.NAMED): Move.FOLLOW,
    (Phase.REPROBING, Signal.NONE_COMMON): Move.FAIL,
    (Phase.REPROBING, Signal.MISMATCH): Move.FAIL,
    (Phase.REPROBING, Signal.CAPABILITY): Move.TRUST,
    (Phase.REPROBING, Signal.FOREIGN): Move.FAIL,
    (Phase.REPROBING, Signal.SILENT): Move.FAIL,
    (Phase.REPROBING, Signal.EXITED): Move.FAIL,
    (Phase.REPROBING, Signal.UNRELATED): Move.FAIL,
}

_STEP_OF: Final[Mapping[Phase, type[Step]]] = {
    Phase.PROBING: Discover,
    Phase.REPROBING: Discover,
    Phase.INITIALIZING: Initialize,
    Phase.GUESSING: Initialize,
    Phase.AGREED: Done,
    Phase.FAILED: Failed,
}


@frozen(kw_only=True)
class NegotiationStatistics:
    """A snapshot of a negotiation."""

    phase: Phase
    #: Requests made so far, the present one included.
    steps: int
    #: Legacy versions that were not offered yet.
    offers_left: int


@final
@define(repr=False, eq=False)
class Negotiation:
    """Find out a server's era. Total: no input raises.

    Each ``on_*`` tells what came of the present step and returns the next one, or a
    :class:`~sark_trio.mcp.messages.Fault` where there is nothing to report on.

    :param transport: ``http`` or ``stdio`` (the latter for any stream of bytes, too).
    :param pinned_version: speak this version or fail.
    :raises ValueError: unknown transport, or a pinned version that we do not speak.
    """

    transport: Literal["http", "stdio"] = field()
    pinned_version: str | None = field(default=None, kw_only=True)
    _phase: Phase = field(init=False)
    _step: Step = field(init=False)
    _steps: int = field(init=False, default=1)
    _probes_left: int = field(init=False)
    #: Legacy versions that may be agreed.
    _legacy: tuple[str, ...] = field(init=False)
    #: Those of them not offered yet, best first.
    _offers: tuple[str, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.transport not in {"http", "stdio"}:
            raise ValueError(f"transport must be 'http' or 'stdio', not {self.transport!r}")
        if self.pinned_version is not None and self.pinned_version not in SPOKEN:
            raise ValueError(
                f"pinned_version must be one of {', '.join(SPOKEN)}, not {self.pinned_version!r}"
            )
        wanted = SPOKEN if self.pinned_version is None else (self.pinned_version,)
        self._legacy = self._offers = tuple(each for each in wanted if not is_modern(each))
        if MODERN in wanted:
            self._probes_left = 1
            self._phase, self._step = Phase.PROBING, Discover(MODERN)
        else:
            self._probes_left = 0
            self._phase, self._step = Phase.INITIALIZING, self._offer(self._offers[0])

    def next(self) -> Step:
        """What to do now, or how it ended. Asking changes nothing."""
        return self._step

    def on_result(self, result: Any) -> Step | Fault:
        """The step was answered with this ``result`` member."""
        if _STEP_OF[self._phase] is Initialize:
            return self._take(read_initialization(result, self._legacy, self._untried()))
        return self._take(read_discovery(result, (MODERN,), self._untried()))

    def on_error(self, code: int, message: str, data: Any = None) -> Step | Fault:
        """The step was answered with a JSON-RPC error."""
        return self._take(read_error(code, message, data, self._untried()))

    def on_http_status(self, status: int, body: bytes = b"") -> Step | Fault:
        """The step was answered with an HTTP status that is no success, and this body."""
        if self.transport != "http":
            return Fault("there are no HTTP statuses on this transport")
        return self._take(read_status(status, body, self._untried()))

    def on_silence(self) -> Step | Fault:
        """The step was not answered in time. On HTTP that proves nothing: it ends here."""
        signal = Signal.UNRELATED if self.transport == "http" else Signal.SILENT
        return self._take(Evidence(signal=signal, text="the server did not answer in time"))

    def on_process_exit(self) -> Step | Fault:
        """The process ended before it answered; some do when a request precedes initialize."""
        if self.transport != "stdio":
            return Fault("there is no process on this transport")
        return self._take(Evidence(signal=Signal.EXITED, text="the server process ended"))

    def statistics(self) -> NegotiationStatistics:
        """A snapshot."""
        return NegotiationStatistics(
            phase=self._phase, steps=self._steps, offers_left=len(self._offers)
        )

    def check_invariants(self) -> None:
        """Assert what must hold between any two inputs."""
        assert type(self._step) is _STEP_OF[self._phase]
        assert 1 <= self._steps <= STEPS_MAX
        assert self._probes_left == 0 or self._phase is not Phase.REPROBING
        assert set(self._offers) <= set(self._legacy)
        if isinstance(self._step, Done):
            agreed = self._step.agreed
            assert agreed.version in SPOKEN
            assert agreed.modern is is_modern(agreed.version)
            assert self.pinned_version in {None, agreed.version}

    def __repr__(self) -> str:
        return f"<Negotiation {self.transport} {self._phase.value} step {self._steps}>"

    def _untried(self) -> tuple[str, ...]:
        """What the peer may lead us to by naming it.

        Even what it just refused: in front of several replicas, while they change, the next
        answer may be another one's. That is asked for once.
        """
        return (MODERN, *self._offers) if self._probes_left > 0 else self._offers

    def _take(self, evidence: Evidence) -> Step | Fault:
        if self._phase in {Phase.AGREED, Phase.FAILED}:
            return Fault("the negotiation has ended")
        move = TABLE[self._phase, evidence.signal]
        if move is Move.AGREE:
            self._agree(evidence.version, evidence.result)
        elif move is Move.TRUST:
            self._agree(MODERN, {})
        elif move is Move.FOLLOW and not is_modern(evidence.version):
            self._go(Phase.INITIALIZING, self._offer(evidence.version))
        elif move in {Move.FOLLOW, Move.REPROBE} and self._probes_left:
            self._probes_left -= 1
            self._go(Phase.REPROBING, Discover(MODERN))
        elif move in {Move.FALL_BACK, Move.GUESS, Move.RESTART} and self._offers:
            phase = Phase.GUESSING if move is Move.GUESS else Phase.INITIALIZING
            restart = move is Move.RESTART
            self._go(phase, self._offer(self._offers[0], restart=restart))
        else:
            self._fail(evidence)
        return self._step

    def _go(self, phase: Phase, step: Step) -> None:
        self._phase, self._step = phase, step
        self._steps += 1

    def _offer(self, version: str, *, restart: bool = False) -> Initialize:
        self._offers = tuple(each for each in self._offers if each != version)
        return Initialize(version, restart=restart)

    def _agree(self, version: str, result: Mapping[str, Any]) -> None:
        instructions = result.get("instructions")
        if is_modern(version):
            info = object_of(object_of(result, "_meta"), SERVER_INFO)
        else:
            info = object_of(result, "serverInfo")
        agreed = Agreed(
            version=version,
            modern=is_modern(version),
            server_info=info,
            capabilities=object_of(result, "capabilities"),
            instructions=instructions if type(instructions) is str else None,
        )
        self._phase, self._step = Phase.AGREED, Done(agreed)

    def _fail(self, evidence: Evidence) -> None:
        may_be_sse = (
            HTTP_SSE in self._legacy
            and self._phase is Phase.INITIALIZING
            and evidence.signal is Signal.FOREIGN
            and evidence.status in _MAYBE_SSE
        )
        pinned = "" if self.pinned_version is None else f" (pinned to {self.pinned_version})"
        message = f"no MCP version agreed{pinned}: {evidence.text}"
        self._phase, self._step = Phase.FAILED, Failed(message, evidence.status, may_be_sse)
