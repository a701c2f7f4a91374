"""``sark login`` and ``sark logout``: a user's consent, got once and kept."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from sark_trio.cli.options import add_config, add_output, read_settings
from sark_trio.cli.output import Output
from sark_trio.cli.parsing import Commands, Parser, add_command
from sark_trio.errors import ConfigError, UnknownServer

if TYPE_CHECKING:
    from sark_trio import Http

__all__ = ["add_parsers"]


def add_parsers(commands: Commands) -> None:
    """The commands about signing in."""
    login = add_command(
        commands,
        "login",
        "sign in to a server, and keep its tokens",
        "sark login wiki",
        "sark login wiki --no-browser --port 8765",
    )
    _add(login)
    login.add_argument(
        "--port",
        type=int,
        default=0,
        metavar="PORT",
        help="where the browser comes back to on this machine; default: any that is free",
    )
    login.add_argument(
        "--no-browser", action="store_true", help="only print the URL; open it yourself"
    )
    login.set_defaults(command=_login)
    about = "revoke and forget the tokens of a server"
    logout = add_command(commands, "logout", about, "sark logout wiki")
    _add(logout)
    logout.set_defaults(command=_logout)


def _add(parser: Parser) -> None:
    parser.add_argument("server", metavar="SERVER", help="its name in the configuration")
    add_config(parser)
    add_output(parser)


def _login(options: argparse.Namespace, output: Output) -> int:
    import webbrowser

    import anyio.to_thread

    from sark_trio import LoopbackRedirects, OAuth, sign_in
    from sark_trio.cli.running import run

    if not 0 <= options.port <= 65_535:
        raise ConfigError(f"{options.port} is no port", source="--port")
    server = _server(options)
    if isinstance(server.auth, OAuth):

        async def show(url: str) -> None:
            # Not on standard output: that is for the answer.
            print(f"sign in at {url}", file=sys.stderr)
            if not options.no_browser:
                await anyio.to_thread.run_sync(webbrowser.open, url, abandon_on_cancel=True)

        redirects = LoopbackRedirects(port=options.port, show=show)
        server = evolve(server, auth=evolve(server.auth, redirects=redirects))
    done = run(partial(sign_in, server))
    until = None if done.expires_at is None else datetime.fromtimestamp(done.expires_at, UTC)
    if output.as_json:
        output.value(
            {
                "server": options.server,
                "issuer": done.issuer,
                "scopes": list(done.scopes),
                "expires_at": None if until is None else until.isoformat(),
                "renewable": done.renewable,
            }
        )
        return 0
    output.line(f"signed in to {options.server} at {done.issuer}")
    if done.scopes:
        output.line(f"  scopes: {' '.join(done.scopes)}")
    if until is not None:
        output.line(f"  until: {until:%Y-%m-%d %H:%M} UTC{', then renewed' * done.renewable}")
    return 0


def _logout(options: argparse.Namespace, output: Output) -> int:
    from sark_trio import sign_out
    from sark_trio.cli.running import run

    done = run(partial(sign_out, _server(options)))
    if output.as_json:
        revoked = {"revoked": list(done.revoked), "unrevoked": dict(done.unrevoked)}
        output.value({"server": options.server, **revoked})
    output.line(f"forgot the tokens of {options.server}")
    for issuer in done.revoked:
        output.line(f"  revoked at {issuer}")
    for issuer, why in done.unrevoked.items():
        output.line(f"  not revoked at {issuer}: {why}")
    return 0


def _server(options: argparse.Namespace) -> Http:
    from sark_trio import Http, MemoryTokens

    settings = read_settings(options)
    server = settings.servers.get(options.server)
    if server is None:
        raise UnknownServer(f"no server {options.server!r} in {settings.source}")
    if not isinstance(server, Http) or server.auth is None:
        raise ConfigError(
            f"servers.{options.server}: no auth = {{...}}: there is nothing to sign in to",
            source=str(settings.source),
        )
    if isinstance(server.auth.store, MemoryTokens):
        raise ConfigError(
            f"servers.{options.server}.auth: tokens in memory end with this command; "
            'say store = "files" or "keyring"',
            source=str(settings.source),
        )
    return server
