"""Asks whoever sits at the terminal to approve a call."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from sark_trio.cli.options import user_name
from sark_trio.cli.output import one_line

if TYPE_CHECKING:
    from sark_trio.client.approving import ApprovalRequest, Approver

__all__ = ["approver_here"]


def approver_here() -> Approver | None:
    """Who approves, if there is a terminal at which to ask."""
    return _ask if sys.stdin.isatty() and sys.stderr.isatty() else None


async def _ask(request: ApprovalRequest) -> str | None:
    import anyio

    # A stranger's words: in ASCII, and on one line, they are only shown.
    arguments = json.dumps(request.arguments, indent=2, sort_keys=True)
    why = f" ({request.message})" if request.message else ""
    what = request.method if request.tool is None else request.tool
    print(
        one_line(f"{request.principal.id} wants {request.server}/{what}{why}:"),
        arguments,
        sep="\n",
        file=sys.stderr,
    )
    print("Approve? [y/N] ", end="", file=sys.stderr, flush=True)
    # A terminal hands over whole lines, so reading one does not wait once there is something.
    await anyio.wait_readable(sys.stdin)
    said = sys.stdin.readline().strip().lower()
    return user_name() if said in {"y", "yes"} else None
