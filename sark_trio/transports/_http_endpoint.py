"""Everything but calls that is sent to an MCP endpoint: handshakes, courtesies, farewells."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, final

import anyio
from attrs import frozen

from sark_trio.errors import GatewayError, ProtocolError
from sark_trio.mcp.codec import encode_notification
from sark_trio.mcp.headers import SESSION_ID_HEADER, legacy_headers, modern_headers
from sark_trio.mcp.messages import RequestId
from sark_trio.mcp.session import Session
from sark_trio.net.headers import retry_after_s
from sark_trio.transports._http_answers import (
    ERROR_BYTES_MAX,
    AnswerReader,
    Handlers,
    status_error_for,
)
from sark_trio.transports._http_auth import challenges_in
from sark_trio.transports._http_calls import Call, Identity
from sark_trio.transports._http_handshake import Reply, StatusReply
from sark_trio.transports._http_wire import RawHeaders, Sending, Wire, encode_headers
from sark_trio.transports.base import Outgoing

__all__ = ["POST_HEADERS", "Endpoint"]

#: For telling the server that a call was given up, or a session is over.
FAREWELL_S: Final = 1.0
#: Of every POST (2026-07-28, "Sending Messages").
POST_HEADERS: Final[RawHeaders] = (
    (b"Content-Type", b"application/json"),
    (b"Accept", b"application/json, text/event-stream"),
)


async def _yes(_reason: str) -> bool:
    return True


@final
@frozen(eq=False)
class Endpoint:
    """One endpoint, seen as a peer that is also told things."""

    wire: Wire
    reader: AnswerReader
    identity: Identity

    async def post(self, body: bytes, headers: RawHeaders, *, courtesy: bool = False) -> None:
        """Send what has no answer. What a server answers nonetheless is counted, and ignored.

        :param courtesy: nobody signs in for it.

        :raises HTTPStatusError: the server refused.
        :raises ProtocolError: it answered neither yes nor no.
        """
        sending = Sending(body, courtesy=courtesy)
        lease, head = await self.wire.send(b"POST", POST_HEADERS + headers, sending)
        with lease:
            if head.status >= 400:
                raise status_error_for(head)
            if head.status >= 300:
                raise ProtocolError(f"the server answered a notification with HTTP {head.status}")
            if head.content_type == "application/json":
                answer = await lease.connection.read_body(ERROR_BYTES_MAX)
                self.reader.counters.unmatched += bool(answer)

    async def shake(self, version: str, *, discover: bool) -> Reply | StatusReply:
        """One step of the handshake: ``server/discover``, or else ``initialize``."""
        identity = self.identity
        if discover:
            step = Outgoing(method="server/discover", replay_safe=True, may_resend=_yes)
            headers = encode_headers(modern_headers(version, step.method, {}))
        else:
            params = {
                "protocolVersion": version,
                "capabilities": identity.capabilities,
                "clientInfo": identity.client_info,
            }
            step = Outgoing(method="initialize", params=params, replay_safe=True, may_resend=_yes)
            headers = ()
        call = Call(step, version if discover else None, identity)
        lease, head = await self.wire.send(b"POST", POST_HEADERS + headers, call, moves=True)
        with lease:
            if head.status >= 400:
                body = await lease.connection.read_body(ERROR_BYTES_MAX)
                return StatusReply(head.status, body, retry_after_s(head), challenges_in(head))
            answer = await self.reader.read(lease.connection, head, call.request_id, Handlers())
            return Reply(answer, head.get(SESSION_ID_HEADER.lower().encode()))

    async def announce(self, session: Session) -> None:
        """Tell a legacy server that its answer to ``initialize`` has arrived."""
        await self.post(encode_notification("notifications/initialized"), session_headers(session))

    async def tell_cancelled(self, request_id: RequestId, session: Session) -> None:
        """Tell a legacy server that nobody waits for *request_id* any more. At most a second."""
        params = {"requestId": request_id, "reason": "the caller gave up"}
        body = encode_notification("notifications/cancelled", params)
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + FAREWELL_S):
            # A courtesy: whatever goes wrong with it, it is the caller's own end that matters.
            with suppress(GatewayError):
                await self.post(body, session_headers(session), courtesy=True)

    async def end_session(self, session: Session) -> None:
        """Tell a legacy server that the session is over. At most a second."""
        with anyio.move_on_after(FAREWELL_S), suppress(GatewayError):
            # 405 is an answer, too: then the server keeps its sessions as long as it likes.
            farewell = Sending(b"", courtesy=True)
            lease, _ = await self.wire.send(b"DELETE", session_headers(session), farewell)
            lease.release()


def session_headers(session: Session) -> RawHeaders:
    """The headers of everything sent within *session*."""
    return encode_headers(legacy_headers(session.version, session.id))
