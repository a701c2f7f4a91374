"""``auth = {...}`` of a server in ``sark.toml``."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
from attrs import evolve

from sark_trio.client.authorizing.options import (
    Auth,
    ClientCredentials,
    EnterpriseManaged,
    OAuth,
    WorkloadIdentity,
)
from sark_trio.client.table import Table
from sark_trio.errors import ConfigError
from sark_trio.net.tls import TLSOptions
from sark_trio.stores.tokens import FileTokens, MemoryTokens, TokenStore
from sark_trio.stores.tokens_keyring import KeyringTokens

__all__ = ["auth_of", "default_directory"]

_KINDS: Final[Mapping[str, Callable[..., Auth]]] = {
    "user": OAuth,
    "client": ClientCredentials,
    "enterprise": EnterpriseManaged,
    "workload": WorkloadIdentity,
}
#: Keys that are options by the same name, and are strings.
_TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "user": ("client_metadata_url", "client_name"),
    "client": (),
    "enterprise": ("idp_token_endpoint", "idp_client_id", "idp_client_secret"),
    "workload": (),
}
_COMMON: Final = ("issuer", "client_id", "client_secret", "key_id", "algorithm")
#: Keys of one kind each.
_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "user": (*_TEXTS["user"], "login_timeout_s"),
    "client": (),
    "enterprise": (*_TEXTS["enterprise"], "id_token_file"),
    "workload": ("assertion_file",),
}
_SHARED: Final = ("kind", "scopes", "dpop", "private_network", "private_key_file", "store")
#: Of a file with a key or a token.
_FILE_CHARS_MAX: Final = 64 * 1024


def auth_of(table: Table, path: Path, tls: TLSOptions | None = None) -> Auth:
    """The options in *table* of the file *path*.

    :param tls: of the server. Its authorities are trusted for the authorization server, too; its
        pins and our certificate are for the server alone.
    :raises ConfigError: a key is unknown, missing, or has a value that cannot be.
    """
    kind = table.take("kind", str, "user")
    if kind not in _KINDS:
        raise table.error(f"{kind!r} is not one of {', '.join(_KINDS)}", "kind")
    table.only(*_SHARED, *_COMMON, *(key for keys in _OWN.values() for key in keys))
    table.for_kind(kind, _OWN)
    if tls is not None:
        tls = evolve(tls, pins_sha256=(), client_cert_file=None, client_key_file=None)
    options: dict[str, Any] = {"tls": tls}
    for name in (*_COMMON, *_TEXTS[kind]):
        value = table.take(name, str, None)
        if value is not None:
            options[name] = value
    for name in ("dpop", "private_network"):
        options[name] = table.take(name, bool, default=False)
    if "scopes" in table.data:
        options["scopes"] = table.strings("scopes")
    if "private_key_file" in table.data:
        options["private_key"] = _read(path.parent / table.take("private_key_file", str))
    if kind == "user" and "login_timeout_s" in table.data:
        options["login_timeout_s"] = table.number("login_timeout_s")
    if kind == "enterprise":
        options["id_token"] = _reader(path.parent / table.take("id_token_file", str))
    if kind == "workload":
        options["assertion"] = _reader(path.parent / table.take("assertion_file", str))
    options["store"] = _store(table, path, kind)
    try:
        return _KINDS[kind](**options)
    except (ConfigError, TypeError) as exc:
        raise table.error(str(exc).replace("__init__() ", "")) from exc


def default_directory() -> Path:
    """Where a user's tokens are kept: XDG's place for state."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "sark_trio" / "tokens"


def _store(table: Table, path: Path, kind: str) -> TokenStore:
    # A user signs in once and not at each start; the others get new tokens unasked.
    where = table.take("store", str, "files" if kind == "user" else "memory")
    match where:
        case "memory":
            return MemoryTokens()
        case "keyring":
            return KeyringTokens()
        case "files":
            return FileTokens(default_directory())
    return FileTokens(path.parent / where)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_FILE_CHARS_MAX)
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", source=str(path)) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError("cannot be read: not UTF-8", source=str(path)) from exc


def _reader(path: Path) -> Callable[[], Awaitable[str]]:
    """Reads anew each time: platforms replace such files when the token in them gets old."""

    async def read() -> str:
        return await anyio.to_thread.run_sync(_read, path)

    return read
