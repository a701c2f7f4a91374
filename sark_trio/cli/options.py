"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import getpass
import os
from pathlib import Path

from attrs import evolve

from sark_trio import Principal
from sark_trio.client.build import client_of
from sark_trio.client.config import AuditSettings, PolicySettings, Settings, load
from sark_trio.client.gateway import GatewayClient
from sark_trio.errors import ConfigError

__all__ = ["add_client_options", "add_config", "add_output", "open_client", "read_settings"]

_DEFAULTS = ("sark.toml", ".mcp.json", "mcp.json")


def add_output(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config`` and what may stand for parts of it."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="sark.toml, or the mcpServers JSON of an MCP host; default: $SARK_CONFIG, or "
        + ", ".join(_DEFAULTS),
    )
    parser.add_argument(
        "--policy", type=Path, metavar="FILE.rego", action="append", help="instead of [policy]"
    )
    parser.add_argument("--audit", type=Path, metavar="DIR", help="instead of [audit]")
    parser.add_argument(
        "--allow-all",
        action="store_true",
        help="no policy at all: everybody may do everything (for trying things out)",
    )


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Whose call it is, and on what it runs."""
    add_config(parser)
    parser.add_argument("--as", dest="principal", metavar="ID", help="who calls")
    parser.add_argument("--role", action="append", default=[], help="a role of the caller's")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a JWT that says who calls, and proves it"
    )
    parser.add_argument("--backend", choices=("trio", "asyncio"), default="trio")


def read_settings(options: argparse.Namespace) -> Settings:
    """The configuration file, with what the command line says instead."""
    settings = load(options.config or _find())
    if options.policy:
        settings = evolve(settings, policy=PolicySettings(rego=tuple(options.policy)))
    if options.allow_all:
        settings = evolve(settings, policy=PolicySettings(allow_all=True))
    if options.audit:
        settings = evolve(settings, audit=AuditSettings(directory=options.audit))
    if settings.audit is None:
        settings = evolve(settings, audit=AuditSettings(directory=_default_audit()))
    return settings


def open_client(options: argparse.Namespace) -> GatewayClient:
    """The client that configuration and command line describe; not opened yet."""
    settings = read_settings(options)
    principal = None
    if options.principal is not None or settings.identity.principal is None:
        who = options.principal or getpass.getuser()
        principal = Principal(id=who, roles=tuple(options.role))
    return client_of(settings, principal=principal)


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
