"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import getpass
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve

from sark_trio.cli.logs import add_logs, logging_as
from sark_trio.cli.parsing import Parser
from sark_trio.errors import ConfigError

if TYPE_CHECKING:
    from sark_trio import GatewayClient, Handlers, Principal, Settings
    from sark_trio.cli.running import Signals
    from sark_trio.client.approving import Approver
    from sark_trio.client.config import IdentitySettings
    from sark_trio.telemetry.hooks import Hook

__all__ = [
    "Command",
    "add_audit",
    "add_client",
    "add_config",
    "add_output",
    "read_settings",
    "run_client",
    "user_name",
]

_DEFAULTS = ("sark.toml", ".mcp.json", "mcp.json")
#: What a command does with an open client and the caller; its exit status.
Command: TypeAlias = "Callable[[GatewayClient, Principal], Awaitable[int]]"


def add_output(parser: Parser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_config(parser: Parser) -> None:
    """``--config``."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="sark.toml, or the mcpServers JSON of an MCP host; default: $SARK_CONFIG, or the "
        f"first of {', '.join(_DEFAULTS)} that is here",
    )


def add_audit(parser: Parser) -> None:
    """``--audit``."""
    parser.add_argument(
        "--audit", type=Path, metavar="DIR", help="record here instead of where [audit] says"
    )


def add_client(parser: Parser) -> None:
    """Who decides, whose call it is, and on what it runs."""
    add_config(parser)
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument(
        "--policy",
        type=Path,
        metavar="FILE.rego",
        action="append",
        help="decide by this instead of [policy]; may be repeated",
    )
    policy.add_argument(
        "--allow-all",
        action="store_true",
        help="no policy at all: everybody may do everything (for trying things out)",
    )
    parser.add_argument("--as", dest="principal", metavar="ID", help="who calls")
    parser.add_argument(
        "--role", action="append", metavar="ROLE", help="a role of the caller's; may be repeated"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a JWT that proves who calls"
    )
    parser.add_argument(
        "--backend", choices=("trio", "asyncio"), default="trio", help="default: trio"
    )
    add_logs(parser)


def read_settings(options: argparse.Namespace) -> Settings:
    """The configuration file, with what the command line says instead."""
    from sark_trio.client.config import AuditSettings, PolicySettings, load

    settings = load(options.config or _find())
    if getattr(options, "policy", None):
        settings = evolve(settings, policy=PolicySettings(rego=tuple(options.policy)))
    if getattr(options, "allow_all", False):
        settings = evolve(settings, policy=PolicySettings(allow_all=True))
    if getattr(options, "audit", None):
        settings = evolve(settings, audit=AuditSettings(directory=options.audit))
    if settings.audit is None:
        settings = evolve(settings, audit=AuditSettings(directory=_default_audit()))
    return settings


def run_client(
    options: argparse.Namespace,
    command: Command,
    *,
    records: bool,
    hooks: Sequence[Hook] = (),
    handlers: Handlers | None = None,
    approve: Approver | None = None,
    signals: Signals | None = None,
) -> int:
    """Open the client that configuration and command line describe, and run *command* in it.

    :param records: whether the command makes calls. One that does not has nothing to record,
        so it leaves the configured log alone: another program may be writing it.
    :param hooks: told what happens, beside the log that the command line asks for.
    :param handlers: what is done when a server asks.
    :param approve: who is asked where the policy wants a person's word.
    :param signals: what they do; default: the first one ends the command.
    :raises Interrupted: a signal has ended it.
    """
    from sark_trio.cli.running import run
    from sark_trio.client.config import AuditSettings
    from sark_trio.telemetry.logs import LogHook

    settings = read_settings(options)
    token = None if options.token_file is None else _read_token(options.token_file, settings)
    if options.log_level is not None:
        hooks = (*hooks, LogHook())
    with ExitStack() as stack:
        stack.enter_context(logging_as(options))
        if not records:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sark-"))
            settings = evolve(settings, audit=AuditSettings(directory=Path(folder) / "audit"))
            if settings.pins is not None:  # what is to be recorded waits for a log that lasts
                settings = evolve(settings, pins=evolve(settings.pins, record=False))
        who = _principal(options, settings.identity)
        client = _make_client(settings, who, hooks, handlers, approve)

        async def main() -> int:
            async with client:
                proven = who if token is None else await client.authenticate(token)
                return await command(client, proven)

        return run(main, backend=options.backend, signals=signals)


def _make_client(
    settings: Settings,
    principal: Principal,
    hooks: Sequence[Hook],
    handlers: Handlers | None,
    approve: Approver | None,
) -> GatewayClient:
    from sark_trio.client.build import client_of

    try:
        return client_of(
            settings, principal=principal, hooks=hooks, handlers=handlers, approve=approve
        )
    except ValueError as exc:
        # An option that some part of the client refuses stands in the file, too.
        raise ConfigError(str(exc), source=str(settings.source)) from exc


def _principal(options: argparse.Namespace, identity: IdentitySettings) -> Principal:
    """The command line's word, else the configuration's, else the user of this machine."""
    from sark_trio import Principal

    who = options.principal or identity.principal or user_name()
    roles = options.role or (identity.roles if who == identity.principal else ())
    try:
        return Principal(id=who, roles=tuple(roles))
    except ValueError as exc:
        raise ConfigError(str(exc), source="--as") from exc


def user_name() -> str:
    """The user of this machine.

    :raises ConfigError: it knows none.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError) as exc:
        raise ConfigError("this machine has no name for you: say who calls with --as") from exc


def _read_token(path: Path, settings: Settings) -> str:
    if settings.identity.jwks is None:
        raise ConfigError(
            "no keys to check a token with: say jwks, issuer and audience in [identity]",
            source=str(settings.source),
        )
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", source=str(path)) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError("not a token: it is not ASCII", source=str(path)) from exc


def _find() -> Path:
    named = os.environ.get("SARK_CONFIG")
    if named:
        return Path(named)
    for name in _DEFAULTS:
        if Path(name).is_file():
            return Path(name)
    raise ConfigError(
        f"no configuration: name one with --config, or put {' or '.join(_DEFAULTS)} here"
    )


def _default_audit() -> Path:
    """XDG Base Directory: state that should survive, and is no configuration."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "sark_trio" / "audit"
