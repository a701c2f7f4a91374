"""Decides and records, never sends.

What a policy decides on is a :class:`~.query.Query`; what it says is a
:class:`~.decision.Decision`; what is done about it is a :class:`~.pipeline.Verdict`. Nothing here
knows MCP, a wire or a clock.
"""

from __future__ import annotations
