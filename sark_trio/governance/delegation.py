"""One agent asks another: what is asked, and what no policy may allow. White.

The rules of :func:`objection` hold before any policy is asked, in the order of the original
system. Who asks is what a token proves; what the caller says about others counts only as far as
it cannot be used against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, final, get_args

from attrs import field, frozen

from sark_trio.governance.principal import Principal

__all__ = ["DEPTH_MAX", "Capability", "Delegation", "objection"]

Capability = Literal["execute", "query", "delegate"]
#: Agents between the one that asks and the one that began it.
DEPTH_MAX: Final = 2
#: Trust levels that may leave their own environment, if policy lets them. Any other word, or
#: none, is as good as ``untrusted``.
_TRUSTED: Final = frozenset({"trusted", "limited"})
#: Characters of an agent's id, and of a message's type.
_ID_CHARS_MAX: Final = 512


def _text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _ID_CHARS_MAX and value.isprintable()


@final
@frozen(kw_only=True)
class Delegation:
    """May the agent that asks use *capability* of *target*?

    :param target: id of the other agent.
    :param environment: where the other agent runs, as the operator knows; ``None``: unknown.
    :param claimed_environment: where it runs, as the caller says.
    :param claimed_source: who asks, as the caller says.
    :param depth: agents that stand between; 0: nobody.
    :param message_type: the caller's word for the message.
    :param payload_metadata: facts about the message.
    :raises ValueError: a value that can be none of these.
    """

    target: str
    capability: Capability
    environment: str | None = None
    claimed_environment: str | None = None
    claimed_source: str | None = None
    depth: int = 0
    message_type: str | None = None
    payload_metadata: Mapping[str, Any] = field(factory=dict, repr=False)

    def __attrs_post_init__(self) -> None:
        if not _text(self.target):
            raise ValueError("target must be a printable text")
        if self.capability not in get_args(Capability):
            raise ValueError(f"capability must be one of {', '.join(get_args(Capability))}")
        if type(self.depth) is not int or self.depth < 0:
            raise ValueError("delegation_depth must be a whole number of 0 or more")
        for name in ("environment", "claimed_environment", "claimed_source", "message_type"):
            value = getattr(self, name)
            if value is not None and not _text(value):
                raise ValueError(f"{name} must be a printable text")
        if not isinstance(self.payload_metadata, Mapping):
            raise ValueError("payload_metadata must be an object")  # noqa: TRY004 - as the others


def objection(source: Principal, asked: Delegation) -> str | None:
    """Why *source* may not ask that, whatever a policy says; one word, or ``None``.

    ============================ ==================================================================
    ``not_an_agent``             the credential proves somebody else than an agent
    ``source_mismatch``          the caller says that it is another agent than its token proves
    ``environment_mismatch``     the caller says otherwise than the operator where the target is
    ``environment_crossing``     an untrusted agent asks outside its own environment, or nobody
                                 but itself knows that it does not
    ``capability_missing``       the token does not give the capability
    ``delegation_too_deep``      more than two agents stand between
    ============================ ==================================================================
    """
    if source.kind != "agent":
        return "not_an_agent"
    if asked.claimed_source not in {None, source.id}:
        return "source_mismatch"
    known, claimed = asked.environment, asked.claimed_environment
    if known is not None and claimed is not None and known != claimed:
        return "environment_mismatch"
    inside = known is not None and known == source.environment
    if source.trust_level not in _TRUSTED and not inside:
        return "environment_crossing"
    if asked.capability not in source.capabilities:
        return "capability_missing"
    if asked.depth > DEPTH_MAX:
        return "delegation_too_deep"
    return None
