"""``sark policy eval``: what would the policy say?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import anyio

from sark_trio.cli.options import add_client_options, add_output, open_client
from sark_trio.cli.output import Output
from sark_trio.errors import ConfigError

__all__ = ["add_parsers"]


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands about the policy."""
    policy = commands.add_parser("policy", help="ask the policy without calling anything")
    parsers = policy.add_subparsers(required=True, metavar="COMMAND")
    evaluate = parsers.add_parser("eval", help="decide on one call, and send nothing")
    evaluate.add_argument("server")
    evaluate.add_argument("tool")
    evaluate.add_argument(
        "arguments", nargs="?", default="{}", help="JSON, @FILE, or - for standard input"
    )
    evaluate.set_defaults(command=_eval)
    add_output(evaluate)
    add_client_options(evaluate)


def _eval(options: argparse.Namespace, output: Output) -> int:
    client = open_client(options)
    arguments = _arguments(options.arguments)

    async def main() -> int:
        async with client:
            verdict = await client.explain(options.server, options.tool, arguments)
        facts = {
            "allow": verdict.allow,
            "reason": verdict.reason,
            "fault": verdict.fault,
            "arguments": verdict.arguments,
            "removed": list(verdict.removed),
            "redacted": list(verdict.redacted),
            "obligations": [repr(one) for one in verdict.obligations],
            "decision_id": verdict.decision_id,
            "revision": verdict.revision,
        }
        output.value({name: value for name, value in facts.items() if value not in (None, [], "")})
        return 0 if verdict.allow else 3

    return anyio.run(main, backend=options.backend)


def _arguments(text: str) -> dict[str, Any]:
    if text == "-":
        source, text = "standard input", sys.stdin.read()
    elif text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as exc:
            raise ConfigError(f"cannot be read: {exc.strerror}", source=source) from exc
    else:
        source = "arguments"
    try:
        value = json.loads(text)
    except json.JSONDecodeError as exc:
        raise ConfigError(exc.msg, source=source, line=exc.lineno, column=exc.colno) from exc
    if not isinstance(value, dict):
        raise ConfigError("the arguments of a tool are a JSON object", source=source)
    return value
