"""Callers who do not take their answers, or so slowly that it comes to the same.

Whoever reads a byte now and then keeps a connection alive for ever (``TCP_USER_TIMEOUT`` hears of
progress), and the server under us does not let itself be cancelled while it writes. So time spent
waiting for one caller to read is counted, and when it is used up the connection is shut down under
the write, which ends it at once on every event loop.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

import anyio
from attrs import define, field

from sark_trio.gateway.asgi import Message, Scope, Send

__all__ = ["Stalls", "sever"]

#: Seconds that one response may spend waiting to be read; time in which it does not wait gives
#: them back, so that a stream can go on for days.
PATIENCE_S: Final = 60.0
#: Between two looks at those who wait.
LOOK_S: Final = 1.0
#: To discard what nobody took when it is closed, instead of offering it on.
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_Address = tuple[Any, ...]


@final
@define(eq=False)
class _Response:
    """One response on its way."""

    _send: Send
    _ends: tuple[_Address, _Address] | None
    _patience_s: float
    _rested_at: float
    #: When it will have waited too long.
    _overdue_at: float = field(default=float("inf"), init=False)

    async def send(self, message: Message) -> None:
        now = anyio.current_time()
        rested_s = now - self._rested_at
        self._overdue_at = now + min(PATIENCE_S, self._patience_s + rested_s)
        try:
            await self._send(message)
        except BaseException:
            self.sever()  # cut in the middle: nobody can tell what the caller has got
            raise
        finally:
            self.look()
            self._rested_at = anyio.current_time()
            self._patience_s = self._overdue_at - self._rested_at
            self._overdue_at = float("inf")

    def look(self) -> None:
        """Sever it if it is overdue."""
        if anyio.current_time() >= self._overdue_at:
            self.sever()

    def sever(self) -> None:
        """Shut down the connection that it goes by."""
        if self._ends is not None:
            ends, self._ends = self._ends, None
            sever(*ends)


@final
@define(eq=False)
class Stalls:
    """All responses that are being sent by one server."""

    _responses: set[_Response] = field(factory=set, init=False)

    async def watch(self) -> None:
        """Look after them until cancelled."""
        while True:
            await anyio.sleep(LOOK_S)
            for response in tuple(self._responses):
                response.look()

    def sever_all(self) -> None:
        """Wait for nobody any more."""
        for response in self._responses:
            response.sever()

    def begin(self, scope: Scope, send: Send) -> _Response:
        """A response to the request in *scope* begins."""
        local, remote = scope.get("server"), scope.get("client")
        ends = None if local is None or remote is None else (tuple(local[:2]), tuple(remote[:2]))
        response = _Response(send, ends, PATIENCE_S, anyio.current_time())
        self._responses.add(response)
        return response

    def end(self, response: _Response) -> None:
        """It has been sent, or given up."""
        self._responses.discard(response)


def sever(local: _Address, remote: _Address) -> None:
    """Shut down this process's TCP connection between *local* and *remote*: host and port each.

    ASGI does not say which descriptor a request came by, but the two addresses belong to one
    connection only. Nothing is closed that is somebody else's to close.
    """
    try:
        descriptors = [int(path.name) for path in Path("/dev/fd").iterdir()]
    except OSError:
        return  # Windows has none
    for descriptor in descriptors:
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue  # to close a copy of a file would give up locks on it (POSIX, fcntl)
            # Other threads open and close descriptors meanwhile: a copy stays what it is.
            with _socket_of(os.dup(descriptor)) as found:
                if _is_between(found, local, remote):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                    found.shutdown(socket.SHUT_RDWR)
                    return


def _socket_of(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise


def _is_between(found: socket.socket, local: _Address, remote: _Address) -> bool:
    if found.family not in {socket.AF_INET, socket.AF_INET6} or found.type != socket.SOCK_STREAM:
        return False
    between: tuple[_Address, _Address] = found.getsockname()[:2], found.getpeername()[:2]
    return between == (local, remote)
