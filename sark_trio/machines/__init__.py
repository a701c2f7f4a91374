"""Generic state machines: what to do, never doing it. They know neither MCP nor HTTP.

The rules of this room, stated once:

- White: synchronous and pure. Time comes in as ``now`` (monotonic seconds, first argument),
  chance as ``jitter`` in [0, 1). A ``now`` that is before the last one counts as the last one.
- Options are keyword-only and validated at construction; limits are named and finite.
- Outputs are frozen values that say what to do; there are no callbacks.
- Transitions are a literal table, which the machine obeys and the documentation draws.
- Total: no event raises. Misuse changes nothing and is answered by a ``Fault``.
- ``next_deadline()`` is the next time at which mere waiting changes something, or ``None``.
- ``check_invariants()`` raises ``AssertionError`` where a state cannot be;
  ``statistics()`` is a frozen snapshot; ``repr()`` is one line.
"""
