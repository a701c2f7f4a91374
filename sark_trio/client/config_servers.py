"""``[servers]`` of a configuration file: where servers are, and how far they are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from attrs import fields

from sark_trio.client.authorizing.settings import auth_of
from sark_trio.client.servers import (
    Http,
    Registry,
    Server,
    Stdio,
    ToolRule,
    at_url,
    check_name,
)
from sark_trio.client.table import Table
from sark_trio.errors import ConfigError
from sark_trio.machines.adaptive import AdaptiveConcurrency
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.limits import ResourceLimits
from sark_trio.machines.retry import RetryConfig
from sark_trio.machines.supervision import SuperviseOptions
from sark_trio.machines.window import RateRule
from sark_trio.net.tls import TLSOptions

#: A server has exactly one of the first keys of these, and then those that follow it.
_KINDS: Final = {
    "url": ("url", "headers", "tls", "addresses", "auth"),
    "command": (*("command", "cwd", "env", "limits", "supervision", "die_with_parent", "sha256"),),
    "registry": ("registry", "server", "api_key", "tls", "addresses"),
}
_COMMON: Final = (
    *("trusted", "sensitivity", "tools", "timeout_s", "protocol_version", "cache_public", "pins"),
    *("breaker", "retry", "concurrency"),
)

__all__ = ["read_host_server", "read_name", "read_server"]


def read_name(name: str, table: Table) -> str:
    """*name*, if it can name a server. :raises ConfigError: it cannot."""
    try:
        return check_name(name)
    except ConfigError as exc:
        raise table.error(exc.message) from exc


def read_host_server(table: Table) -> Server:
    """The server in *table* of an MCP host's file, in which other keys are other programs'."""
    if "command" in table.data:
        command = (table.take("command", str), *table.strings("args", ()))
        cwd, env = table.take("cwd", str, None), table.mapping("env")
        return table.made(Stdio, command, cwd=cwd, env=env)
    for key in ("url", "serverUrl", "httpUrl"):
        if key in table.data:
            url = table.take(key, str)
            return table.made(at_url(url), url, headers=table.mapping("headers"))
    misspelt = table.instead("command", "url", "serverUrl", "httpUrl")
    raise misspelt or table.error("neither 'command' nor 'url'")


def read_server(table: Table, path: Path) -> Server:
    """The server in *table* of ``sark.toml``, which is at *path*.

    :raises ConfigError: a value that cannot be, or a key that nothing reads.
    """
    kind = _kind(table)
    common: dict[str, Any] = {
        "trusted": table.take("trusted", bool, default=False),
        "sensitivity": table.take("sensitivity", str, "medium"),
        "tools": {name: _tool(one) for name, one in table.tables("tools").items()},
        "timeout_s": table.number("timeout_s"),
        "protocol_version": table.take("protocol_version", str, None),
        "cache_public": table.take("cache_public", bool, default=False),
        "pins": table.take("pins", str, None),
        "breaker": table.options("breaker", BreakerOptions, rate=RateRule),
        "retry": table.options("retry", RetryConfig),
        "concurrency": table.options("concurrency", AdaptiveConcurrency),
    }
    tls = _tls(table.table("tls"), path) if "tls" in table.data else None
    server: Server
    own: dict[str, Any]
    if kind == "url":
        url = table.take("url", str)
        own = {"headers": table.mapping("headers"), "tls": tls}
        own["addresses"] = table.take("addresses", str, "any")
        if "auth" in table.data:
            if at_url(url) is not Http:
                raise table.error("is not for WebSockets: give 'headers'", "auth")
            own["auth"] = auth_of(table.table("auth"), path, tls)
        server = table.made(at_url(url), url, **own, **common)
    elif kind == "registry":
        url, name = table.take("registry", str), table.take("server", str)
        key = table.take("api_key", str, None)
        own = {"tls": tls, "addresses": table.take("addresses", str, "any")}
        server = table.made(Registry, url, name, api_key=key, **own, **common)
    else:
        command, cwd = table.strings("command"), table.take("cwd", str, None)
        where = None if cwd is None else path.parent / cwd
        own = {
            "env": table.mapping("env"),
            "limits": table.options("limits", ResourceLimits),
            "supervision": table.options("supervision", SuperviseOptions, backoff=RetryConfig),
            "die_with_parent": table.take("die_with_parent", bool, default=False),
            "sha256": table.take("sha256", str, None),
        }
        server = table.made(Stdio, command, cwd=where, **own, **common)
    return server


def _kind(table: Table) -> str:
    """By what the server in *table* is reached; none of its keys is unknown, or another kind's."""
    if "args" in table.data:
        raise table.error("a program and its arguments are one list, 'command'", "args")
    table.only(*_COMMON, *dict.fromkeys(key for keys in _KINDS.values() for key in keys))
    given = [kind for kind in _KINDS if kind in table.data]
    if len(given) != 1:
        raise table.error("needs exactly one of 'url', 'command' and 'registry'")
    table.for_kind(given[0], _KINDS)
    return given[0]


def _tool(table: Table) -> ToolRule:
    table.only(*(one.name for one in fields(ToolRule)))
    return table.made(
        ToolRule,
        sensitivity=table.take("sensitivity", str, None),
        sensitive_params=table.strings("sensitive_params", ()),
        replay_safe=table.take("replay_safe", bool, None),
        timeout_s=table.number("timeout_s"),
        cache_ttl_s=table.number("cache_ttl_s"),
    )


def _tls(table: Table, path: Path) -> TLSOptions:
    names = ("ca_file", "client_cert_file", "client_key_file")
    table.only(*names, "pins_sha256")
    files = {n: str(path.parent / table.take(n, str)) for n in names if n in table.data}
    pins = table.strings("pins_sha256", ())
    return table.made(TLSOptions, pins_sha256=pins, **files)
