"""``python -m sark_trio`` is ``sark``."""

from __future__ import annotations

import sys

from sark_trio.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
