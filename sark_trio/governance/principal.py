"""Who asks: facts about a caller that a policy may decide on. White.

A principal never holds the token that proved it, and its ``repr`` shows nothing but its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, Self, final, get_args

from attrs import Attribute, field, frozen

from sark_trio import jsontext

__all__ = ["Kind", "Principal", "SupportsVerify"]

Kind = Literal["user", "agent", "service", "anonymous"]

#: Characters of an id: longer than any e-mail address, URN or DID in use.
ID_CHARS_MAX = 512
#: Roles, permissions or teams of one principal; tokens with more do not fit a header anyway.
NAMES_MAX = 1_000
#: Values in the claims that are kept.
CLAIM_NODES_MAX = 1_000


class SupportsVerify(Protocol):
    """What :meth:`Principal.from_token` needs of a verifier (see ``governance.jwt``)."""

    def verify_nowait(self, token: str, now_wall: float) -> Principal:
        """The principal that *token* proves, with the keys at hand."""


def _names(values: Iterable[str]) -> tuple[str, ...]:
    names = (values,) if isinstance(values, str) else tuple(values)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("roles, permissions, teams and capabilities must be texts")
    if len(names) > NAMES_MAX:
        raise ValueError(f"more than {NAMES_MAX} roles, permissions, teams or capabilities")
    return tuple(sorted(set(names)))


def _claims(values: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        jsontext.check_bounds(dict(values), nodes_max=CLAIM_NODES_MAX)
    except jsontext.JSONError as exc:
        raise ValueError(f"claims: {exc}") from None
    return dict(values)


def _check_id(_: object, __: object, value: str) -> None:
    if type(value) is not str or not 0 < len(value) <= ID_CHARS_MAX:
        raise ValueError(f"id must be a text of 1 to {ID_CHARS_MAX} characters")
    if not value.isprintable():
        raise ValueError("id must not hold control, bidirectional or invisible characters")


def _check_kind(_: object, __: object, value: object) -> None:
    if value not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}")


def _check_text(_: object, attribute: Attribute[str | None], value: object) -> None:
    if value is not None and type(value) is not str:
        raise ValueError(f"{attribute.name} must be a text")


def _check_time(_: object, attribute: Attribute[float | None], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{attribute.name} must be a number of seconds")


@final
@frozen(kw_only=True)
class Principal:
    """A caller, as far as decisions and records need to know it.

    Roles, permissions and teams are sorted and free of duplicates: equal principals make equal
    policy inputs.

    :param id: the stable name of the caller (a token's ``sub``), never a piece of a token.
    :param claims: only those claims of the token that the operator listed.
    :param trust_level: of an agent: ``trusted``, ``limited`` or ``untrusted``.
    :param environment: of an agent: where it runs.
    :param agent_type: of an agent: ``service``, ``worker`` or ``query``.
    :param capabilities: of an agent: what it may ask of others.
    :param credential_hash: SHA-256 of the credential, to keep caches of two credentials apart.
    :param expires_at: when the credential proves nothing any more, in seconds since the Unix
        epoch; ``None``: it has no end. No fact about the caller: two that differ in it alone are
        equal.
    :raises ValueError: an empty or overlong id, an unknown kind, or facts that are not plain JSON.
    """

    id: str = field(validator=_check_id)
    kind: Kind = field(default="user", validator=_check_kind)
    roles: tuple[str, ...] = field(default=(), converter=_names, repr=False)
    permissions: tuple[str, ...] = field(default=(), converter=_names, repr=False)
    teams: tuple[str, ...] = field(default=(), converter=_names, repr=False)
    email: str | None = field(default=None, validator=_check_text, repr=False)
    claims: Mapping[str, Any] = field(factory=dict, converter=_claims, repr=False, hash=False)
    trust_level: str | None = field(default=None, validator=_check_text, repr=False)
    environment: str | None = field(default=None, validator=_check_text, repr=False)
    agent_type: str | None = field(default=None, validator=_check_text, repr=False)
    capabilities: tuple[str, ...] = field(default=(), converter=_names, repr=False)
    credential_hash: str | None = field(default=None, validator=_check_text, repr=False)
    expires_at: float | None = field(
        default=None, validator=_check_time, repr=False, eq=False, hash=False
    )

    @property
    def key(self) -> str:
        """Which caller it is, whatever they know and have to show today: a newer token of the same
        caller makes no other one.
        """
        return f"{self.kind}:{self.id}"

    @classmethod
    def anonymous(cls) -> Self:
        """The caller of whom nothing is known: no role, no permission."""
        return cls(id="anonymous", kind="anonymous")

    @classmethod
    def from_token(cls, token: str, verifier: SupportsVerify, *, now_wall: float) -> Principal:
        """The principal that *token* proves, where *verifier* has its keys at hand.

        :param now_wall: seconds since the Unix epoch.
        :raises errors.Denied: the token proves nothing; ``reason`` says why.
        """
        return verifier.verify_nowait(token, now_wall)

    @classmethod
    def from_claims(
        cls,
        claims: Mapping[str, Any],
        *,
        keep: Iterable[str] = (),
        credential_hash: str | None = None,
        expires_at: float | None = None,
    ) -> Self:
        """The principal that *verified* claims describe.

        Read are ``sub``, ``email``, ``role``/``roles``, ``permissions``/``scope``/``scp``,
        ``teams``/``groups``; for agents ``agent_id``, ``trust_level``, ``environment``,
        ``agent_type``, ``capabilities``. A claim of another type than expected is an error, not
        an absence: half-read rights are wrong rights.

        :param keep: names of further claims that policies may see.
        :raises ValueError: no usable id, or a claim of the wrong type.
        """
        agent = claims.get("agent_id")
        kind: Kind = "user" if agent is None else "agent"
        if agent is None and "sub" not in claims and "client_id" in claims:
            kind = "service"
        identity = agent if agent is not None else claims.get("sub", claims.get("client_id"))
        return cls(
            id=identity if isinstance(identity, str) else "",
            kind=kind,
            roles=_list(claims, "role", "roles"),
            permissions=_list(claims, "permissions", "scope", "scp"),
            teams=_list(claims, "teams", "groups"),
            email=_text(claims, "email"),
            trust_level=_text(claims, "trust_level"),
            environment=_text(claims, "environment"),
            agent_type=None if agent is None else _text(claims, "agent_type"),
            capabilities=() if agent is None else _list(claims, "capabilities"),
            claims={name: claims[name] for name in sorted(set(keep)) if name in claims},
            credential_hash=credential_hash,
            expires_at=expires_at,
        )


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"claim {name} must be a text")
    return value


def _list(claims: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Texts of all *names*; one text is split at spaces (RFC 8693 section 4.2, ``scope``)."""
    found: list[str] = []
    for name in names:
        value = claims.get(name)
        if isinstance(value, str):
            found += value.split() if name in {"scope", "scp"} else [value]
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            found += value
        elif value is not None:
            raise ValueError(f"claim {name} must be a text or a list of texts")
    return tuple(found)
