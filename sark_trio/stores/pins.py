"""The file of a book of pins: what was approved of servers' tools.

Shared by ``sark pins`` and any number of clients: each change is made under a lock, on what the
file says then, and replaces the file as a whole.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar, final

from attrs import field, frozen

from sark_trio.errors import ConfigError, UsageError
from sark_trio.mcp.differences import Difference, differences
from sark_trio.mcp.pins import Pin, PinBook, PinState, decode_book, encode_book
from sark_trio.stores.locks import open_lock, try_lock
from sark_trio.stores.replacing import replace_file

__all__ = ["PinFile", "PinnedTool", "timestamp"]

#: Ten thousand tools with 6 KiB of definition each. A wrong file must not fill memory.
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
#: Whoever holds the lock reads and writes one file; longer than this it hangs.
LOCK_S: Final = 2.0
LOCK_POLL_S: Final = 0.01

_Value = TypeVar("_Value")
_Change = Callable[[PinBook], tuple[PinBook, _Value]]


@final
@frozen(kw_only=True)
class PinnedTool:
    """One tool in the book of pins.

    :param approved: fingerprint of the definition that may be used; ``None``: none may.
    :param found: fingerprint of another one, which the server has now.
    :param by: who approved: a name, or ``first use``; *at* is when.
    :param differences: between the two, for people: hidden characters are spelled out.
    """

    server_name: str
    tool_name: str
    state: PinState
    approved: str | None
    found: str | None
    by: str
    at: str
    differences: tuple[Difference, ...] = field(repr=False)


@final
@frozen
class PinFile:
    """The file of a book of pins. Its methods block."""

    path: Path

    def tools(self, server: str | None = None) -> tuple[PinnedTool, ...]:
        """Everything in the book, or all of one server.

        :raises ConfigError: the file cannot be read, or is no book of ours.
        """
        return tuple(
            _shown(name, tool, pin)
            for name, pins in sorted(self.read().servers.items())
            for tool, pin in sorted(pins.items())
            if server in {None, name}
        )

    def approve(
        self, server: str, tool: str | None = None, *, by: str, fingerprint: str | None = None
    ) -> tuple[str, ...]:
        """Let *tool*, or every tool that waits for a decision, be used as it was found.

        :param by: who says so.
        :param fingerprint: approve this definition and no other that came meanwhile; its
            beginning will do.
        :return: the names of what was approved.
        :raises UsageError: there is nothing to approve, or *fingerprint* is not that of it.
        """
        return self._decide(PinBook.approve, server, tool, by, fingerprint)

    def refuse(
        self, server: str, tool: str | None = None, *, by: str, fingerprint: str | None = None
    ) -> tuple[str, ...]:
        """Do not let *tool*, or any tool that waits for a decision, be used as it was found.

        A tool that does not wait loses the approval that it has.

        :raises UsageError: as :meth:`approve`.
        """
        return self._decide(PinBook.refuse, server, tool, by, fingerprint)

    def _decide(
        self,
        decide: Callable[..., PinBook],
        server: str,
        tool: str | None,
        by: str,
        fingerprint: str | None,
    ) -> tuple[str, ...]:
        def change(book: PinBook) -> tuple[PinBook, tuple[str, ...]]:
            names = tuple(book.pending(server)) if tool is None else (tool,)
            if not names:
                raise LookupError(f"no tool of {server!r} waits for a decision")
            for name in names:
                _check_fingerprint(book, server, name, fingerprint)
                book = decide(book, server, name, by=by, at=timestamp())
            return book, names

        try:
            return self.change(change)
        except LookupError as exc:
            raise UsageError(str(exc.args[0])) from exc

    def read(self) -> PinBook:
        """The book; an empty one where there is no file.

        :raises ConfigError: the file cannot be read, others can change it, or it is none of ours.
        """
        try:
            # No link: whoever can place one would say what is approved.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return PinBook()
        except OSError as exc:
            raise self._error(exc) from exc
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or not _is_ours(status):
                raise ConfigError(
                    "others can change what is approved here: chmod go-w", source=str(self.path)
                )
            data = file.read(FILE_BYTES_MAX + 1)
        try:
            if len(data) > FILE_BYTES_MAX:
                raise ValueError(f"larger than {FILE_BYTES_MAX} bytes")
            return decode_book(data)
        except ValueError as exc:
            raise ConfigError(f"no book of pins: {exc}", source=str(self.path)) from exc

    def change(self, change: _Change[_Value]) -> _Value:
        """Make *change* to the book that the file holds; nothing is written if it makes none.

        :param change: the book that it is to be, and what to return; may be called twice.
        :raises ConfigError: the file cannot be read or written.
        """
        book = self.read()
        after, value = change(book)
        if after is book:
            return value
        with self._locked():
            book = self.read()
            after, value = change(book)
            if after is not book:
                self._write(encode_book(after))
        return value

    @contextmanager
    def _locked(self) -> Iterator[None]:
        beside = self.path.with_name(f"{self.path.name}.lock")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = open_lock(beside)
        except OSError as exc:
            raise self._error(exc) from exc
        try:
            until = time.monotonic() + LOCK_S
            while not try_lock(lock):
                if time.monotonic() >= until:
                    raise ConfigError("another program does not let go", source=str(beside))
                time.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(lock)

    def _write(self, data: bytes) -> None:
        if len(data) > FILE_BYTES_MAX:
            raise ConfigError(f"would be larger than {FILE_BYTES_MAX} bytes", source=str(self.path))
        try:
            replace_file(self.path, data)
        except OSError as exc:
            raise self._error(exc) from exc

    def _error(self, error: OSError) -> ConfigError:
        return ConfigError(f"pins cannot be kept here: {error.strerror}", source=str(self.path))


def _check_fingerprint(book: PinBook, server: str, tool: str, fingerprint: str | None) -> None:
    pin = book.servers.get(server, {}).get(tool, Pin())
    meant = pin.found or pin.approved
    if fingerprint is None or meant is None:
        return
    if not fingerprint or not meant.fingerprint.startswith(fingerprint):
        raise LookupError(f"tool {tool!r} of {server!r} is now {meant.fingerprint[:12]}...")


def _shown(server: str, tool: str, pin: Pin) -> PinnedTool:
    return PinnedTool(
        server_name=server,
        tool_name=tool,
        state=pin.state,
        approved=None if pin.approved is None else pin.approved.fingerprint,
        found=None if pin.found is None else pin.found.fingerprint,
        by=pin.by,
        at=pin.at,
        differences=() if pin.found is None else differences(pin.approved, pin.found),
    )


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in {0, os.geteuid()}


def timestamp() -> str:
    """Now, as pins say it (RFC 3339)."""
    return datetime.now(UTC).isoformat(timespec="seconds")
