"""How a policy in Rego is kept in a process of its own."""

from __future__ import annotations

from typing import Final, final

from attrs import field, frozen

from sark_trio.machines.checks import between, whole

__all__ = ["Isolation"]

#: Less would not hold one question and its answer.
MEMORY_BYTES_MIN: Final = 16 << 20


@final
@frozen(kw_only=True)
class Isolation:
    """Evaluate in child processes (Linux), so that a policy which does not end, or which takes
    all memory, costs a child and a denial instead of the event loop.

    :param evaluation_s: longest evaluation; then the child is killed, and the answer is a no.
    :param memory_bytes_max: what evaluating may take beyond the loaded policy (``RLIMIT_AS``).
    :param processes: children, and so questions that are evaluated at the same time; each is
        started when it is first needed.
    :raises ValueError: an option is out of its bounds.
    """

    evaluation_s: float = field(default=0.5, validator=between(0.001, 60))
    memory_bytes_max: int = field(default=256 << 20, validator=whole(MEMORY_BYTES_MIN, 1 << 46))
    processes: int = field(default=2, validator=whole(1, 64))
