"""What a policy may ask for beside its answer: a small closed set. White.

An obligation that is not understood can not be met, so a decision that carries one is no
decision. Most only take away: from the arguments before they are sent, from the result before
it is seen. One asks for a person's word before anything is sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

from attrs import field, frozen

from sark_trio.governance.controls import ControlStripper
from sark_trio.governance.filters import Filtered, ParameterFilter
from sark_trio.governance.redact import Redacted, Redactor, cap_result

__all__ = [
    "OBLIGATIONS",
    "LimitResult",
    "Obligation",
    "RedactResult",
    "RequireApproval",
    "StripControls",
    "StripParameters",
    "apply_obligations",
    "approval_wanted",
    "parse_obligations",
    "strip_parameters",
]

#: Obligations of one decision.
OBLIGATIONS_MAX: Final = 64
#: Characters of the words for whoever approves: a few sentences.
MESSAGE_CHARS_MAX: Final = 1024


@final
@frozen
class RedactResult:
    """``{"type": "redact_result", "paths": [...], "keys": [...], "patterns": [...]}``."""

    redactor: Redactor


@final
@frozen
class StripControls:
    """``{"type": "strip_controls"}``."""

    redactor: ControlStripper = field(factory=ControlStripper)


@final
@frozen
class StripParameters:
    """``{"type": "strip_parameters", "paths": [...]}``."""

    rules: ParameterFilter


@final
@frozen
class LimitResult:
    """``{"type": "limit_result", "bytes_max": 65536}``."""

    bytes_max: int = field()

    @bytes_max.validator
    def _check(self, _: object, value: object) -> None:
        if type(value) is not int or value < 0:
            raise ValueError("bytes_max must be an integer of at least 0")


@final
@frozen
class RequireApproval:
    """``{"type": "require_approval", "message": "moves money"}``: the call waits for a person.

    :param message: for whoever decides.
    """

    message: str = field(default="")

    @message.validator
    def _check(self, _: object, value: object) -> None:
        if not isinstance(value, str) or len(value) > MESSAGE_CHARS_MAX:
            raise ValueError(f"message must be a text of at most {MESSAGE_CHARS_MAX} characters")


Obligation = StripControls | RedactResult | StripParameters | LimitResult | RequireApproval
#: The same, to check at run time.
OBLIGATIONS: Final = (StripControls, RedactResult, StripParameters, LimitResult, RequireApproval)
#: Those that are about results, in turn: what hides in a text hides it from the patterns of
#: redaction, and what is left in the end is measured.
_TURNS: Final = (StripControls, RedactResult, LimitResult)


def _redact(members: dict[str, Any]) -> RedactResult:
    lists = {name: _texts(name, members.pop(name, [])) for name in ("paths", "keys", "patterns")}
    if not any(lists.values()):
        raise ValueError("redact_result names nothing to redact")
    return RedactResult(Redactor(**lists))


def _strip(members: dict[str, Any]) -> StripParameters:
    paths = _texts("paths", members.pop("paths", None))
    return StripParameters(ParameterFilter(deny=paths, sensitive="keep"))


def _limit(members: dict[str, Any]) -> LimitResult:
    return LimitResult(members.pop("bytes_max", None))


_KINDS: Final[dict[str, Callable[[dict[str, Any]], Obligation]]] = {
    "redact_result": _redact,
    "strip_controls": lambda _members: StripControls(),
    "strip_parameters": _strip,
    "limit_result": _limit,
    "require_approval": lambda members: RequireApproval(members.pop("message", "")),
}


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} must be a list of texts")
    return value


def parse_obligations(value: Any) -> tuple[Obligation, ...]:
    """The obligations of a decision; ``None`` is none.

    :raises ValueError: not a list, an unknown type, an unknown or malformed member.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > OBLIGATIONS_MAX:
        raise ValueError(f"obligations must be a list of at most {OBLIGATIONS_MAX}")
    return tuple(_parse(item) for item in value)


def _parse(item: Any) -> Obligation:
    members = dict(item) if isinstance(item, dict) else {}
    kind = members.pop("type", None)
    build = _KINDS.get(kind) if isinstance(kind, str) else None
    if build is None:
        raise ValueError(f"unknown obligation {kind!r:.80}")
    obligation = build(members)
    if members:
        raise ValueError(f"{kind} has unknown members {sorted(members)!r:.80}")
    return obligation


def approval_wanted(obligations: Iterable[Obligation]) -> RequireApproval | None:
    """The first that asks for a person's word: one word is enough for all of them."""
    return next((one for one in obligations if isinstance(one, RequireApproval)), None)


def strip_parameters(arguments: Mapping[str, Any], obligations: Iterable[Obligation]) -> Filtered:
    """*arguments* without what the obligations strip, in a copy."""
    removed: list[str] = []
    filtered = Filtered(arguments=dict(arguments))
    for obligation in obligations:
        if isinstance(obligation, StripParameters):
            filtered = obligation.rules.apply(filtered.arguments)
            removed += filtered.removed
    return Filtered(arguments=filtered.arguments, removed=tuple(removed))


def apply_obligations(result: Mapping[str, Any], obligations: Iterable[Obligation]) -> Redacted:
    """*result* as the obligations let it be seen; errors of a tool (``isError``) too.

    What is not seen goes first; limits come last and measure what is left.

    :raises ValueError: the result cannot be what an obligation demands.
    """
    counts: Counter[str] = Counter()
    mine = [one for one in obligations if isinstance(one, _TURNS)]
    for obligation in sorted(mine, key=lambda one: _TURNS.index(type(one))):
        if isinstance(obligation, LimitResult):
            step = cap_result(result, obligation.bytes_max)
        else:
            step = obligation.redactor.result(result)
        result = step.value
        counts.update(dict(step.counts))
    return Redacted(result, tuple(sorted(counts.items())))
