"""``/api/v1/gateway``: decisions for gateways and agents that make their calls themselves.

The original system's dialect. A decision is always a 200 with ``allow``; where none can be had,
that is a no which nobody may keep (``cache_ttl`` 0).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final, final, get_args

from attrs import define, field

from sark_trio import GatewayClient, Principal, jsontext
from sark_trio.client.deciding import Authorization
from sark_trio.client.servers import Sensitivity
from sark_trio.errors import GatewayError
from sark_trio.gateway.asgi import Reply, Request
from sark_trio.gateway.faults import Refused, fault_of
from sark_trio.gateway.guard import unauthenticated
from sark_trio.gateway.rest import server_record, tool_record

__all__ = ["DecisionsApi"]

_INVOKE: Final = "gateway:tool:invoke"
_ACTIONS: Final = (
    _INVOKE,
    "gateway:server:list",
    "gateway:tool:discover",
    "gateway:server:info",
)
_CAPABILITIES: Final = ("execute", "query", "delegate")
_EVENT_TYPES: Final = ("tool_invoke", "a2a_communication", "discovery")
_DECISIONS: Final = ("allow", "deny")
#: A record of the audit log has room for 64 KiB, in which text may grow by escapes.
EVENT_BYTES_MAX: Final = 16 * 1024


def _hashed(key: str | None) -> bytes | None:
    return None if key is None else hashlib.sha256(key.encode()).digest()


@final
@define(eq=False)
class DecisionsApi:
    """The endpoints below ``/api/v1/gateway``.

    :param audit_key: whoever shows it may report events (``X-Gateway-Api-Key``).
    """

    _client: GatewayClient
    _audit_key: bytes | None = field(default=None, converter=_hashed)

    async def authorize(self, request: Request, principal: Principal | None) -> Reply:
        """``POST /authorize``: may the caller do that?"""
        body = _Body.of(await request.body())
        action = body.choice("action", _ACTIONS)
        context, metadata = body.object("context"), body.object("gateway_metadata")
        if metadata:
            context = {**context, "gateway_metadata": metadata}
        asked: dict[str, Any] = {
            "server_name": body.text("server_name"),
            "tool_name": body.text("tool_name"),
            "parameters": body.object("parameters"),
            "sensitivity": body.choice("sensitivity_level", get_args(Sensitivity), None),
            "context": context,
        }
        try:
            decided = await self._client.authorize(action, principal=principal, **asked)
        except GatewayError as exc:
            return _no_decision(exc)
        return _decision(decided, parameters=action == _INVOKE)

    async def authorize_a2a(self, request: Request, principal: Principal | None) -> Reply:
        """``POST /authorize-a2a``: may the agent that the token proves ask another one?"""
        if principal is None or principal.kind != "agent":
            raise unauthenticated("not_an_agent")
        body = _Body.of(await request.body())
        context = body.object("context")
        asked: dict[str, Any] = {
            "target_agent_id": body.required("target_agent_id"),
            "capability": body.choice("capability", _CAPABILITIES),
            "source_agent_id": body.required("source_agent_id"),
            "message_type": body.required("message_type"),
            "target_environment": body.text("target_environment"),
            "parameters": body.object("parameters"),
            "payload_metadata": body.object("payload_metadata"),
            "delegation_depth": _depth(context),
            "context": context,
        }
        try:
            decided = await self._client.authorize_a2a(principal=principal, **asked)
        except GatewayError as exc:
            return _no_decision(exc)
        return _decision(decided, parameters=True)

    async def servers(self, _: Request, principal: Principal | None) -> Reply:
        """``GET /servers``: those that the caller may see."""
        who = principal or self._client.principal
        infos = await self._client.list_all_servers(principal=who)
        return Reply.json([server_record(info) for info in infos])

    async def tools(self, request: Request, principal: Principal | None) -> Reply:
        """``GET /tools``: those that the caller may see, of one server or of all.

        Servers that could not be asked are named in ``X-Sark-Unreachable``.
        """
        server = request.query().get("server_name")
        listing = await self._client.list_all_tools(server, principal=principal)
        records = [tool_record(info) for info in listing]
        missing = ", ".join(sorted(listing.failures))
        headers = (("x-sark-unreachable", missing),) if missing else ()
        return Reply.json(records, headers=headers)

    def check_reporter(self, request: Request) -> None:
        """Let through who may report events.

        :raises Refused: 401, the key is missing or wrong; 503, nobody may.
        """
        if self._audit_key is None:
            raise Refused(503, "unavailable", "no key for reports is configured")
        offered = _hashed(request.headers.get("x-gateway-api-key", ""))
        if offered is None or not hmac.compare_digest(offered, self._audit_key):
            raise unauthenticated("key_invalid")

    async def audit(self, request: Request, _: Principal | None) -> Reply:
        """``POST /audit``: record what another gateway says it did, which was let through."""
        raw = await request.body()
        if len(raw) > EVENT_BYTES_MAX:
            message = f"the event is larger than {EVENT_BYTES_MAX} bytes"
            raise Refused(413, "too_large", message)
        body = _Body.of(raw)
        event: dict[str, Any] = {
            "event_type": body.choice("event_type", _EVENT_TYPES),
            "decision": body.choice("decision", _DECISIONS),
            "reason": body.required("reason"),
            "gateway_request_id": body.required("gateway_request_id"),
            "timestamp": body.number("timestamp"),
            "metadata": body.object("metadata"),
        }
        for name in ("user_id", "agent_id", "server_name", "tool_name"):
            event[name] = body.text(name)
        # Somebody else's word: it is kept apart from what this gateway itself has seen.
        audit_id = await self._client.record("reported", {"event": event})
        return Reply.json({"audit_id": audit_id, "status": "logged"}, 201)


def _decision(decided: Authorization, *, parameters: bool) -> Reply:
    shown = decided.parameters if decided.allow and parameters else None
    return Reply.json(
        {
            "allow": decided.allow,
            "reason": decided.reason,
            "filtered_parameters": shown,
            "audit_id": decided.audit_id,
            "cache_ttl": int(decided.cache_ttl_s),
        }
    )


def _no_decision(error: GatewayError) -> Reply:
    return Reply.json(
        {
            "allow": False,
            "reason": fault_of(error).kind,
            "filtered_parameters": None,
            "audit_id": None,
            "cache_ttl": 0,
        }
    )


def _depth(context: Mapping[str, Any]) -> int:
    depth = context.get("delegation_depth", 0)
    if type(depth) is not int or depth < 0:
        raise _wrong("context.delegation_depth", "a whole number of 0 or more")
    return depth


@final
@define(eq=False)
class _Body:
    """A request's members, each of the type that it must have; what is wrong is a 422."""

    _members: Mapping[str, Any]

    @classmethod
    def of(cls, raw: bytes) -> _Body:
        try:
            members = jsontext.decode_strict(raw)
        except jsontext.JSONError as exc:
            raise Refused(422, "invalid_request", "the body is not JSON") from exc
        if not isinstance(members, dict):
            raise Refused(422, "invalid_request", "the body must be an object")
        return cls(members)

    def text(self, name: str) -> str | None:
        """A text; ``None`` if it is absent, null or empty."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, str):
            raise _wrong(name, "a string")
        return value or None

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise _wrong(name, "a string, and is missing")
        return value

    def object(self, name: str) -> dict[str, Any]:
        value = self._members.get(name)
        if value is not None and not isinstance(value, dict):
            raise _wrong(name, "an object")
        return value or {}

    def number(self, name: str) -> int:
        value = self._members.get(name)
        if type(value) is not int:
            raise _wrong(name, "a whole number")
        return value

    def choice(self, name: str, known: tuple[str, ...], *default: None) -> Any:
        """One of *known*; absent: *default*, or an error."""
        value = self._members.get(name)
        if value is None and default:
            return None
        if value not in known:
            raise _wrong(name, f"one of {', '.join(known)}")
        return value


def _wrong(name: str, what: str) -> Refused:
    return Refused(422, "invalid_request", f"{name} must be {what}")
