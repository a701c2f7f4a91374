"""Which scopes to ask for, and how often to ask for more (MCP 2026-07-28, "Scope Selection")."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final

from attrs import define, field

__all__ = ["OFFLINE", "StepUps", "first_scopes", "more_scopes", "parse_scope", "with_offline"]

OFFLINE: Final = "offline_access"
#: RFC 6749, section 3.3.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,500}")
#: Of one request; more are not asked for.
SCOPES_MAX: Final = 200


def parse_scope(text: object) -> tuple[str, ...]:
    """The scopes in *text*, each once, in their order. Total: what cannot be one is left out."""
    words = text.split(" ") if isinstance(text, str) else ()
    good = (word for word in words if _SCOPE.fullmatch(word))
    return tuple(dict.fromkeys(good))[:SCOPES_MAX]


def first_scopes(
    configured: tuple[str, ...] | None, challenged: str | None, supported: tuple[str, ...] | None
) -> tuple[str, ...]:
    """What to ask for first; empty: the parameter is left out.

    What the operator says, else what the challenge does, else all that the resource has.
    """
    if configured is not None:
        return configured
    return parse_scope(challenged) or parse_scope(" ".join(supported or ()))


def more_scopes(before: Iterable[str], challenged: str | None) -> tuple[str, ...]:
    """What was asked for before and what is asked of us now: no permission gets lost."""
    return tuple(dict.fromkeys([*before, *parse_scope(challenged)]))[:SCOPES_MAX]


def with_offline(scopes: tuple[str, ...], supported: tuple[str, ...] | None) -> tuple[str, ...]:
    """*scopes* and the one for refresh tokens, where the authorization server has it.

    Not where there are no others: alone it would replace the scopes that one gets unasked.
    """
    wanted = scopes and OFFLINE in (supported or ()) and OFFLINE not in scopes
    return (*scopes, OFFLINE) if wanted else scopes


@final
@define
class StepUps:
    """Counts the step-ups for each set of scopes, so that no server sends us in circles.

    :param tries_max: authorizations for the same challenge.
    """

    tries_max: int = 2
    #: Challenges that are remembered; beyond that, further ones are refused.
    challenges_max: int = 64
    _tries: dict[frozenset[str], int] = field(factory=dict, init=False)

    def may_try(self, granted: Iterable[str], challenged: tuple[str, ...]) -> bool:
        """Whether authorizing anew can help, which is counted as done.

        It cannot where nothing is asked for, or nothing that was not granted already.
        """
        wanted = frozenset(challenged)
        tried = self._tries.get(wanted, 0)
        full = tried == 0 and len(self._tries) >= self.challenges_max
        if wanted <= set(granted) or tried >= self.tries_max or full:
            return False
        self._tries[wanted] = tried + 1
        return True
