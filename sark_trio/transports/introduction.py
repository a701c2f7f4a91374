"""What is said to a server on a new connection, before the first request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from sark_trio.errors import ProtocolError, RemoteError, TransportError
from sark_trio.mcp.era import Discover, Done, Failed, Initialize, Negotiation, Step
from sark_trio.mcp.messages import Agreed, Fault
from sark_trio.mcp.meta import request_meta
from sark_trio.transports.conversation import Conversation

__all__ = ["Introduction"]


@frozen(kw_only=True)
class Introduction:
    """The facts that a handshake tells, and how long it waits for each answer."""

    client_info: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    probe_timeout_s: float
    start_timeout_s: float

    async def make(self, talk: Conversation, negotiation: Negotiation) -> Agreed | None:
        """Go on with *negotiation* in *talk*; ``None`` if it needs another connection.

        :raises ProtocolError: nothing in common.
        :raises GatewayError: the conversation ended, and another one would not help.
        """
        step: Step | Fault = negotiation.next()
        while isinstance(step, Discover | Initialize):
            step = await self._take(step, talk, negotiation)
            if not talk.alive and isinstance(step, Discover | Initialize):
                return None
        if isinstance(step, Done):
            if not step.agreed.modern:
                await talk.notify("notifications/initialized", {})
            return step.agreed
        if not talk.alive:
            raise talk.stillborn()
        assert isinstance(step, Failed), step
        raise ProtocolError(f"{talk.name}: {step.message}", delivery="not_sent")

    async def _take(
        self, step: Discover | Initialize, talk: Conversation, negotiation: Negotiation
    ) -> Step | Fault:
        if isinstance(step, Discover):
            method, wait_s, params = "server/discover", self.probe_timeout_s, self._discover(step)
        else:
            method, wait_s, params = "initialize", self.start_timeout_s, self._initialize(step)
        try:
            result = await talk.shake_hands(method, params, wait_s)
        except RemoteError as exc:
            return negotiation.on_error(exc.code, exc.message, exc.data)
        except (TransportError, ProtocolError) as exc:
            if not talk.alive and talk.hung_up(exc):
                return negotiation.on_process_exit()
            if not talk.alive or isinstance(exc, TransportError):
                raise
            result = None  # an answer that is none: no era's
        except TimeoutError:
            return negotiation.on_silence()
        return negotiation.on_result(result)

    def _discover(self, step: Discover) -> dict[str, Any]:
        meta = request_meta(
            step.version, client_info=self.client_info, client_capabilities=self.capabilities
        )
        return {"_meta": meta}

    def _initialize(self, step: Initialize) -> dict[str, Any]:
        return {
            "protocolVersion": step.version,
            "capabilities": self.capabilities,
            "clientInfo": self.client_info,
        }
