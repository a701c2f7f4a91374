"""What is asked of a policy: one question, in one input that all known policies can read.

White. The original system had three shapes of input, and policies that matched none of the
callers. :func:`superset_input` carries the three at once, and no token in any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal, final

from attrs import field, frozen
from attrs.validators import in_

from sark_trio import errors, jsontext
from sark_trio.governance.delegation import Delegation
from sark_trio.governance.principal import Principal

__all__ = [
    "A2A",
    "AUDIT_READ",
    "COMPLETE",
    "DISCOVER",
    "EVENTS_READ",
    "INVOKE",
    "LISTEN",
    "LIST_SERVERS",
    "NOTIFY",
    "PING",
    "PROMPT_DISCOVER",
    "PROMPT_GET",
    "REQUEST",
    "RESOURCE_DISCOVER",
    "RESOURCE_READ",
    "RESOURCE_SUBSCRIBE",
    "SERVER_INFO",
    "SET_LOG_LEVEL",
    "TASK_CANCEL",
    "TASK_GET",
    "TASK_UPDATE",
    "Query",
    "Question",
    "Sensitivity",
    "superset_input",
]

INVOKE: Final = "gateway:tool:invoke"
DISCOVER: Final = "gateway:tool:discover"
LIST_SERVERS: Final = "gateway:server:list"
SERVER_INFO: Final = "gateway:server:info"
#: A request, and a notification, in the application's own words: ``context.method`` names it.
REQUEST: Final = "gateway:server:request"
NOTIFY: Final = "gateway:server:notify"
#: What a server offers beside tools; the parameters of the request are what policy is shown.
RESOURCE_DISCOVER: Final = "gateway:resource:discover"
RESOURCE_READ: Final = "gateway:resource:read"
RESOURCE_SUBSCRIBE: Final = "gateway:resource:subscribe"
PROMPT_DISCOVER: Final = "gateway:prompt:discover"
PROMPT_GET: Final = "gateway:prompt:get"
COMPLETE: Final = "gateway:completion:complete"
TASK_GET: Final = "gateway:task:get"
TASK_UPDATE: Final = "gateway:task:update"
TASK_CANCEL: Final = "gateway:task:cancel"
LISTEN: Final = "gateway:server:listen"
PING: Final = "gateway:server:ping"
SET_LOG_LEVEL: Final = "gateway:server:log"
#: One agent asks another.
A2A: Final = "gateway:a2a:communicate"
#: Reading the audit log as it is written, and events of other people's calls.
AUDIT_READ: Final = "gateway:audit:read"
EVENTS_READ: Final = "gateway:events:read"

Sensitivity = Literal["low", "medium", "high", "critical"]


def _plain(value: Any) -> Any:
    # What is no mapping is kept for check_arguments to refuse in words that help.
    return dict(value) if isinstance(value, Mapping) else value


@final
@frozen(kw_only=True)
class Query:
    """May *principal* do *action*, on this server and tool, with these arguments?

    :param sensitivity: the operator's word on the tool; never the server's own.
    :param context: further facts of the application. What changes with every call (a time, an
        id) does not belong here: it would keep every decision out of the cache.
    :param delegation: what one agent asks of another, where that is the question.
    """

    principal: Principal
    action: str = INVOKE
    server: str | None = None
    tool: str | None = None
    arguments: dict[str, Any] = field(factory=dict, converter=_plain, repr=False)
    sensitivity: Sensitivity = field(
        default="medium", validator=in_(("low", "medium", "high", "critical"))
    )
    context: dict[str, Any] = field(factory=dict, converter=_plain, repr=False)
    delegation: Delegation | None = None


def superset_input(query: Query, arguments: Any = None) -> dict[str, Any]:
    """The policy input for *query*: every shape that shipped policies read, in one object.

    :param arguments: what to put in the place of the query's own, which stand in it twice and
        may be large: their encoded form.
    """
    who = query.principal
    if arguments is None:
        arguments = query.arguments
    user = {
        "id": who.id,
        "kind": who.kind,
        "roles": who.roles,
        "permissions": who.permissions,
        "teams": who.teams,
        "email": who.email,
        "trust_level": who.trust_level,
        "environment": who.environment,
        "claims": who.claims,
    }
    tool = None
    if query.tool is not None:
        tool = {
            "name": query.tool,
            "parameters": arguments,
            "sensitivity_level": query.sensitivity,
        }
    return {
        "user": user,
        "action": query.action,
        "server": None if query.server is None else {"name": query.server},
        "tool": tool,
        "resource": {
            "type": "server" if query.tool is None else "tool",
            "server": query.server,
            "tool": query.tool,
            "sensitivity": query.sensitivity,
        },
        "parameters": arguments,
        "server_name": query.server,
        "tool_name": query.tool,
        "context": query.context,
        **({} if query.delegation is None else _agents(who, query.delegation)),
    }


def _agents(source: Principal, asked: Delegation) -> dict[str, Any]:
    """The members that policies on agents read. The source is who the token proves."""
    return {
        "source_agent": {
            "id": source.id,
            "type": source.agent_type,
            "trust_level": source.trust_level,
            "capabilities": source.capabilities,
            "environment": source.environment,
        },
        "target_agent": {
            "id": asked.target,
            "environment": asked.environment,
            "claimed_environment": asked.claimed_environment,
        },
        "capability": asked.capability,
        "delegation_depth": asked.depth,
        "message_type": asked.message_type,
        "payload_metadata": dict(asked.payload_metadata),
    }


@final
@frozen
class Question:
    """A query and its policy input, encoded once for the engine, the cache and the digest."""

    query: Query
    #: RFC 8785 bytes of the arguments alone.
    arguments: bytes = field(repr=False)
    #: RFC 8785 bytes of :func:`superset_input`: equal bytes, equal answer.
    encoded: bytes = field(repr=False)

    @classmethod
    def of(cls, query: Query) -> Question:
        """Encode *query*.

        :raises errors.InvalidArguments: the arguments or the context are not plain JSON.
        """
        try:
            arguments = jsontext.canonical(query.arguments)
            encoded = jsontext.canonical(
                superset_input(query, jsontext.Canonical(arguments)), nested=True
            )
        except jsontext.JSONError as exc:
            raise errors.InvalidArguments(
                f"the policy input of {query.tool or query.action!r} can not be encoded: {exc}",
                server=query.server,
            ) from None
        return cls(query, arguments, encoded)

    def is_intact(self) -> bool:
        """Whether the arguments still are those that were encoded: an engine gets to see them."""
        try:
            return jsontext.canonical(self.query.arguments) == self.arguments
        except jsontext.JSONError:
            return False

    @property
    def key(self) -> bytes:
        """SHA-256 of the whole input: 32 bytes, however large the arguments are."""
        return hashlib.sha256(self.encoded).digest()
