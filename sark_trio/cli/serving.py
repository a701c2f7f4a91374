"""What ``sark serve`` does: the configured servers behind one governed door, for any MCP host."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio
from attrs import evolve

from sark_trio import GatewayClient, Principal
from sark_trio.cli.options import read_settings, run_client
from sark_trio.cli.output import Output, one_line
from sark_trio.cli.running import Signals
from sark_trio.client.build import policy_of
from sark_trio.client.config import GatewaySettings, Settings
from sark_trio.client.relay import callers_answer
from sark_trio.errors import ConfigError
from sark_trio.gateway import create_app, serve
from sark_trio.gateway.app import Gateway
from sark_trio.gateway.guard import LOOPBACK
from sark_trio.gateway.limits import Limits
from sark_trio.gateway.stdio import serve_stdio
from sark_trio.telemetry.prometheus import Prometheus

__all__ = ["make_app", "run_gateway"]


def run_gateway(options: argparse.Namespace, output: Output) -> int:
    """Serve until a signal, or the host that started us, ends it."""
    settings = read_settings(options)
    if options.stdio:
        return _serve_host(options, settings)
    where = settings.gateway
    if options.host is not None:
        where = evolve(where, host=options.host)
    if options.port is not None:
        where = evolve(where, port=options.port)

    metrics, signals = Prometheus(), Signals()

    async def main(client: GatewayClient, _: Principal) -> int:
        app = make_app(client, evolve(settings, gateway=where), metrics)
        with anyio.CancelScope() as ending:
            signals.steps = (ending.cancel, app.hurry)
            signals.reload = partial(_reload, client, options)
            run = partial(serve, app, host=where.host, port=where.port, grace_s=settings.grace_s)
            async with anyio.create_task_group() as serving:
                _announce(output, await serving.start(run), client, settings)
        output.line("stopped")
        return 0

    return run_client(
        options,
        main,
        records=True,
        hooks=(metrics,),
        handlers=callers_answer(),
        signals=signals,
    )


def make_app(
    client: GatewayClient, settings: Settings, metrics: Prometheus | None = None
) -> Gateway:
    """The gateway that *settings* describe.

    :param metrics: one of the client's hooks, for ``/metrics``.
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
            limits=Limits(rate=where.rate, concurrent=where.concurrent, streams=where.streams),
            audit_key=where.audit_key,
            metrics=metrics,
            passthrough=where.passthrough,
        )
    except ValueError as exc:
        raise ConfigError(f"gateway: {exc}", source=str(settings.source)) from exc


def _serve_host(options: argparse.Namespace, settings: Settings) -> int:
    """Serve the one host that started us, until it closes our input."""
    signals = Signals()

    async def main(client: GatewayClient, principal: Principal) -> int:
        stop = anyio.Event()
        with anyio.CancelScope() as ending:
            signals.steps = (stop.set, ending.cancel)
            signals.reload = partial(_reload, client, options)
            await serve_stdio(
                client,
                reading=reading,
                writing=writing,
                principal=principal,
                grace_s=settings.grace_s,
                stop=stop,
                passthrough=settings.gateway.passthrough,
            )
        return 0

    with _own_pipes() as (reading, writing):
        return run_client(options, main, records=True, handlers=callers_answer(), signals=signals)


@contextmanager
def _own_pipes() -> Iterator[tuple[int, int]]:
    """Standard input and output for nobody but us, as long as this lasts.

    The servers that we start inherit what is left: an input that is empty, and standard error.
    One stray ``print``, in whatever process, would break the host's protocol.
    """
    sys.stdout.flush()
    reading, writing, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        yield reading, writing
    finally:
        sys.stdout.flush()
        os.dup2(reading, 0)
        os.dup2(writing, 1)
        for fd in (reading, writing, nothing):
            os.close(fd)


def _reload(client: GatewayClient, options: argparse.Namespace) -> None:
    """Read the configuration again, and decide by its policy; a wrong one changes nothing."""
    try:
        settings = read_settings(options)
        revision = client.reload_policy(policy_of(settings.policy, str(settings.source)))
    except (ConfigError, OSError) as exc:
        print(one_line(f"sark: the policy stays as it was: {exc}"), file=sys.stderr, flush=True)
        return
    print(f"sark: new policy: {revision or 'no revision'}", file=sys.stderr, flush=True)


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
