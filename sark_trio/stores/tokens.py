"""Where tokens are kept between calls and between runs: memory, or files that only we can read.

A store knows no tokens: it keeps short texts by name, and every one of them is a secret. It is
asked from the event loop, so what blocks goes to a worker thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final, Protocol, final

import anyio.to_thread
from attrs import define, field

from sark_trio.errors import ConfigError
from sark_trio.stores.replacing import replace_file

__all__ = ["FileTokens", "MemoryTokens", "TokenStore"]

#: Of one text: a few tokens and a key. A wrong file must not fill memory.
TEXT_BYTES_MAX: Final = 1024 * 1024
#: Texts in memory; beyond that the oldest is forgotten, and its user signs in again.
TEXTS_MAX: Final = 10_000


class TokenStore(Protocol):
    """Keeps texts by name. A failure is a ``GatewayError`` or an ``OSError``."""

    async def load(self, name: str) -> str | None:
        """The text that was saved last as *name*, if any."""

    async def save(self, name: str, text: str) -> None:
        """Keep *text* as *name*: all of it, or what was there before."""

    async def delete(self, name: str) -> None:
        """Forget *name*; does nothing where it is not there."""


@final
@define(eq=False)
class MemoryTokens:
    """Keeps texts as long as this object lives."""

    _texts: dict[str, str] = field(factory=dict, init=False, repr=False)

    async def load(self, name: str) -> str | None:
        """The text that was saved last as *name*."""
        return self._texts.get(name)

    async def save(self, name: str, text: str) -> None:
        """Keep *text* as *name*."""
        self._texts.pop(name, None)
        while len(self._texts) >= TEXTS_MAX:
            del self._texts[next(iter(self._texts))]
        self._texts[name] = text

    async def delete(self, name: str) -> None:
        """Forget *name*."""
        self._texts.pop(name, None)


@final
@define(eq=False)
class FileTokens:
    """Keeps each text in a file of its own, mode 0600, replaced as a whole.

    :param directory: made with mode 0700 where it is not there.
    """

    directory: Path = field(converter=Path)

    async def load(self, name: str) -> str | None:
        """The text that was saved last as *name*.

        :raises ConfigError: others could read or change it, or it is no text of ours.
        """
        return await anyio.to_thread.run_sync(self._load, name)

    async def save(self, name: str, text: str) -> None:
        """Keep *text* as *name*, durably.

        :raises ConfigError: the directory is not to be had.
        """
        await anyio.to_thread.run_sync(self._save, name, text)

    async def delete(self, name: str) -> None:
        """Forget *name*."""
        await anyio.to_thread.run_sync(self._delete, name)

    def _path(self, name: str) -> Path:
        # Names hold URLs; this is a file name of bounded length that no name can leave.
        return self.directory / f"{hashlib.sha256(name.encode()).hexdigest()[:40]}.json"

    def _load(self, name: str) -> str | None:
        path = self._path(name)
        try:
            # No link: it could make us read, or trust, what somebody else wrote.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._error(exc, path) from exc
        with os.fdopen(descriptor, "rb") as file:
            if os.name == "posix" and stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                raise ConfigError("others can read these tokens: chmod 600", source=str(path))
            data = file.read(TEXT_BYTES_MAX + 1)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if not text or len(data) > TEXT_BYTES_MAX:
            raise ConfigError("not a file of tokens; sign in again", source=str(path))
        return text

    def _save(self, name: str, text: str) -> None:
        path = self._path(name)
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, text.encode("utf-8"))
        except OSError as exc:
            raise self._error(exc, path) from exc

    def _delete(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise self._error(exc, path) from exc

    @staticmethod
    def _error(error: OSError, path: Path) -> ConfigError:
        return ConfigError(f"tokens cannot be kept here: {error.strerror}", source=str(path))
