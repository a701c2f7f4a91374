"""Where tokens are kept between calls and between runs: memory, or files that only we can read.

A store knows no tokens: it keeps short texts by name, and every one of them is a secret. It is
asked from the event loop, so what blocks goes to a worker thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

import anyio
import anyio.to_thread
from attrs import define, field

from sark_trio.errors import ConfigError
from sark_trio.stores.locks import open_lock, try_lock
from sark_trio.stores.replacing import replace_file

__all__ = ["FileTokens", "MemoryTokens", "SharedTokenStore", "TokenStore"]

#: Of one text: a few tokens and a key. A wrong file must not fill memory.
TEXT_BYTES_MAX: Final = 1024 * 1024
#: Texts in memory; beyond that the oldest is forgotten, and its user signs in again.
TEXTS_MAX: Final = 10_000
#: Longest wait for another process that renews a token, which asks one question of a server that
#: has 15 s to answer it. Who waits longer goes on all the same: what it asks may be in vain.
TURN_S: Final = 20.0
TURN_POLL_S: Final = 0.05


class TokenStore(Protocol):
    """Keeps texts by name. A failure is a ``GatewayError`` or an ``OSError``."""

    async def load(self, name: str) -> str | None:
        """The text that was saved last as *name*, if any."""

    async def save(self, name: str, text: str) -> None:
        """Keep *text* as *name*: all of it, or what was there before."""

    async def delete(self, name: str) -> None:
        """Forget *name*; does nothing where it is not there."""


@runtime_checkable
class SharedTokenStore(TokenStore, Protocol):
    """A store that several processes use at once: they take turns in renewing a token.

    A refresh token that is rotated is good once (OAuth 2.1, section 4.3.1), so whoever comes
    second with the old one may lose the new one for everybody.
    """

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """``async with``: nobody else has a turn with *name* meanwhile. Bounded."""


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

    Processes that share it take turns in renewing a token, by a lock file beside each text; one
    that does not let go within 20 s is not waited for any longer.

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

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """See :class:`SharedTokenStore`.

        :raises ConfigError: as :meth:`save`.
        """
        descriptor = await anyio.to_thread.run_sync(self._open_lock, name)
        try:
            with anyio.move_on_after(TURN_S):
                # No event comes from another process, and a thread that waits cannot be called off.
                while not await anyio.to_thread.run_sync(try_lock, descriptor):  # noqa: ASYNC110
                    await anyio.sleep(TURN_POLL_S)
            yield
        finally:
            os.close(descriptor)

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

    def _open_lock(self, name: str) -> int:
        path = self._path(name).with_suffix(".lock")
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return open_lock(path)
        except OSError as exc:
            raise self._error(exc, path) from exc

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
