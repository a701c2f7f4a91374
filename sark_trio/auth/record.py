"""What is kept between runs about one MCP server: registrations and tokens, by issuer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from attrs import asdict, evolve, field, frozen

from sark_trio import jsontext
from sark_trio.auth.registration import ClientIdentity
from sark_trio.auth.scopes import parse_scope
from sark_trio.auth.token import TokenSet
from sark_trio.errors import ConfigError

__all__ = ["Grant", "Record", "parse_record", "record_text"]

#: Issuers that are remembered for one server; the oldest is forgotten first.
ISSUERS_MAX: Final = 8
_VERSION: Final = 1


@final
@frozen(kw_only=True)
class Grant:
    """What one issuer gave us."""

    #: A configured secret is not copied into it.
    client: ClientIdentity | None = None
    tokens: TokenSet | None = None
    #: Where the tokens came from, and are refreshed.
    token_endpoint: str = ""
    #: What the tokens are for, as the server published it.
    resource: str = ""


@final
@frozen(kw_only=True)
class Record:
    """All grants for one server. Nothing of one issuer is ever used at another."""

    #: The issuer whose token is presented.
    issuer: str | None = None
    #: The issuer that configured credentials were first used at.
    bound: str | None = None
    grants: Mapping[str, Grant] = field(factory=dict)
    #: The private DPoP key (JWK): tokens are bound to it.
    key: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def grant(self) -> Grant:
        """The present issuer's; empty where there is none."""
        return self.at(self.issuer)

    def at(self, issuer: str | None) -> Grant:
        """What *issuer* gave us."""
        return self.grants.get(issuer or "") or Grant()

    def using(self, issuer: str, grant: Grant) -> Record:
        """The record in which *issuer* is the present one, and gave *grant*."""
        others = {name: each for name, each in self.grants.items() if name != issuer}
        kept = dict(list(others.items())[-(ISSUERS_MAX - 1) :])
        return evolve(self, issuer=issuer, grants={**kept, issuer: grant})


def record_text(record: Record) -> str:
    """*record* as it is stored. Full of secrets."""
    value = {"version": _VERSION, **asdict(record)}
    return jsontext.encode(value).decode("utf-8")


def parse_record(text: str) -> Record:
    """The record in *text*.

    :raises ConfigError: it is none.
    """
    try:
        value = jsontext.decode_strict(text)
        if value["version"] != _VERSION:
            raise ValueError
        return Record(
            issuer=_optional(value["issuer"]),
            bound=_optional(value["bound"]),
            grants={str(name): _grant(each) for name, each in value["grants"].items()},
            key=value["key"],
        )
    # Of whatever kind the damage is; and no text of it, which may be a secret.
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError("the stored tokens cannot be read; sign in again") from None


def _grant(value: Mapping[str, Any]) -> Grant:
    client, tokens = value["client"], value["tokens"]
    if tokens is not None:
        scopes = {name: parse_scope(" ".join(tokens[name])) for name in ("scopes", "requested")}
        tokens = TokenSet(**{**tokens, **scopes})
    return Grant(
        client=None if client is None else ClientIdentity(**client),
        tokens=tokens,
        resource=str(value["resource"]),
        token_endpoint=str(value["token_endpoint"]),
    )


def _optional(value: object) -> str | None:
    return None if value is None else str(value)
