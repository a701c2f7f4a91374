"""``sark resources``, ``sark read``, ``sark prompts`` and ``sark prompt``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sark_trio.cli.options import add_audit, add_client, add_output, run_client
from sark_trio.cli.output import Output
from sark_trio.cli.parsing import Commands, add_command
from sark_trio.errors import InvalidArguments

if TYPE_CHECKING:
    from sark_trio import GatewayClient, Principal

__all__ = ["add_parsers"]

_SERVER = "its name in the configuration"


def add_parsers(commands: Commands) -> None:
    """The commands about what a server offers beside tools."""
    resources = add_command(
        commands, "resources", "list the resources that you may see", "sark resources files"
    )
    resources.add_argument("server", metavar="SERVER", help=_SERVER)
    resources.set_defaults(command=_resources)
    read = add_command(commands, "read", "read a resource", "sark read files file:///etc/hosts")
    read.add_argument("server", metavar="SERVER", help=_SERVER)
    read.add_argument("uri", metavar="URI", help="as `sark resources` lists it")
    read.set_defaults(command=_read)
    prompts = add_command(
        commands, "prompts", "list the prompts that you may see", "sark prompts desk"
    )
    prompts.add_argument("server", metavar="SERVER", help=_SERVER)
    prompts.set_defaults(command=_prompts)
    prompt = add_command(commands, "prompt", "get a prompt", "sark prompt desk greet name=Ann")
    prompt.add_argument("server", metavar="SERVER", help=_SERVER)
    prompt.add_argument("name", metavar="NAME", help="as `sark prompts` lists it")
    prompt.add_argument("arguments", nargs="*", default=(), metavar="KEY=VALUE", help="texts")
    prompt.set_defaults(command=_prompt)
    for recorded in (read, prompt):
        add_audit(recorded)
    for one in (resources, read, prompts, prompt):
        add_output(one)
        add_client(one)


def _resources(options: argparse.Namespace, output: Output) -> int:
    async def show(client: GatewayClient, caller: Principal) -> int:
        found = await client.list_resources(options.server, principal=caller)
        _table(
            output,
            [dict(one.raw) for one in found],
            [("URI", "NAME", "TYPE"), *((o.uri, o.name, o.mime_type or "") for o in found)],
            "there is no resource that you may see (the policy is asked: "
            "gateway:resource:discover)",
        )
        return 0

    return run_client(options, show, records=False)


def _prompts(options: argparse.Namespace, output: Output) -> int:
    async def show(client: GatewayClient, caller: Principal) -> int:
        found = await client.list_prompts(options.server, principal=caller)
        rows = [("PROMPT", "ARGUMENTS", "DESCRIPTION")]
        for one in found:
            wanted = " ".join(a.name if a.required else f"[{a.name}]" for a in one.arguments)
            rows.append((one.name, wanted, (one.description or "").partition("\n")[0]))
        _table(
            output,
            [dict(one.raw) for one in found],
            rows,
            "there is no prompt that you may see (the policy is asked: gateway:prompt:discover)",
        )
        return 0

    return run_client(options, show, records=False)


def _read(options: argparse.Namespace, output: Output) -> int:
    async def show(client: GatewayClient, caller: Principal) -> int:
        result = await client.read_resource(options.server, options.uri, principal=caller)
        if output.as_json:
            output.value(dict(result.raw))
            return 0
        for one in result.contents:
            if one.text is None:
                size = len(one.blob or b"")
                output.line(f"[{one.mime_type or 'bytes'}: {size} bytes; --json has them]")
            else:
                _text(output, one.text)
        return 0

    return run_client(options, show, records=True)


def _prompt(options: argparse.Namespace, output: Output) -> int:
    arguments = _arguments(options.arguments)

    async def show(client: GatewayClient, caller: Principal) -> int:
        result = await client.get_prompt(options.server, options.name, arguments, principal=caller)
        if output.as_json:
            output.value(dict(result.raw))
            return 0
        for message in result.messages:
            output.line(f"{message.role}:")
            content = message.content
            _text(output, content["text"] if content["type"] == "text" else f"[{content['type']}]")
        return 0

    return run_client(options, show, records=True)


def _arguments(words: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals) or key in found:
            raise InvalidArguments(f"argument {word!r} is no KEY=VALUE, or is given twice")
        found[key] = value
    return found


def _table(
    output: Output, raw: Sequence[Any], rows: Sequence[tuple[str, ...]], nothing: str
) -> None:
    if output.as_json:
        output.value(raw)
    elif len(rows) > 1:
        output.table(rows)
    else:
        output.line(nothing)


def _text(output: Output, text: object) -> None:
    for line in str(text).splitlines():
        output.line(line)
