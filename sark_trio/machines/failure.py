"""What a failed attempt means: for the breaker a vote, for the retry schedule a situation.

Three questions, three literal tables. :data:`VOTES`: does this error say that the *server* is
sick? :func:`classify`: in which situation does it leave the call? :data:`RETRY_TABLE`: may a
call of this safety be made again in that situation?
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final, Literal, final

from attrs import field, frozen

from sark_trio.errors import (
    AuditError,
    AuditUnavailable,
    CallTimeout,
    CircuitOpen,
    Delivery,
    GatewayError,
    HTTPStatusError,
    OutcomeUnknown,
    Overloaded,
    PoolTimeout,
    ProtocolError,
    RateLimited,
    Refused,
    RemoteError,
    ServerDown,
    TLSError,
    TransportError,
    UsageError,
)
from sark_trio.machines.circuit import Outcome

__all__ = [
    "RETRY_TABLE",
    "VOTES",
    "Cell",
    "Failure",
    "Safety",
    "Situation",
    "classify",
    "safety_of",
    "vote",
]


@unique
class Safety(StrEnum):
    """Whether a request may be made twice."""

    #: Read-only or idempotent, and somebody trusted says so.
    SAFE = "safe"
    #: Every other tool call.
    UNSAFE = "unsafe"
    #: The protocol's own reading requests: lists, reads, discovery, ping, initialize.
    LISTING = "listing"

    @property
    def replay_safe(self) -> bool:
        """Whether the request may be sent again although it may have arrived."""
        return self is not Safety.UNSAFE


@unique
class Situation(StrEnum):
    """Where a failed attempt leaves the call."""

    #: Provably not one byte reached the server.
    NOT_SENT = "not_sent"
    #: It may have arrived; no answer came.
    UNKNOWN = "unknown"
    #: 429, or 503 with Retry-After: come back later.
    THROTTLED = "throttled"
    #: 500, 502, 504, or 503 without Retry-After: it may have happened in part.
    SERVER_ERROR = "server_error"
    #: The server answered; asking again gets the same answer.
    ANSWERED = "answered"
    #: The peer broke the protocol, or TLS; asking again gets the same breach.
    BROKEN = "broken"
    #: Breaker or queue refused to let the attempt out.
    HELD_BACK = "held_back"
    #: Denied, not auditable, misused, or out of time: final, whatever the call.
    FINAL = "final"


Cell = Literal["retry", "if_not_executed", "never"]


def _row(safe: Cell, unsafe: Cell, listing: Cell) -> Mapping[Safety, Cell]:
    cells = {Safety.SAFE: safe, Safety.UNSAFE: unsafe, Safety.LISTING: listing}
    return MappingProxyType(cells)


#: Situation and safety to what may follow.
RETRY_TABLE: Final[Mapping[Situation, Mapping[Safety, Cell]]] = MappingProxyType(
    {
        Situation.NOT_SENT: _row("retry", "retry", "retry"),
        Situation.UNKNOWN: _row("retry", "never", "retry"),
        Situation.THROTTLED: _row("retry", "if_not_executed", "retry"),
        Situation.SERVER_ERROR: _row("retry", "never", "retry"),
        Situation.ANSWERED: _row("never", "never", "never"),
        Situation.BROKEN: _row("never", "never", "never"),
        Situation.HELD_BACK: _row("never", "never", "never"),
        Situation.FINAL: _row("never", "never", "never"),
    }
)

_SUCCESS, _FAILURE, _NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL

#: The first type that fits votes. HTTP errors vote by status.
VOTES: Final[tuple[tuple[type[GatewayError], Outcome], ...]] = (
    (PoolTimeout, _NEUTRAL),  # our pool, not their server
    (TransportError, _FAILURE),
    (ProtocolError, _FAILURE),
    (RateLimited, _NEUTRAL),  # healthy enough to count requests; the limiter handles it
    (RemoteError, _SUCCESS),  # a well-formed answer
    (OutcomeUnknown, _FAILURE),
    # Refused, UsageError, AuditError, CallTimeout: nothing was learnt about the server.
    (GatewayError, _NEUTRAL),
)
_SERVER_ERRORS: Final = frozenset({500, 502, 503, 504})


def vote(error: BaseException) -> Outcome:
    """What *error* tells the breaker. What is not a :class:`GatewayError` is a cancellation.

    A :class:`CallTimeout` is neutral, for the deadline may have been spent elsewhere. Whoever
    knows that the server alone was given the time settles that as a failure himself.
    """
    if isinstance(error, OutcomeUnknown) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, HTTPStatusError):
        if _throttled(error):
            return _NEUTRAL
        return _FAILURE if error.status in _SERVER_ERRORS else _SUCCESS
    return next((outcome for kind, outcome in VOTES if isinstance(error, kind)), _NEUTRAL)


@final
@frozen
class Failure:
    """A failed attempt, as the retry machine sees it. Made by :func:`classify`."""

    situation: Situation
    error: GatewayError = field(eq=False)

    @property
    def delivery(self) -> Delivery:
        """How far the request got."""
        return self.error.delivery

    @property
    def retry_after_s(self) -> float | None:
        """When the server (or our breaker) asked to come back."""
        return self.error.retry_after_s


#: The first type that fits decides; what fits none is decided by its delivery.
_SITUATIONS: Final[tuple[tuple[type[GatewayError], Situation], ...]] = (
    (CircuitOpen, Situation.HELD_BACK),
    (ServerDown, Situation.HELD_BACK),
    (Overloaded, Situation.HELD_BACK),
    (AuditUnavailable, Situation.FINAL),
    (Refused, Situation.FINAL),
    (UsageError, Situation.FINAL),
    (AuditError, Situation.FINAL),
    (CallTimeout, Situation.FINAL),
    (TLSError, Situation.BROKEN),  # a bad certificate stays bad; a slow handshake times out
    (ProtocolError, Situation.BROKEN),
    (RemoteError, Situation.ANSWERED),
)
_BY_DELIVERY: Final[Mapping[Delivery, Situation]] = MappingProxyType(
    {
        "not_sent": Situation.NOT_SENT,
        "unknown": Situation.UNKNOWN,
        "answered": Situation.ANSWERED,
    }
)


def classify(error: GatewayError) -> Failure:
    """The situation that *error* leaves its call in."""
    if isinstance(error, HTTPStatusError):
        if _throttled(error):
            return Failure(Situation.THROTTLED, error)
        server = error.status in _SERVER_ERRORS
        return Failure(Situation.SERVER_ERROR if server else Situation.ANSWERED, error)
    for kind, situation in _SITUATIONS:
        if isinstance(error, kind):
            return Failure(situation, error)
    return Failure(_BY_DELIVERY[error.delivery], error)


def _throttled(error: HTTPStatusError) -> bool:
    asked = error.status == 503 and error.retry_after_s is not None
    return asked or error.status == 429


def safety_of(
    *,
    read_only_hint: bool | None,
    idempotent_hint: bool | None,
    trusted: bool,
    override: bool | None = None,
) -> Safety:
    """The safety of a tool call.

    :param read_only_hint: the tool's annotation, as the server sent it; so are the others.
    :param idempotent_hint: it matters only where the tool is not read-only.
    :param trusted: whether the operator trusts the server's annotations (MCP 2026-07-28,
        tools: clients must take annotations from other servers as untrusted).
    :param override: the operator's own word; it beats the hints in both directions.
    """
    if override is not None:
        return Safety.SAFE if override is True else Safety.UNSAFE
    # `is True`: a peer may send anything, and only that says yes.
    hinted = read_only_hint is True or idempotent_hint is True
    return Safety.SAFE if trusted and hinted else Safety.UNSAFE
