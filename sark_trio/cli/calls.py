"""``sark servers``, ``sark tools`` and ``sark call``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sark_trio.cli.arguments import add_call, read_arguments
from sark_trio.cli.asking import approver_here
from sark_trio.cli.options import (
    add_audit,
    add_client,
    add_output,
    read_settings,
    run_client,
)
from sark_trio.cli.output import Output, worst
from sark_trio.cli.parsing import Commands, add_command, seconds
from sark_trio.errors import GatewayError

if TYPE_CHECKING:
    from sark_trio import GatewayClient, Principal, ToolResult

__all__ = ["add_parsers"]


def add_parsers(commands: Commands) -> None:
    """The commands about servers and their tools."""
    servers = add_command(
        commands,
        "servers",
        "name the configured servers",
        "sark servers",
        "sark servers --check --allow-all",
    )
    servers.add_argument("--check", action="store_true", help="contact each, and say how that went")
    servers.set_defaults(command=_servers)
    add_output(servers)
    add_client(servers)

    tools = add_command(
        commands,
        "tools",
        "list the tools that you may use",
        "sark tools",
        "sark tools files --json",
    )
    tools.add_argument("server", nargs="?", metavar="SERVER", help="of this server only")
    tools.set_defaults(command=_tools)
    add_output(tools)
    add_client(tools)

    call = add_command(
        commands,
        "call",
        "call a tool",
        "sark call clock get_current_time timezone=Europe/Zurich",
        "sark call db query @arguments.json --timeout 10",
        'sark call db query --json \'{"sql": "select 1"}\'',
    )
    add_call(call)
    call.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        dest="timeout_s",
        help="for the whole call, retries included; default: what the configuration says",
    )
    call.set_defaults(command=_call)
    add_audit(call)
    add_client(call)


# -- servers ----------------------------------------------------------------------------------


def _servers(options: argparse.Namespace, output: Output) -> int:
    if options.check:
        return run_client(options, lambda client, _: _check(client, output), records=False)
    servers = read_settings(options).servers
    names = [
        {"server_name": name, "transport": type(server).__name__.lower(), "address": server.address}
        for name, server in servers.items()
    ]
    if output.as_json:
        output.value(names)
    elif not names:
        output.line("no servers are configured")
    else:
        output.table([("SERVER", "TRANSPORT", "ADDRESS"), *(tuple(one.values()) for one in names)])
    return 0


async def _check(client: GatewayClient, output: Output) -> int:
    failures = await _contact_all(client)
    infos = await client.list_all_servers()
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
    for info in infos:
        if info.server_name in failures:
            output.error(failures[info.server_name])
    return worst(failures.values())


async def _contact_all(client: GatewayClient) -> dict[str, GatewayError]:
    """Connect to every server at once; what went wrong, by name."""
    import anyio

    failures: dict[str, GatewayError] = {}

    async def contact(name: str) -> None:
        try:
            await client.connect(name)
        except GatewayError as exc:
            exc.server = exc.server or name
            failures[name] = exc

    infos = await client.list_all_servers()
    async with anyio.create_task_group() as contacting:
        for info in infos:
            contacting.start_soon(contact, info.server_name)
    return failures


# -- tools ------------------------------------------------------------------------------------


def _tools(options: argparse.Namespace, output: Output) -> int:
    async def show(client: GatewayClient, caller: Principal) -> int:
        return await _list(client, caller, options.server, output)

    return run_client(options, show, records=False)


async def _list(
    client: GatewayClient, caller: Principal, server: str | None, output: Output
) -> int:
    listing = await client.list_all_tools(server, principal=caller)
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
    elif len(listing):
        rows = [("SERVER", "TOOL", "DESCRIPTION")]
        rows += [(t.server_name, t.tool_name, t.description.partition("\n")[0]) for t in listing]
        output.table(rows)
    elif not listing.failures:
        output.line(
            "there is no tool that you may use (the policy is asked: gateway:tool:discover)"
        )
    for name, error in listing.failures.items():
        error.server = error.server or name
        output.error(error)
    return worst(listing.failures.values())


# -- call -------------------------------------------------------------------------------------


def _call(options: argparse.Namespace, output: Output) -> int:
    arguments = read_arguments(options)

    async def call(client: GatewayClient, caller: Principal) -> int:
        result = await client.invoke_tool(
            options.server,
            options.tool,
            arguments,
            principal=caller,
            timeout_s=options.timeout_s,
        )
        if output.as_json:
            output.value(dict(result.raw))
        else:
            _show(result, output)
        return 1 if result.is_error else 0

    return run_client(options, call, records=True, approve=approver_here())


def _show(result: ToolResult, output: Output) -> None:
    for block in result.content:
        if block["type"] == "text":
            for line in block["text"].splitlines():
                output.line(line)
        else:
            output.line(f"[{block['type']} {block.get('mimeType', block.get('uri', ''))}]")
    if not result.content and result.structured_content is not None:
        output.value(result.structured_content)
