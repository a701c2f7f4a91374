"""Why a session ended, in words: each makes the error of one call out of how far that call got."""

from __future__ import annotations

from sark_trio.errors import (
    ClientClosed,
    Delivery,
    GatewayError,
    ProcessExited,
    ProcessStartError,
    ProcessUnresponsive,
    ProtocolError,
    ResourceLimitExceeded,
    WriteTimeout,
)
from sark_trio.machines.limits import Exceeded
from sark_trio.transports.switchboard import Verdict

__all__ = [
    "exceeded",
    "exited",
    "not_mcp",
    "stillborn",
    "stopped",
    "unresponsive",
    "write_timeout",
]

_LAST_WORDS_CHARS_MAX = 200


def exited(name: str, how: str, code: int | None, stderr_tail: str) -> Verdict:
    """The process is gone, or as good as gone; *how* counts where nobody knows its status."""
    if code is not None:
        how = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"

    def verdict(delivery: Delivery) -> ProcessExited:
        return ProcessExited(
            f"{name} {how}", exit_code=code, stderr_tail=stderr_tail, delivery=delivery
        )

    return verdict


def stopped(name: str) -> Verdict:
    """We end it ourselves."""
    return lambda delivery: ClientClosed(f"{name} is being stopped", delivery=delivery)


def not_mcp(name: str) -> Verdict:
    """Too many lines of it were no messages."""
    return lambda delivery: ProtocolError(
        f"{name} writes on stdout what is no MCP; it is restarted", delivery=delivery
    )


def unresponsive(name: str, what: str) -> Verdict:
    """It lives, and does nothing of what it should."""
    return lambda delivery: ProcessUnresponsive(
        f"{name} {what}; it is restarted", delivery=delivery
    )


def write_timeout(name: str, waited_s: float) -> Verdict:
    """It does not read; the session goes on."""
    return lambda delivery: WriteTimeout(
        f"{name} did not read its stdin for {waited_s:g} s", delivery=delivery
    )


def exceeded(name: str, limit: Exceeded) -> Verdict:
    """It used more than it may."""
    return lambda delivery: ResourceLimitExceeded(
        f"{name} was ended: {limit.limit} is {limit.allowed:g}, and it used {limit.value:.6g}",
        limit=limit.limit,
        value=limit.value,
        allowed=limit.allowed,
        delivery=delivery,
    )


def stillborn(end: GatewayError, stderr_tail: str) -> ProcessStartError:
    """The process ended, as *end* says, before it spoke MCP."""
    words = [line for line in stderr_tail.splitlines() if line.strip()]
    # A stranger's words: no newline or escape of theirs may dress up our message.
    said = f", saying {words[-1][:_LAST_WORDS_CHARS_MAX]!a}" if words else ""
    return ProcessStartError(
        f"{end.message} before it spoke MCP{said}; run its command by hand to see why"
    )
