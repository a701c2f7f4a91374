"""What is said to a new server process before the first request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from sark_trio.errors import (
    GatewayError,
    ProcessExited,
    ProcessStartError,
    ProtocolError,
    RemoteError,
)
from sark_trio.mcp.era import Discover, Done, Failed, Initialize, Negotiation, Step
from sark_trio.mcp.messages import Agreed, Fault
from sark_trio.mcp.meta import request_meta
from sark_trio.transports.stdio_session import Session

__all__ = ["Handshake"]

_LAST_WORDS_CHARS_MAX = 200


@frozen(kw_only=True)
class Handshake:
    """The facts that a handshake tells, and how long it waits."""

    client_info: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    probe_timeout_s: float
    start_timeout_s: float

    async def make(self, session: Session, negotiation: Negotiation) -> Agreed | None:
        """Go on with *negotiation* in *session*; ``None`` if it needs another process.

        :raises ProcessStartError: the process ended, and another one would not help.
        :raises ProtocolError: nothing in common.
        :raises GatewayError: the session was condemned meanwhile.
        """
        step: Step | Fault = negotiation.next()
        while isinstance(step, Discover | Initialize):
            step = await self._take(step, session, negotiation)
            if not session.alive and isinstance(step, Initialize):
                return None
        if isinstance(step, Done):
            if not step.agreed.modern:
                await session.notify("notifications/initialized", {})
            return step.agreed
        assert isinstance(step, Failed), step
        raise _failure(step, session)

    async def _take(
        self, step: Discover | Initialize, session: Session, negotiation: Negotiation
    ) -> Step | Fault:
        if isinstance(step, Discover):
            method, wait_s = "server/discover", self.probe_timeout_s
            params = self._discover(step.version)
        else:
            method, wait_s = "initialize", self.start_timeout_s
            params = self._initialize(step.version)
        try:
            result = await session.shake_hands(method, params, wait_s)
        except TimeoutError:
            return negotiation.on_silence()
        except RemoteError as exc:
            return negotiation.on_error(exc.code, exc.message, exc.data)
        except ProcessExited:
            return negotiation.on_process_exit()
        except ProtocolError:
            if not session.alive:
                raise
            result = None  # an answer that is none: no era's
        return negotiation.on_result(result)

    def _discover(self, version: str) -> dict[str, Any]:
        meta = request_meta(
            version, client_info=self.client_info, client_capabilities=self.capabilities
        )
        return {"_meta": meta}

    def _initialize(self, version: str) -> dict[str, Any]:
        return {
            "protocolVersion": version,
            "capabilities": self.capabilities,
            "clientInfo": self.client_info,
        }


def _failure(failed: Failed, session: Session) -> GatewayError:
    if session.alive:
        return ProtocolError(f"{session.name}: {failed.message}", delivery="not_sent")
    end = session.why()
    words = [line for line in session.stderr_tail.splitlines() if line.strip()]
    # A stranger's words: no newline or escape of theirs may dress up our message.
    said = f", saying {words[-1][:_LAST_WORDS_CHARS_MAX]!a}" if words else ""
    return ProcessStartError(
        f"{end.message} before it spoke MCP{said}; run its command by hand to see why"
    )
