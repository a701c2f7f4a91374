"""``[pins]`` of a configuration file: where approved tools are kept, and what if one changes."""

from __future__ import annotations

from pathlib import Path

from sark_trio.client.pins import Pins
from sark_trio.client.table import Table
from sark_trio.errors import ConfigError

__all__ = ["read_pins"]


def read_pins(table: Table, path: Path) -> Pins:
    """The settings in *table*, a relative file being relative to *path*.

    :raises ConfigError: a value that cannot be, or a key that nothing reads.
    """
    table.only("path", "mode", "first_use")
    file = path.parent / table.take("path", str)
    mode = table.take("mode", str, "refuse")
    first_use = table.take("first_use", bool, default=True)
    try:
        return Pins(file, mode=mode, first_use=first_use)
    except ConfigError as exc:
        raise table.error(exc.message, at="mode") from exc
