"""Configuration files: ``sark.toml``, and the ``mcpServers`` JSON that MCP hosts use.

Reading gives frozen values and touches nothing else: no server is contacted, no policy is
compiled, no directory is made. Relative paths are relative to the file. ``${NAME}`` stands for
a variable of the environment, so that secrets need not stand in the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, final, get_args

from attrs import field, frozen

from sark_trio import jsontext
from sark_trio.client.allowance import CONCURRENT_MAX
from sark_trio.client.config_gateway import GatewaySettings, read_gateway
from sark_trio.client.config_pins import read_pins
from sark_trio.client.config_places import explain, json_line, toml_line
from sark_trio.client.config_remote import REMOTE_KEYS, RemoteSettings, read_remote
from sark_trio.client.config_servers import read_host_server, read_name, read_server
from sark_trio.client.pins import Pins
from sark_trio.client.servers import Server
from sark_trio.client.table import Table
from sark_trio.errors import ConfigError
from sark_trio.governance.isolation import Isolation
from sark_trio.governance.principal import Principal
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.limiter import RateOptions
from sark_trio.machines.retry import RetryConfig
from sark_trio.machines.window import RateRule
from sark_trio.stores.audit_files import FsyncMode

__all__ = [
    "AuditSettings",
    "GatewaySettings",
    "IdentitySettings",
    "PolicySettings",
    "Settings",
    "load",
]

#: No configuration of ours is larger; reading a wrong file must not fill memory.
_FILE_BYTES_MAX = 4 * 1024 * 1024
_CLIENT_TABLES = ("rate", "breaker", "retry")
_POSITION = re.compile(r"line (\d+),? column (\d+)")


@final
@frozen(kw_only=True)
class PolicySettings:
    """``[policy]``: exactly one of *rego*, *opa*, *allow_all*; none of them denies every call."""

    rego: tuple[Path, ...] = ()
    data: Path | None = None
    query: str | None = None
    #: Of *rego*: how it is kept in processes of its own; without it, it is in ours.
    isolation: Isolation | None = None
    opa: str | None = None
    opa_path: str | None = None
    opa_token: str | None = field(default=None, repr=False)
    allow_all: bool = False


@final
@frozen(kw_only=True)
class AuditSettings:
    """``[audit]``: where the log is kept, and where its checkpoints go."""

    directory: Path
    fsync: FsyncMode = "group"
    checkpoints: Path | None = None


@final
@frozen(kw_only=True)
class IdentitySettings:
    """``[identity]``: whom tokens must come from, and who the command line acts as."""

    jwks: str | None = None
    issuer: str | None = None
    audience: str | None = None
    algorithms: tuple[str, ...] = ()
    principal: str | None = None
    roles: tuple[str, ...] = ()


@final
@frozen(kw_only=True)
class Settings:
    """All that a configuration file says."""

    source: Path
    servers: Mapping[str, Server] = field(factory=dict)
    policy: PolicySettings = PolicySettings()
    audit: AuditSettings | None = None
    identity: IdentitySettings = IdentitySettings()
    timeout_s: float = 30.0
    grace_s: float = 5.0
    #: Calls of one principal at once.
    concurrent_max: int = CONCURRENT_MAX
    #: Calls of one principal that begin; ``None``: no limit but that.
    rate: RateOptions | None = None
    #: Of servers that have none of their own; ``None`` is the default of both.
    breaker: BreakerOptions | None = None
    retry: RetryConfig | None = None
    gateway: GatewaySettings = field(factory=GatewaySettings)
    remote: RemoteSettings = field(factory=RemoteSettings)
    #: Where agents run, by their ids.
    agents: Mapping[str, str] = field(factory=dict)
    #: Tools that were approved.
    pins: Pins | None = None


def load(path: Path | str, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read *path*: TOML if it is named so, else JSON with ``mcpServers``.

    :param environ: what ``${NAME}`` stands for; default the process's environment.
    :raises ConfigError: unreadable, not TOML or JSON (line and column), or a key that is
        unknown, missing or of the wrong type.
    """
    path = Path(path)
    variables = os.environ if environ is None else environ
    text = _read(path)
    if path.suffix == ".toml":
        data, locate = _parse_toml(text, path), partial(toml_line, text)
        return _from_toml(Table(data, str(path), environ=variables, locate=locate), path)
    data, locate = _parse_json(text, path), partial(json_line, text)
    return _from_json(Table(data, str(path), environ=variables, locate=locate), path)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", source=str(path)) from exc
    if len(raw) > _FILE_BYTES_MAX:
        raise ConfigError(f"larger than {_FILE_BYTES_MAX} bytes", source=str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ConfigError("not UTF-8: save it so", source=str(path), line=line) from exc


def _parse_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise _misplaced(f"not TOML: {exc}", text, path) from exc


def _parse_json(text: str, path: Path) -> dict[str, Any]:
    try:
        value = jsontext.decode_strict(text)
    except jsontext.JSONError as exc:
        named = "" if path.suffix == ".json" else " (only what is named *.toml is read as TOML)"
        raise _misplaced(str(exc), text, path, named) from exc
    if not isinstance(value, dict):
        raise ConfigError("not a JSON object", source=str(path), line=1)
    return value


def _misplaced(message: str, text: str, path: Path, more: str = "") -> ConfigError:
    found = _POSITION.search(message)
    place = (int(found[1]), int(found[2])) if found else None
    line, column = place or (None, None)
    said = f"{explain(message, text, place)}{more}"
    return ConfigError(said, source=str(path), line=line, column=column)


def _from_json(root: Table, path: Path) -> Settings:
    """``{"mcpServers": {...}}``; VS Code says ``servers``. Other keys are other programs'."""
    key = "mcpServers" if "mcpServers" in root.data or "servers" not in root.data else "servers"
    if key not in root.data:
        raise root.instead("mcpServers") or root.error(
            "no 'mcpServers' in it: not an MCP host's configuration"
        )
    servers = {read_name(n, t): read_host_server(t) for n, t in root.tables(key).items()}
    return Settings(source=path, servers=servers)


def _from_toml(root: Table, path: Path) -> Settings:
    root.only("client", "servers", "policy", "audit", "identity", "gateway", "agents", "pins")
    client = root.table("client")
    client.only("timeout_s", "grace_s", "concurrent_max", *_CLIENT_TABLES, *REMOTE_KEYS)
    return Settings(
        source=path,
        servers={read_name(n, t): read_server(t, path) for n, t in root.tables("servers").items()},
        policy=_policy(root.table("policy"), path),
        audit=_audit(root.table("audit"), path) if "audit" in root.data else None,
        identity=_identity(root.table("identity"), path),
        timeout_s=client.number("timeout_s", 30.0),
        grace_s=client.number("grace_s", 5.0),
        concurrent_max=client.take("concurrent_max", int, CONCURRENT_MAX),
        rate=client.options("rate", RateOptions),
        breaker=client.options("breaker", BreakerOptions, rate=RateRule),
        retry=client.options("retry", RetryConfig),
        gateway=read_gateway(root.table("gateway")),
        remote=read_remote(client),
        agents=root.mapping("agents"),
        pins=read_pins(root.table("pins"), path) if "pins" in root.data else None,
    )


def _policy(table: Table, path: Path) -> PolicySettings:
    table.only("rego", "data", "query", "isolation", "opa", "opa_path", "opa_token", "allow_all")
    data = table.take("data", str, None)
    settings = PolicySettings(
        rego=tuple(path.parent / name for name in table.strings("rego", ())),
        data=None if data is None else path.parent / data,
        query=table.take("query", str, None),
        isolation=table.options("isolation", Isolation),
        opa=table.take("opa", str, None),
        opa_path=table.take("opa_path", str, None),
        opa_token=table.take("opa_token", str, None),
        allow_all=table.take("allow_all", bool, default=False),
    )
    if bool(settings.rego) + bool(settings.opa) + settings.allow_all > 1:
        raise table.error("needs exactly one of 'rego', 'opa' and 'allow_all'")
    for of, keys in (("rego", ("data", "query", "isolation")), ("opa", ("opa_path", "opa_token"))):
        for key in keys:
            if key in table.data and not getattr(settings, of):
                raise table.error(f"is for {of!r}, which is not there", key)
    return settings


def _audit(table: Table, path: Path) -> AuditSettings:
    table.only("directory", "fsync", "checkpoints")
    checkpoints = table.take("checkpoints", str, None)
    fsync = table.take("fsync", str, "group")
    if fsync not in get_args(FsyncMode):
        raise table.error(f"{fsync!r} is not one of {', '.join(get_args(FsyncMode))}", "fsync")
    return AuditSettings(
        directory=path.parent / table.take("directory", str),
        fsync=fsync,
        checkpoints=None if checkpoints is None else path.parent / checkpoints,
    )


def _identity(table: Table, path: Path) -> IdentitySettings:
    table.only("jwks", "issuer", "audience", "algorithms", "principal", "roles")
    jwks = table.take("jwks", str, None)
    if jwks is not None and not jwks.startswith(("https://", "http://")):
        jwks = str(path.parent / jwks)
    settings = IdentitySettings(
        jwks=jwks,
        issuer=table.take("issuer", str, None),
        audience=table.take("audience", str, None),
        algorithms=table.strings("algorithms", ()),
        principal=table.take("principal", str, None),
        roles=table.strings("roles", ()),
    )
    if settings.principal is not None:
        table.made(Principal, id=settings.principal, roles=settings.roles)
    return settings
