"""A connection of the pool in somebody's hands."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self, final

from attrs import define, field

from sark_trio.net.connection import Connection

__all__ = ["Lease"]


@final
@define(eq=False, repr=False)
class Lease:
    """A connection in the hands of one caller, until ``release`` or ``discard``.

    As a context manager: leaving normally releases, leaving with an exception keeps the
    connection only if its response has been read to the end.
    """

    connection: Connection
    _slot: int
    _take_back: Callable[[int, Connection], None]
    _open: bool = field(default=True, init=False)

    def release(self) -> None:
        """Give the connection back; whether it can be used again shows. Idempotent.

        A short rest of the response is read by the pool's own tasks: nobody waits for it.
        """
        if self._open:
            self._open = False
            self._take_back(self._slot, self.connection)

    def discard(self) -> None:
        """Close the connection, now. Idempotent."""
        if self._open:
            self.connection.reusable = False
            self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and not self.connection.finish():
            self.discard()
        else:
            self.release()

    def __repr__(self) -> str:
        state = "open" if self._open else "ended"
        return f"<Lease {state} slot={self._slot} {self.connection!r}>"
