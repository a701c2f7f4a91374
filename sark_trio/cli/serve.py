"""``sark serve``: the configured servers behind one governed door, for any MCP host."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial

import anyio
from attrs import evolve

from sark_trio import GatewayClient, Principal
from sark_trio.cli.options import add_audit, add_client, read_settings, run_client
from sark_trio.cli.output import Output
from sark_trio.cli.parsing import Commands
from sark_trio.client.config import GatewaySettings, Settings
from sark_trio.client.lifetime import collapse
from sark_trio.errors import ConfigError
from sark_trio.gateway import create_app, serve
from sark_trio.gateway.app import Gateway
from sark_trio.gateway.guard import LOOPBACK

__all__ = ["add_parser", "make_app"]


def add_parser(commands: Commands) -> None:
    """``sark serve``."""
    parser = commands.add_parser("serve", help="serve the configured servers to others")
    parser.add_argument("--host", help="address to listen on; default: [gateway], or 127.0.0.1")
    parser.add_argument("--port", type=int, help="0 takes a free one; default: [gateway], or 8080")
    parser.set_defaults(command=_serve, json=None)
    add_audit(parser)
    add_client(parser)


def _serve(options: argparse.Namespace, output: Output) -> int:
    settings = read_settings(options)
    where = settings.gateway
    if options.host is not None:
        where = evolve(where, host=options.host)
    if options.port is not None:
        where = evolve(where, port=options.port)

    async def main(client: GatewayClient, _: Principal) -> int:
        app = make_app(client, evolve(settings, gateway=where))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
                url = await tasks.start(partial(serve, app, host=where.host, port=where.port))
                _announce(output, url, client, settings)
        except BaseExceptionGroup as group:
            raise collapse(group) from None
        output.line("stopped")
        return 0

    return run_client(options, main, records=True)


def make_app(client: GatewayClient, settings: Settings) -> Gateway:
    """The gateway that *settings* describe.

    :raises ConfigError: a key or name that cannot be.
    """
    where: GatewaySettings = settings.gateway
    try:
        return create_app(
            client,
            api_keys={
                key: Principal(id=name, kind="service", roles=roles)
                for name, (key, roles) in where.keys.items()
            },
            verifier=client.authenticate if settings.identity.jwks else None,
            allowed_hosts=(*LOOPBACK, *where.hosts),
            allowed_origins=where.origins,
        )
    except ValueError as exc:
        raise ConfigError(f"gateway: {exc}", source=str(settings.source)) from exc


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _announce(output: Output, url: str, client: GatewayClient, settings: Settings) -> None:
    servers = ", ".join(client.statistics().servers) or "no server"
    doors = "API keys" if settings.gateway.keys else ""
    if settings.identity.jwks:
        doors = f"{doors} and tokens" if doors else "tokens"
    output.line(f"serving {servers}")
    output.line(f"  MCP   {url}/mcp")
    output.line(f"  REST  {url}/api/v1/servers")
    output.line(f"  for {doors or 'everybody on this machine'}; Ctrl-C ends it")
    sys.stdout.flush()  # whoever started us waits for the address, also through a pipe
