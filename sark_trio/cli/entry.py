"""The first thing that runs of ``sark``: who interrupts it while it still loads hears so, too."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command; return its exit status."""
    try:
        # Here, for it is the part that takes time.
        from sark_trio.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("sark: interrupted", file=sys.stderr)
        return 130
