"""Each start of a program of ours is in the audit log: which server's, what, and as which process.

The whole command goes into it under the key of the deployment, since an argument may be a secret:
who knows the command can compare, nobody can read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from attrs import evolve, frozen

from sark_trio.client.servers import Server, Stdio
from sark_trio.stores.audit import AuditLog
from sark_trio.transports.process import ChildProcess, Spawn

__all__ = ["recorded"]


def recorded(name: str, server: Server, audit: AuditLog) -> Server:
    """*server*, whose processes are recorded as they start, where it has any."""
    if not isinstance(server, Stdio) or isinstance(server.spawn, _Recorded):
        return server
    return evolve(server, spawn=_Recorded(name, audit, server.spawn or ChildProcess.spawn))


@final
@frozen
class _Recorded:
    """A :class:`~sark_trio.transports.process.Spawn` that tells the log."""

    name: str
    audit: AuditLog
    spawn: Spawn

    def __call__(
        self, command: Sequence[str], *, env: Mapping[str, str], **options: Any
    ) -> ChildProcess:
        """Start *command*, and record that once it runs."""
        child = self.spawn(command, env=env, **options)
        whole = self.audit.reference("\0".join(command))
        details = {"server": self.name, "program": command[0], "command": whole, "pid": child.pid}
        self.audit.event_nowait("program_started", details)
        return child
