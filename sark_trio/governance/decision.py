"""A policy's answer, and the one reader of all its dialects. White.

:func:`decode_decision` is total and fails closed: whatever it is handed, it answers with a
:class:`Decision`, and that allows only what the laws (2.8) call an allow. Read are a bare boolean,
or an object (a whole package document will do) with

============================= ==================================================================
``allow``                     exactly ``true`` allows
``deny``                      anything but absent, ``false`` or empty denies, whatever ``allow``
``filtered_parameters``       absent or ``null``: send as asked; ``{}``: send nothing of it
``obligations``               see ``governance.obligations``; one that is not understood denies
``reason``, ``audit_reason``  for the record; never for the model
``audit_id``, ``decision_id`` the engine's own name for this decision
``cache_ttl``                 seconds; shortens, never lengthens
============================= ==================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, final

from attrs import Attribute, evolve, field, frozen
from attrs.validators import deep_iterable, instance_of, optional

from sark_trio.governance.obligations import OBLIGATIONS, Obligation, parse_obligations

__all__ = ["DELEGATION_TTL_S", "SENSITIVITY_TTL_S", "Decision", "decode_decision", "no_decision"]

#: Characters of a reason that are kept: it goes into every audit record of the call.
REASON_CHARS_MAX: Final = 512
#: Characters of an engine's decision id; OPA's are UUIDs of 36.
ID_CHARS_MAX: Final = 128
#: Seconds for which a decision on a tool of this sensitivity may be kept, at most; ``None`` is
#: a query about no tool (original-surface 3.5).
SENSITIVITY_TTL_S: Final[Mapping[str | None, float]] = {
    None: 300.0,
    "low": 1800.0,
    "medium": 300.0,
    "high": 60.0,
    "critical": 0.0,
}
#: Seconds for which an agent's right to ask another one may be kept.
DELEGATION_TTL_S: Final = 60.0


_TEXT: Final = optional(instance_of(str))


def _check_ttl(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(value, float) and math.isnan(value)):
        raise TypeError(f"{attribute.name} must be a number of seconds, not {value!r}")


@final
@frozen(kw_only=True)
class Decision:
    """What a policy said. ``allow=False`` with ``fault`` set: it said nothing that counts.

    Checked when it is made: an application's own engine that errs in a type has not decided.

    :param arguments: the arguments to send instead; ``None`` for those that were asked about.
    :param obligations: what must be done for the allow to stand.
    :param decision_id: the engine's name for it, to find it in the engine's own log.
    :param ttl_s: seconds for which the policy lets it be kept; ``None`` if it did not say.
    :param revision: what the policy was when it said so.
    :param fault: why the answer could not be read.
    :raises TypeError: a member is of another type; an obligation is none of ours.
    """

    allow: bool = field(validator=instance_of(bool))
    reason: str = field(default="", validator=instance_of(str))
    arguments: Mapping[str, Any] | None = field(
        default=None,
        repr=False,
        validator=optional(instance_of(Mapping)),  # type: ignore[type-abstract]
    )
    obligations: tuple[Obligation, ...] = field(
        default=(), validator=deep_iterable(instance_of(OBLIGATIONS), instance_of(tuple))
    )
    decision_id: str | None = field(default=None, validator=_TEXT)
    ttl_s: float | None = field(default=None, validator=_check_ttl)
    revision: str | None = field(default=None, validator=_TEXT)
    fault: str | None = field(default=None, validator=_TEXT)


def no_decision(fault: str, *, reason: str, revision: str | None = None) -> Decision:
    """The policy has no answer: *fault* for people, *reason* as one word."""
    return Decision(allow=False, reason=reason, fault=fault, revision=revision)


def decode_decision(
    result: Any, *, decision_id: str | None = None, revision: str | None = None
) -> Decision:
    """Read *result* (JSON, as decoded). Never raises, and when in doubt does not allow."""
    return evolve(_decode(result, decision_id), revision=revision)


def _decode(result: Any, decision_id: str | None) -> Decision:
    if isinstance(result, bool):
        return Decision(allow=result, decision_id=_id(decision_id))
    if not isinstance(result, dict):
        return _unreadable(f"the result is {type(result).__name__}, not a boolean or an object")
    reason = _reason(result)
    named = _id(decision_id) or _id(result.get("decision_id")) or _id(result.get("audit_id"))
    allow = result.get("allow", False)
    if not isinstance(allow, bool):
        return _unreadable(f"'allow' is {type(allow).__name__}, not a boolean")
    denials = result.get("deny", False)
    if denials is True or (isinstance(denials, list | dict | str) and denials):
        return Decision(allow=False, reason=_denials(denials) or reason, decision_id=named)
    if denials is not False and denials not in ([], {}):
        return _unreadable(f"'deny' is {type(denials).__name__}, not a set")
    if not allow:
        missing = "" if "allow" in result else "undefined"
        return Decision(allow=False, reason=reason or missing, decision_id=named)
    arguments = result.get("filtered_parameters")
    if arguments is not None and not isinstance(arguments, dict):
        return _unreadable(f"'filtered_parameters' is {type(arguments).__name__}, not an object")
    try:
        obligations = parse_obligations(result.get("obligations"))
    except ValueError as exc:
        return _unreadable(f"obligations: {exc}")
    return Decision(
        allow=True,
        reason=reason,
        arguments=arguments,
        obligations=obligations,
        decision_id=named,
        ttl_s=_ttl(result.get("cache_ttl")),
    )


def _unreadable(fault: str) -> Decision:
    return no_decision(fault, reason="malformed")


def _reason(result: Mapping[str, Any]) -> str:
    for name in ("reason", "audit_reason"):
        value = result.get(name)
        if isinstance(value, str) and value:
            return value[:REASON_CHARS_MAX]
    return ""


def _denials(denials: Any) -> str:
    """The texts of a ``deny`` set, sorted, for the record."""
    if isinstance(denials, str):
        return denials[:REASON_CHARS_MAX]
    texts = sorted(item for item in denials if isinstance(item, str)) if denials is not True else []
    return "; ".join(texts)[:REASON_CHARS_MAX]


def _id(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= ID_CHARS_MAX else None


def _ttl(value: Any) -> float | None:
    """Seconds, at most a day; a lifetime that can not be read is none at all."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    # Compared with what stands first, NaN comes out as no lifetime.
    return float(min(max(0, value), 86_400))
