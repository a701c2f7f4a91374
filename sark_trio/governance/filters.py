"""What may be sent of a call's arguments: hygiene first, then rules that only take away.

White. Three laws hold for every rule set and every value: filtering is *total* (a value that
passed :func:`check_arguments` is always filtered), *idempotent* (f(f(x)) = f(x)), and it *never
widens* (f(x) ⊆ x, where a redacted value stands for the value it replaced).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, final

from attrs import field, frozen
from attrs.validators import in_

from sark_trio import errors
from sark_trio.governance.paths import (
    MARK,
    PathSet,
    Trail,
    compile_paths,
    fold,
    loose_paths,
    pointer,
    trail_pointer,
)

__all__ = ["Filtered", "ParameterFilter", "ToolFacts", "Widened", "restrict"]

_DROP: Final = object()
_KEEP_ALL: Final = PathSet.of([()])
_NO_RULE: Final = PathSet.of([], loose=True)
#: Paths that a result lists; beyond it only their number is worth knowing.
LISTED_MAX: Final = 1_000


class Widened(ValueError):
    """A policy's parameters hold something that the call's arguments do not."""


def _maybe_names(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _name_set(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@final
@frozen(kw_only=True)
class ToolFacts:
    """What the operator knows of a tool. Facts only ever narrow what may be sent.

    :param parameters: names the tool declares; ``None`` where its schema admits any.
    :param sensitive_params: names whose values are secret (``ToolInfo.sensitive_params``).
    """

    parameters: frozenset[str] | None = field(default=None, converter=_maybe_names)
    sensitive_params: frozenset[str] = field(default=frozenset(), converter=_name_set)


@final
@frozen(kw_only=True)
class Filtered:
    """Arguments as they may be sent, and the RFC 6901 paths of what was taken from them."""

    arguments: dict[str, Any] = field(repr=False)
    removed: tuple[str, ...] = ()
    redacted: tuple[str, ...] = ()


def _allowed_paths(paths: PathSet | Iterable[str] | None) -> PathSet:
    if paths is None:
        return _KEEP_ALL
    if isinstance(paths, PathSet):
        return paths
    return PathSet.of(compile_paths(tuple(paths)))


@final
@frozen(kw_only=True)
class ParameterFilter:
    """Rules over the arguments of a call. Their order does not matter: deny beats redact beats
    allow.

    :param allow: paths that may pass, with all below them; ``None`` for every path. Matched
        exactly, so that a look-alike of an allowed name does not pass.
    :param deny: paths that are removed. Matched without regard to case or width.
    :param redact: paths whose values become ``"[redacted]"``. Matched as *deny*.
    :param sensitive: what becomes of the tool's ``sensitive_params``.
    :param unknown: what becomes of parameters that the tool does not declare.
    :raises ValueError: a path is not a path.
    """

    allow: PathSet = field(default=_KEEP_ALL, converter=_allowed_paths, repr=False)
    deny: PathSet = field(default=_NO_RULE, converter=loose_paths, repr=False)
    redact: PathSet = field(default=_NO_RULE, converter=loose_paths, repr=False)
    sensitive: Literal["strip", "redact", "keep"] = field(
        default="strip", validator=in_(("strip", "redact", "keep"))
    )
    unknown: Literal["refuse", "strip", "keep"] = field(
        default="refuse", validator=in_(("refuse", "strip", "keep"))
    )

    def apply(self, arguments: Mapping[str, Any], facts: ToolFacts | None = None) -> Filtered:
        """A fresh copy of *arguments* without what the rules take away.

        The arguments must have passed :func:`check_arguments`.

        :raises errors.InvalidArguments: ``unknown="refuse"`` and a parameter is not declared.
        """
        facts = facts if facts is not None else ToolFacts()
        sweep = _Sweep()
        kept: dict[str, Any] = {}
        secret = {fold(name) for name in facts.sensitive_params}
        for name, value in arguments.items():
            if not self._declared(name, facts):
                sweep.note(sweep.removed, (None, name))
                continue
            if fold(name) in secret and self.sensitive != "keep":
                if self.sensitive == "redact":
                    kept[name] = MARK
                    sweep.note(sweep.redacted, (None, name))
                else:
                    sweep.note(sweep.removed, (None, name))
                continue
            left = sweep.value(
                value,
                (None, name),
                self.allow if self.allow.ends else self.allow.member(name),
                self.deny.member(name) or _NO_RULE,
                self.redact.member(name) or _NO_RULE,
            )
            if left is not _DROP:
                kept[name] = left
        return Filtered(
            arguments=kept, removed=tuple(sweep.removed), redacted=tuple(sweep.redacted)
        )

    def _declared(self, name: str, facts: ToolFacts) -> bool:
        if facts.parameters is None or name in facts.parameters or self.unknown == "keep":
            return True
        if self.unknown == "refuse":
            raise errors.InvalidArguments(f"{pointer([name])}: the tool has no such parameter")
        return False


@final
class _Sweep:
    """One walk over a value, three rule sets in step with it."""

    __slots__ = ("redacted", "removed")

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.redacted: list[str] = []

    def value(
        self, value: Any, trail: Trail, allow: PathSet | None, deny: PathSet, redact: PathSet
    ) -> Any:
        """What is left of *value*, or ``_DROP``."""
        if allow is None or deny.ends:
            return self._drop(trail)
        if redact.ends:
            self.note(self.redacted, trail)
            return MARK
        if isinstance(value, dict):
            return self._object(value, trail, allow, deny, redact)
        if isinstance(value, list | tuple):
            return self._array(value, trail, allow, deny, redact)
        # Only something *below* is allowed, and a leaf has nothing below it.
        if not allow.ends:
            return self._drop(trail)
        return value

    def _object(
        self, value: dict[str, Any], trail: Trail, allow: PathSet, deny: PathSet, redact: PathSet
    ) -> dict[str, Any]:
        kept = {}
        for name, item in value.items():
            left = self.value(
                item,
                (trail, name),
                allow if allow.ends else allow.member(name),
                deny.member(name) or _NO_RULE,
                redact.member(name) or _NO_RULE,
            )
            if left is not _DROP:
                kept[name] = left
        return kept

    def _array(
        self, value: Iterable[Any], trail: Trail, allow: PathSet, deny: PathSet, redact: PathSet
    ) -> list[Any]:
        below = allow if allow.ends else allow.element()
        denied = deny.element() or _NO_RULE
        masked = redact.element() or _NO_RULE
        swept = (
            self.value(item, (trail, index), below, denied, masked)
            for index, item in enumerate(value)
        )
        return [left for left in swept if left is not _DROP]

    def _drop(self, trail: Trail) -> object:
        self.note(self.removed, trail)
        return _DROP

    @staticmethod
    def note(listed: list[str], trail: Trail) -> None:
        if len(listed) < LISTED_MAX:
            listed.append(trail_pointer(trail))


def restrict(arguments: Any, wanted: Any) -> Any:
    """The part of *arguments* that *wanted* names: how a policy's own parameters are obeyed.

    An object may lose members, an array may lose elements; nothing may be added, changed or
    moved. The leaves returned are those of *arguments*, so a number that an engine wrote
    differently (``1`` for ``1.0``) is sent as the caller gave it.

    :raises Widened: *wanted* holds something that *arguments* does not; the message is its path.
    """
    return _restrict(arguments, wanted, None)


def _restrict(have: Any, want: Any, trail: Trail | None) -> Any:
    if isinstance(want, dict):
        if not isinstance(have, dict):
            raise Widened(trail_pointer(trail))
        for name in want:
            if name not in have:
                raise Widened(trail_pointer((trail, name)))
        return {name: _restrict(have[name], want[name], (trail, name)) for name in want}
    if isinstance(want, list):
        if not isinstance(have, list | tuple):
            raise Widened(trail_pointer(trail))
        return _subsequence(have, want, trail)
    if isinstance(have, bool | str | None) or isinstance(want, bool | str | None):
        same = type(have) is type(want) and have == want
    else:
        try:
            same = isinstance(have, int | float) and (have == want or float(have) == float(want))
        except (OverflowError, TypeError, ValueError):
            same = False
    if not same:
        raise Widened(trail_pointer(trail))
    return have


def _subsequence(have: Iterable[Any], want: list[Any], trail: Trail | None) -> list[Any]:
    """Elements of *have* that match *want* in order; each is looked at once (greedy is exact)."""
    kept: list[Any] = []
    for item in have:
        if len(kept) == len(want):
            break
        with suppress(Widened):
            kept.append(_restrict(item, want[len(kept)], (trail, len(kept))))
    if len(kept) < len(want):
        raise Widened(trail_pointer((trail, len(kept))))
    return kept
