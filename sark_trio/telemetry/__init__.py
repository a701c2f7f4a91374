"""What happens in here, told to whoever wants to know. Grey: no clock, no I/O, no event loop.

Sources make an :class:`~.events.Event` and hand it to an :class:`~.hooks.Emitter`, which tells
each hook. Without hooks there is no emitter, and a source does nothing but see that.

Telemetry is best effort and never in the way. What must not be lost is in the audit log, which
shares nothing with it.
"""

from __future__ import annotations
