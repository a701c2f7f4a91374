"""``sark serve``: the command line of the gateway."""

from __future__ import annotations

import argparse

from sark_trio.cli.options import add_audit, add_client
from sark_trio.cli.output import Output
from sark_trio.cli.parsing import Commands, add_command

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """``sark serve``."""
    parser = add_command(
        commands,
        "serve",
        "serve the configured servers to others",
        "sark serve --port 0",
        "sark serve --host 0.0.0.0 --config gateway.toml",
        "sark serve --stdio",
    )
    parser.add_argument("--host", help="address to listen on; default: [gateway], or 127.0.0.1")
    parser.add_argument("--port", type=int, help="0 takes a free one; default: [gateway], or 8080")
    parser.add_argument(
        "--stdio",
        action="store_true",
        help="speak MCP on standard input and output, with the host that starts this",
    )
    parser.set_defaults(command=_serve, json=None)
    add_audit(parser)
    add_client(parser)


def _serve(options: argparse.Namespace, output: Output) -> int:
    from sark_trio.cli.serving import run_gateway

    return run_gateway(options, output)
