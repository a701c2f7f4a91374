"""``sark``: the client on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sark_trio import errors
from sark_trio.cli import audit, calls, policy
from sark_trio.cli.demo import story
from sark_trio.cli.output import Output, exit_code

__all__ = ["main"]

_EPILOG = """\
exit status: 0 done; 1 the tool failed, or the log is not whole; 2 wrong usage or configuration;
3 denied; 4 the server could not be reached or broke the protocol; 5 no answer in time, or it is
unknown whether the call happened; 6 the audit log; 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    options = _parser().parse_args(arguments)
    output = Output(as_json=options.json is not None and options.json is not False)
    try:
        return int(options.command(options, output))
    except errors.GatewayError as exc:
        output.error(exc)
        return exit_code(exc)
    except KeyboardInterrupt:
        print("sark: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more at exit.
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sark",
        description="Governed calls of MCP tools: decided, recorded, made in time, recorded again.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    story.add_parser(commands)
    calls.add_parsers(commands)
    audit.add_parsers(commands)
    policy.add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
