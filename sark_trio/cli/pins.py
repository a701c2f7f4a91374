"""``sark pins``: what was approved of servers' tools, what has changed, and what to do about it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import asdict

from sark_trio.cli.options import add_config, add_output, read_settings, user_name
from sark_trio.cli.output import Output
from sark_trio.cli.parsing import Commands, Parser, add_command
from sark_trio.errors import ConfigError, UnknownTool

if TYPE_CHECKING:
    from sark_trio.stores.pins import PinFile, PinnedTool

__all__ = ["add_parsers"]

#: As much of a fingerprint as people compare.
_PRINT_CHARS = 12


def add_parsers(commands: Commands) -> None:
    """The commands about pinned tools."""
    parser = add_command(commands, "pins", "tools that were approved, and that have changed")
    below = parser.add_subparsers(required=True, title="commands", metavar="COMMAND")
    listing = add_command(
        below, "list", "names the tools that are known, and how they stand", "sark pins list files"
    )
    listing.add_argument("server", nargs="?", metavar="SERVER")
    _add(listing, _list)
    diff = add_command(
        below,
        "diff",
        "shows what is different in tools that were not approved",
        "sark pins diff files",
    )
    _add_names(diff)
    _add(diff, _diff)
    approve = add_command(
        below,
        "approve",
        "lets tools be used as they are now",
        "sark pins approve files",
        "sark pins approve files read_file --fingerprint 5f2c9e01ab34",
    )
    _add_names(approve)
    _add_fingerprint(approve)
    _add(approve, _approve)
    refuse = add_command(
        below,
        "refuse",
        "does not let tools be used as they are now",
        "sark pins refuse files read_file",
    )
    _add_names(refuse)
    _add_fingerprint(refuse)
    _add(refuse, _refuse)


def _add(parser: Parser, command: Callable[[argparse.Namespace, Output], int]) -> None:
    add_config(parser)
    add_output(parser)
    parser.set_defaults(command=command)


def _add_names(parser: Parser) -> None:
    parser.add_argument("server", metavar="SERVER", help="its name in the configuration")
    parser.add_argument(
        "tool", nargs="?", metavar="TOOL", help="default: every tool that waits for a decision"
    )


def _add_fingerprint(parser: Parser) -> None:
    parser.add_argument(
        "--fingerprint",
        metavar="HEX",
        help="decide about this definition, as `sark pins diff` showed it, and about no other",
    )


def _list(options: argparse.Namespace, output: Output) -> int:
    tools = _file(options).tools(options.server)
    if output.as_json:
        output.value([asdict(one) for one in tools])
    elif tools:
        rows = [
            (one.server_name, one.tool_name, one.state, _prints(one), _since(one)) for one in tools
        ]
        output.table([("SERVER", "TOOL", "STATE", "FINGERPRINT", "APPROVED"), *rows])
    else:
        output.line("no tools are known: they are once a list of them was fetched (`sark tools`)")
    return 0


def _diff(options: argparse.Namespace, output: Output) -> int:
    known = _file(options).tools(options.server)
    tools = [one for one in known if options.tool in {None, one.tool_name}]
    if options.tool is not None and not tools:
        raise UnknownTool(f"no tool {options.tool!r} of {options.server!r} is known")
    changed = [one for one in tools if one.found is not None]
    if output.as_json:
        output.value([asdict(one) for one in changed])
        return 0
    for one in changed:
        output.line(f"{one.server_name} {one.tool_name}: {one.state} ({_prints(one)})")
        for difference in one.differences:
            output.line(f"  {difference.path}")
            for sign, text in (("-", difference.before), ("+", difference.after)):
                if text is not None:
                    output.line(f"    {sign} {text}")
    if not changed:
        output.line("nothing has changed")
    return 0


def _approve(options: argparse.Namespace, output: Output) -> int:
    names = _file(options).approve(
        options.server, options.tool, by=user_name(), fingerprint=options.fingerprint
    )
    return _decided("approved", options.server, names, output)


def _refuse(options: argparse.Namespace, output: Output) -> int:
    names = _file(options).refuse(
        options.server, options.tool, by=user_name(), fingerprint=options.fingerprint
    )
    return _decided("refused", options.server, names, output)


def _decided(what: str, server: str, names: tuple[str, ...], output: Output) -> int:
    if output.as_json:
        output.value({"server": server, what: list(names)})
    for name in names:
        output.line(f"{what} {server} {name}")
    return 0


def _file(options: argparse.Namespace) -> PinFile:
    from sark_trio.stores.pins import PinFile

    settings = read_settings(options)
    if settings.pins is None:
        raise ConfigError(
            'nothing is pinned: say [pins] path = "pins.json"', source=str(settings.source)
        )
    return PinFile(settings.pins.path)


def _prints(tool: PinnedTool) -> str:
    """``now``, or ``approved -> now``."""
    both = [one[:_PRINT_CHARS] for one in (tool.approved, tool.found) if one is not None]
    return " -> ".join(both)


def _since(tool: PinnedTool) -> str:
    return "" if tool.approved is None else f"{tool.by}, {tool.at}"
