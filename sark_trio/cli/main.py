"""``sark``: the client on the command line.

Every way out is an exit status and, if something went wrong, one line on standard error that
says what to do about it:

=== ===============================================================================
0   done
1   the tool says that it failed, the audit log is not whole, the demo did not hold
2   wrong usage or configuration
3   denied
4   a server could not be reached, refused, or broke the protocol
5   no answer in time, or it is unknown whether the call happened
6   the audit log cannot be read or written
70  a bug of ours (``EX_SOFTWARE`` of sysexits.h)
74  this machine could not: a full disk, for one (``EX_IOERR``)
130 interrupted (128 + SIGINT, as shells say it); 143 by SIGTERM, 129 by SIGHUP
=== ===============================================================================
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sark_trio import errors
from sark_trio.cli import audit, calls, demo, login, offers, pins, policy, serve
from sark_trio.cli.output import Output, exit_code, one_line, open_streams
from sark_trio.cli.parsing import Formatter, Parser, Version, parse

__all__ = ["main", "make_parser"]

_EPILOG = """\
exit status: 0 done; 1 the tool failed, or the log is not whole; 2 wrong usage
or configuration; 3 denied; 4 the server could not be reached or broke the
protocol; 5 no answer in time, or it is unknown whether the call happened;
6 the audit log; 70 a bug of ours; 74 this machine could not (a full disk);
130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    open_streams()
    options = parse(make_parser(), arguments)
    output = Output(as_json=options.json is not None and options.json is not False)
    try:
        status = int(options.command(options, output))
        sys.stdout.flush()
    except errors.GatewayError as exc:
        output.error(exc)
        return exit_code(exc)
    except KeyboardInterrupt as exc:
        print("sark: interrupted", file=sys.stderr)
        return int(getattr(exc, "status", 130))  # an `Interrupted` knows the signal
    except BrokenPipeError:
        # Whoever reads our output has seen enough. Python would try again at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as exc:
        print(one_line(f"sark: {exc} (make room or mend permissions)"), file=sys.stderr)
        return 74
    except Exception as exc:
        if os.environ.get("SARK_TRACEBACK"):
            raise
        what = one_line(f"{type(exc).__name__}: {exc}")
        print(f"sark: a bug: {what} (set SARK_TRACEBACK=1 to see where)", file=sys.stderr)
        return 70
    return status


def make_parser() -> Parser:
    """All commands and their options."""
    parser = Parser(
        prog="sark",
        description="Governed calls of MCP tools: decided, recorded, made in time, recorded again.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action=Version)
    commands = parser.add_subparsers(required=True, title="commands", metavar="COMMAND")
    demo.add_parser(commands)
    calls.add_parsers(commands)
    offers.add_parsers(commands)
    audit.add_parsers(commands)
    policy.add_parsers(commands)
    serve.add_parser(commands)
    login.add_parsers(commands)
    pins.add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
