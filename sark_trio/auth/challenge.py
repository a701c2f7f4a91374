"""``WWW-Authenticate`` (RFC 9110, section 11.6.1; RFC 6750, section 3; RFC 9728, section 5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, final

from attrs import field, frozen

__all__ = ["Challenge", "Challenged", "Credentials", "oauth_challenge", "parse_challenges"]

#: Longer header values are not read: no HTTP server sends them by default.
HEADER_CHARS_MAX: Final = 8_192
#: Servers offer one or two schemes.
CHALLENGES_MAX: Final = 16
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_BETWEEN: Final = re.compile(r"[ \t,]*")
_SCHEME: Final = re.compile(rf"({_WORD})(?:[ \t]+|(?=,)|\Z)")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")
# Values that should be quoted (URLs) often are not.
_PARAMETER: Final = re.compile(
    rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))(?=[ \t]*(?:,|\Z))'
)
_ESCAPE: Final = re.compile(r"\\(.)")
_OAUTH: Final = frozenset({"bearer", "dpop"})


@final
@frozen
class Challenge:
    """One challenge: its scheme in lower case, and its parameters by lower-case name."""

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)

    def get(self, name: str) -> str | None:
        """The parameter *name*, if it is there and not empty."""
        return self.parameters.get(name) or None


@final
@frozen
class Credentials:
    """What one request is to carry."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    #: Counts the tokens that we have had: tells what a refusal was about.
    generation: int = 0


@final
@frozen(kw_only=True)
class Challenged:
    """A 401 or 403, as the one who has the credentials needs to know it."""

    status: int
    #: Field values of ``WWW-Authenticate``, as they came.
    www_authenticate: tuple[str, ...] = ()
    #: Of the credentials that the request carried; see ``Credentials.generation``.
    generation: int = 0

    @property
    def reason(self) -> Literal["unauthorized", "insufficient_scope", "dpop_nonce"]:
        """Why a request would be sent again: one word each, fit for an audit record."""
        if self.challenge.get("error") == "use_dpop_nonce":
            return "dpop_nonce"
        return "unauthorized" if self.status == 401 else "insufficient_scope"

    @property
    def challenge(self) -> Challenge:
        """What an OAuth client is asked for; an empty challenge where nothing is said."""
        found = oauth_challenge(parse_challenges(self.www_authenticate))
        return found or Challenge("bearer")


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges in the field values of one response. Total: what is malformed is left out.

    Of a parameter that stands twice in a challenge the first counts.
    """
    found: list[Challenge] = []
    for value in values:
        if len(value) <= HEADER_CHARS_MAX:
            found.extend(_in_one(value))
    return tuple(found[:CHALLENGES_MAX])


def oauth_challenge(challenges: Iterable[Challenge]) -> Challenge | None:
    """The one for OAuth clients: preferably one that says where the metadata is."""
    ours = [each for each in challenges if each.scheme in _OAUTH]
    return next((each for each in ours if each.get("resource_metadata")), ours[0] if ours else None)


def _in_one(value: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] | None = None
    position = 0
    while True:
        between = _BETWEEN.match(value, position)
        position = position if between is None else between.end()
        if position >= len(value):
            return found
        parameter = _PARAMETER.match(value, position)
        if parameter is not None and parameters is not None:
            name, quoted, plain = parameter.groups()
            text = plain if quoted is None else _ESCAPE.sub(r"\1", quoted)
            parameters.setdefault(name.lower(), text)
            position = parameter.end()
        elif parameter is None and (scheme := _SCHEME.match(value, position)) is not None:
            parameters = {}
            found.append(Challenge(scheme[1].lower(), parameters))
            position = scheme.end()
            token68 = _TOKEN68.match(value, position)
            # "Negotiate, Basic": a word after a comma is the next scheme.
            if token68 is not None and value[position - 1] in " \t":
                position = token68.end()
        else:
            comma = value.find(",", position)
            position = len(value) if comma < 0 else comma
