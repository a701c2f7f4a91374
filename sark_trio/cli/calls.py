"""``sark servers``, ``sark tools`` and ``sark call``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from sark_trio import GatewayClient, Principal, ToolResult
from sark_trio.cli.options import add_client_options, add_output, open_client
from sark_trio.cli.output import Output
from sark_trio.errors import ConfigError, GatewayError, InvalidArguments

__all__ = ["add_parsers"]


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that open a client."""
    servers = commands.add_parser("servers", help="contact every configured server")
    servers.set_defaults(command=lambda options, output: _run(options, output, _servers))
    add_output(servers)
    add_client_options(servers)

    tools = commands.add_parser("tools", help="list the tools that you may use")
    tools.add_argument("server", nargs="?", help="of this server only")
    tools.set_defaults(command=lambda options, output: _run(options, output, _tools))
    add_output(tools)
    add_client_options(tools)

    call = commands.add_parser("call", help="call a tool")
    call.add_argument("server")
    call.add_argument("tool")
    call.add_argument(
        "arguments",
        nargs="*",
        metavar="KEY=VALUE",
        help="a value that is JSON is taken as such, any other as text",
    )
    call.add_argument(
        "--json",
        nargs="?",
        const=True,
        metavar="ARGUMENTS",
        help="print one JSON document; with a JSON object: these are the arguments",
    )
    call.add_argument("--timeout", type=float, metavar="SECONDS", dest="timeout_s")
    call.set_defaults(command=lambda options, output: _run(options, output, _call))
    add_client_options(call)


_Command = Callable[[GatewayClient, Principal | None, argparse.Namespace, Output], Awaitable[int]]


def _run(options: argparse.Namespace, output: Output, command: _Command) -> int:
    client = open_client(options)

    async def main() -> int:
        async with client:
            principal = None
            if options.token_file is not None:
                principal = await client.authenticate(_read_token(options))
            return await command(client, principal, options, output)

    return anyio.run(main, backend=options.backend)


def _read_token(options: argparse.Namespace) -> str:
    try:
        return str(options.token_file.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError("the token cannot be read", source=str(options.token_file)) from exc


async def _servers(
    client: GatewayClient, _: Principal | None, __: argparse.Namespace, output: Output
) -> int:
    failures: dict[str, GatewayError] = {}

    async def contact(name: str) -> None:
        try:
            await client.connect(name)
        except GatewayError as exc:
            failures[name] = exc

    names = [info.server_name for info in await client.list_servers()]
    async with anyio.create_task_group() as contacting:
        for name in names:
            contacting.start_soon(contact, name)
    infos = await client.list_servers()
    if output.as_json:
        output.value(
            [
                {
                    "server_name": info.server_name,
                    "transport": info.transport,
                    "address": info.address,
                    "protocol_version": info.protocol_version,
                    "sensitivity_level": info.sensitivity_level,
                    "error": failures[info.server_name].message
                    if info.server_name in failures
                    else None,
                }
                for info in infos
            ]
        )
    elif not infos:
        output.line("no servers are configured")
    else:
        rows = [("SERVER", "TRANSPORT", "PROTOCOL", "ADDRESS")]
        rows += [
            (info.server_name, info.transport, info.protocol_version or "unreachable", info.address)
            for info in infos
        ]
        output.table(rows)
    for error in failures.values():
        output.error(error)
    return 4 if failures else 0


async def _tools(
    client: GatewayClient,
    principal: Principal | None,
    options: argparse.Namespace,
    output: Output,
) -> int:
    listing = await client.list_tools(options.server, principal=principal)
    if output.as_json:
        output.value(
            [
                {
                    "tool_name": tool.tool_name,
                    "server_name": tool.server_name,
                    "description": tool.description,
                    "sensitivity_level": tool.sensitivity_level,
                    "sensitive_params": list(tool.sensitive_params),
                    "input_schema": dict(tool.input_schema),
                }
                for tool in listing
            ]
        )
    elif not len(listing):
        output.line("there is no tool that you may use")
    else:
        rows = [("SERVER", "TOOL", "DESCRIPTION")]
        rows += [(t.server_name, t.tool_name, t.description.partition("\n")[0]) for t in listing]
        output.table(rows)
    for error in listing.failures.values():
        output.error(error)
    return 4 if listing.failures else 0


async def _call(
    client: GatewayClient,
    principal: Principal | None,
    options: argparse.Namespace,
    output: Output,
) -> int:
    result = await client.invoke_tool(
        options.server,
        options.tool,
        _arguments(options),
        principal=principal,
        timeout_s=options.timeout_s,
    )
    if output.as_json:
        output.value(dict(result.raw))
    else:
        _show(result, output)
    return 1 if result.is_error else 0


def _show(result: ToolResult, output: Output) -> None:
    for block in result.content:
        if block["type"] == "text":
            for line in block["text"].splitlines():
                output.line(line)
        else:
            output.line(f"[{block['type']} {block.get('mimeType', block.get('uri', ''))}]")
    if not result.content and result.structured_content is not None:
        output.value(result.structured_content)


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    whole = _object(options.json) if isinstance(options.json, str) else {}
    for pair in options.arguments:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InvalidArguments(f"{pair!r} is not KEY=VALUE")
        if key in whole:
            raise InvalidArguments(f"argument {key!r} is given twice")
        whole[key] = _value(text)
    return whole


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise InvalidArguments(f"--json: {exc}") from exc
    if not isinstance(value, dict):
        raise InvalidArguments("--json: the arguments of a tool are a JSON object")
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
