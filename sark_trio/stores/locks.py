"""A lock that programs share: a file beside the one that they take turns with. Blocks.

The kernel lets go of it when whoever holds it ends, however that happens.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["open_lock", "try_lock"]


def open_lock(path: Path) -> int:
    """A descriptor to lock; whoever closes it has let go.

    :raises OSError: it cannot be had. A link is none: it could lead to another one's file.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int) -> bool:
    """Take the lock; ``False`` where somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
