"""``sark policy eval``: what would the policy say?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sark_trio.cli.arguments import add_call, read_arguments
from sark_trio.cli.options import add_client, run_client
from sark_trio.cli.output import Output
from sark_trio.cli.parsing import Commands, add_command

if TYPE_CHECKING:
    from sark_trio import GatewayClient, Principal

__all__ = ["add_parsers"]


def add_parsers(commands: Commands) -> None:
    """The commands about the policy."""
    policy = add_command(commands, "policy", "ask the policy without calling anything")
    parsers = policy.add_subparsers(required=True, title="commands", metavar="COMMAND")
    evaluate = add_command(
        parsers,
        "eval",
        "decide on one call, and send nothing",
        'sark policy eval db query sql="drop table users" --as ann --role analyst',
    )
    add_call(evaluate)
    evaluate.set_defaults(command=_eval)
    add_client(evaluate)


def _eval(options: argparse.Namespace, output: Output) -> int:
    arguments = read_arguments(options)

    async def decide(client: GatewayClient, caller: Principal) -> int:
        verdict = await client.explain(options.server, options.tool, arguments, principal=caller)
        facts = {
            "allow": verdict.allow,
            "reason": verdict.reason,
            "fault": verdict.fault,
            "arguments": verdict.arguments if verdict.allow else None,
            "removed": list(verdict.removed),
            "redacted": list(verdict.redacted),
            "obligations": [repr(one) for one in verdict.obligations],
            "decision_id": verdict.decision_id,
            "revision": verdict.revision,
        }
        if output.as_json:
            output.value(facts)
        else:
            _show(facts, output)
        return 0 if verdict.allow else 3

    return run_client(options, decide, records=False)


def _show(facts: dict[str, Any], output: Output) -> None:
    """The answer first; then what there is to say about it."""
    output.line("allowed" if facts.pop("allow") else "denied")
    for name, value in facts.items():
        if value not in (None, [], ""):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            output.line(f"  {name}: {text}")
