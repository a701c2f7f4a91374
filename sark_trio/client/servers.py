"""What an operator says about a server: where it is, and how far it is trusted."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, final

import httpcore
from attrs import field, frozen

from sark_trio.client.authorizing.options import Auth
from sark_trio.client.pins import PinMode, check_mode
from sark_trio.client.reach import Addresses, check_addresses
from sark_trio.errors import ConfigError
from sark_trio.machines.adaptive import AdaptiveConcurrency
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.limits import ResourceLimits
from sark_trio.machines.retry import RetryConfig
from sark_trio.machines.supervision import SuperviseOptions
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.tls import TLSOptions

__all__ = [
    "Directory",
    "Http",
    "Memory",
    "Registry",
    "Remote",
    "Sensitivity",
    "Server",
    "Stdio",
    "ToolRule",
    "WebSocket",
    "as_server",
    "at_url",
    "check_name",
]

Sensitivity = Literal["low", "medium", "high", "critical"]
_SENSITIVITIES = ("low", "medium", "high", "critical")
#: Names appear in metrics, file names and `server__tool`: plain, and short enough for a label.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _frozen_map(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return MappingProxyType(dict(value or {}))


def _strings(value: Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _shown_url(url: str) -> str:
    """Without query and user, where a secret may stand."""
    scheme, found, rest = url.partition("://")
    place, slash, path = rest.partition("?")[0].partition("/")
    return repr(f"{scheme}{found}{place.rpartition('@')[2]}{slash}{path}")


def _shown_command(command: tuple[str, ...]) -> str:
    """Without arguments, which may hold a secret."""
    return repr(command) if len(command) < 2 else f"({command[0]!r}, ...)"


def _one_of(_: Any, attribute: Any, value: str) -> None:
    if value not in _SENSITIVITIES:
        allowed = ", ".join(_SENSITIVITIES)
        raise ConfigError(f"{value!r} is not one of {allowed}", source=attribute.name)


def _positive(_: Any, attribute: Any, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise ConfigError(f"{value!r} is not a positive number of seconds", source=attribute.name)


def _digest(_: Any, attribute: Any, value: str | None) -> None:
    if value is not None and not _SHA256.fullmatch(value):
        raise ConfigError(f"{value!r} is not 64 digits, 0-9 and a-f", source=attribute.name)


@final
@frozen(kw_only=True)
class ToolRule:
    """What the operator knows of one tool; it outranks what the server says of itself.

    :param sensitivity: how much harm a wrong call can do; policies see it.
    :param sensitive_params: names of arguments that never leave this process.
    :param replay_safe: whether a call may be sent again when its outcome is unknown;
        ``None`` leaves that to the server's annotations, if the server is trusted.
    :param timeout_s: deadline of one call; ``None`` takes the server's.
    :param cache_ttl_s: seconds for which an answer may be given again to the same principal for
        the same arguments, each time after policy has decided. Only of a tool that says it
        reads only (``readOnlyHint``), on a server that is trusted.
    """

    sensitivity: Sensitivity | None = field(
        default=None, validator=lambda s, a, v: None if v is None else _one_of(s, a, v)
    )
    sensitive_params: tuple[str, ...] = field(default=(), converter=_strings)
    replay_safe: bool | None = None
    timeout_s: float | None = field(default=None, validator=_positive)
    cache_ttl_s: float | None = field(default=None, validator=_positive)


@frozen(kw_only=True)
class Server:
    """What holds for a server on any transport.

    :param trusted: believe its tool annotations (``readOnlyHint``, ``idempotentHint``).
        MCP: annotations of a server that is not trusted must not be believed.
    :param sensitivity: of tools that have no rule of their own.
    :param tools: rules by tool name; ``*`` is the rule of all others.
    :param timeout_s: deadline of one call, all attempts included; ``None`` takes the client's.
    :param breaker: circuit breaker of this server; ``None`` takes the client's.
    :param retry: retry schedule of this server; ``None`` takes the client's.
    :param protocol_version: speak this MCP revision only; ``None`` negotiates.
    :param cache_public: believe the server where it says that an answer is the same for everybody
        (``cacheScope: public``), and keep one for all principals.
    :param pins: what becomes of its tools that are not as they were approved: ``off``, ``warn``
        or ``refuse``; ``None`` takes what the client's :class:`~sark_trio.Pins` say.
    :param concurrency: how many calls it gets at once, found by trying, while the others wait;
        ``None`` leaves that to the transport and its connections.
    """

    trusted: bool = False
    sensitivity: Sensitivity = field(default="medium", validator=_one_of)
    tools: Mapping[str, ToolRule] = field(factory=dict, converter=_frozen_map)
    timeout_s: float | None = field(default=None, validator=_positive)
    breaker: BreakerOptions | None = None
    retry: RetryConfig | None = None
    protocol_version: str | None = None
    cache_public: bool = False
    pins: PinMode | None = field(default=None, validator=check_mode)
    concurrency: AdaptiveConcurrency | None = None

    @property
    def address(self) -> str:
        """Where it is, fit to print: no secret is in it."""
        raise ConfigError(f"{type(self).__name__} says where no server is; use Http or Stdio")

    def rule(self, tool: str) -> ToolRule:
        """The rule that holds for *tool*."""
        return self.tools.get(tool) or self.tools.get("*") or _NO_RULE


@frozen(kw_only=True)
class Remote(Server):
    """What holds for every server behind a URL that speaks MCP itself.

    :param url: where it is; in its query a secret may stand.
    :param headers: sent to exactly this origin, with every request, or to open a WebSocket;
        values are secrets.
    :param tls: certificates to trust and to show; ``None`` uses the system's.
    :param network: where connections come from, such as a proxy's; any backend of httpcore's.
        ``None`` uses sockets.
    :param addresses: ``public``: the URL comes from somebody who is not trusted; it has to be
        ``https``, and every address that it leads to public. ``any``: the operator's own word.
    """

    url: str = field(kw_only=False, repr=_shown_url)
    headers: Mapping[str, str] = field(factory=dict, converter=_frozen_map, repr=False)
    tls: TLSOptions | None = None
    network: httpcore.AsyncNetworkBackend | None = field(default=None, repr=False)
    addresses: Addresses = field(default="any", validator=check_addresses)

    @property
    def address(self) -> str:
        """The URL without its query."""
        return self.url.partition("?")[0]


@final
@frozen(kw_only=True)
class Http(Remote):
    """A server behind a URL such as ``https://db.example/mcp``: Streamable HTTP, any revision, or
    the HTTP+SSE of before.

    Servers of 2024-11-05 are found out by what they answer; ``protocol_version="2024-11-05"``
    goes to them at once.

    :param auth: how its access tokens are got, such as by :class:`sark_trio.OAuth`; ``None``
        sends *headers* and nothing else.
    """

    auth: Auth | None = None


@final
@frozen(kw_only=True)
class WebSocket(Remote):
    """A server on a WebSocket (subprotocol ``mcp``), at a URL such as ``wss://db.example/mcp``.

    Needs the extra ``websocket``.
    """


@final
@frozen(kw_only=True)
class Stdio(Server):
    """A server that we start: newline-delimited JSON-RPC over its standard streams.

    :param command: program and arguments; never a shell line.
    :param cwd: its working directory; ``None`` is ours.
    :param env: variables added to the few that are handed on; values are secrets.
    :param limits: what its processes may use of the machine (Linux); ``None``: what we may.
    :param supervision: how often it is restarted, and when it is taken to hang.
    :param die_with_parent: kill it when we die, even by SIGKILL (Linux, needs ``setpriv``).
    :param sha256: of the program's file, in hex; no other file is started.
    :param spawn: starts its processes, see :class:`sark_trio.transports.process.Spawn`;
        ``None``: as the operating system does.
    """

    command: tuple[str, ...] = field(kw_only=False, converter=_strings, repr=_shown_command)
    cwd: Path | str | None = None
    env: Mapping[str, str] = field(factory=dict, converter=_frozen_map, repr=False)
    limits: ResourceLimits | None = None
    supervision: SuperviseOptions | None = None
    die_with_parent: bool = False
    sha256: str | None = field(default=None, validator=_digest)
    spawn: Callable[..., Any] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """The program; arguments may hold a secret."""
        return self.command[0]

    @command.validator
    def _check_command(self, _: Any, value: tuple[str, ...]) -> None:
        if not value or not value[0]:
            raise ConfigError("a command needs at least the program's name", source="command")
        if any("\0" in part for part in value):
            raise ConfigError("a command cannot hold NUL characters", source="command")


@final
@frozen(kw_only=True)
class Registry(Server):
    """A server that a registry speaks with for us, over the registry's REST interface.

    :param url: the registry's base URL, such as ``https://gateway.example``.
    :param server: the server's name there.
    :param api_key: our key for the registry (``X-API-Key``); it goes to exactly this origin.
    :param tls: certificates to trust and to show; ``None`` uses the system's.
    :param pool: connections to share with others; somebody else runs them, and *tls* is theirs.
    :param addresses: ``public``: the URL comes from somebody who is not trusted; it has to be
        ``https``, and every address that it leads to public. ``any``: the operator's own word.
    """

    url: str = field(kw_only=False, repr=_shown_url)
    server: str = field(kw_only=False)
    api_key: str | None = field(default=None, repr=False)
    tls: TLSOptions | None = None
    pool: ConnectionPool | None = field(default=None, repr=False, eq=False)
    addresses: Addresses = field(default="any", validator=check_addresses)

    @property
    def address(self) -> str:
        """Where the registry is, and the name that it knows."""
        return f"{self.url.partition('?')[0]} {self.server}"


@final
@frozen(kw_only=True)
class Directory(Server):
    """A registry itself: what it lists, and how it is. No tool can be called through it.

    :param url: the registry's base URL.
    :param api_key: our key for the registry.
    :param pool: connections that lead there; somebody else runs them.
    """

    url: str = field(kw_only=False, repr=_shown_url)
    api_key: str | None = field(default=None, repr=False)
    pool: ConnectionPool = field(repr=False, eq=False)

    @property
    def address(self) -> str:
        """Where the registry is."""
        return self.url.partition("?")[0]


@final
@frozen(kw_only=True)
class Memory(Server):
    """A server in this process, such as one that the application embeds.

    :param serve: ``await serve(incoming)`` answers one request with its ``result`` member; see
        :class:`sark_trio.transports.memory.Incoming`.
    """

    serve: Callable[[Any], Awaitable[Mapping[str, Any]]] = field(kw_only=False, repr=False)

    @property
    def address(self) -> str:
        """The function's name."""
        return getattr(self.serve, "__qualname__", type(self.serve).__qualname__)


_NO_RULE = ToolRule()


def as_server(value: Server | str | Sequence[str], *, source: str | None = None) -> Server:
    """The server that *value* stands for: itself, a URL, or a command as a list.

    :raises ConfigError: none of these, or a string that is no URL.
    """
    if isinstance(value, Server):
        return value
    if not isinstance(value, str):
        given: object = value
        if not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
            raise ConfigError(f"{value!r} is no Server, URL or list of strings", source=source)
        return Stdio(value)
    if value.startswith(("http://", "https://", "ws://", "wss://")):
        return at_url(value)(value)
    raise ConfigError(
        f"{value!r} is no http://, https://, ws:// or wss:// URL; "
        "give a command as a list of strings",
        source=source,
    )


def at_url(url: str) -> type[Http | WebSocket]:
    """What is at *url*, as its scheme says."""
    return WebSocket if url.startswith(("ws:", "wss:")) else Http


def check_name(name: str) -> str:
    """*name*, if it can name a server.

    :raises ConfigError: it cannot.
    """
    given: object = name  # whatever an application hands in
    if not isinstance(given, str) or not _NAME.match(given):
        raise ConfigError(
            f"server name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return name
