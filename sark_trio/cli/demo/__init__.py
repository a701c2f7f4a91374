"""``sark demo``: the whole product at work on real servers, in half a minute."""

from __future__ import annotations

import argparse

from sark_trio.cli.output import Output
from sark_trio.cli.parsing import Commands, add_command

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """``sark demo``."""
    demo = add_command(commands, "demo", "see it work, offline, in half a minute", "sark demo")
    demo.add_argument("--backend", choices=("trio", "asyncio"), default="trio")
    demo.set_defaults(command=_demo, json=None)


def _demo(options: argparse.Namespace, output: Output) -> int:
    from sark_trio.cli.demo.story import tell

    return tell(options, output)
