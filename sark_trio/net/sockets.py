"""Opening TCP connections: one non-blocking socket out of several addresses.

Whatever ends an attempt (failure, timeout, cancellation, a faster rival) closes its socket
synchronously, in the step in which it ends: no descriptor waits for the garbage collector.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

import anyio

from sark_trio.net.addresses import Address

__all__ = ["open_socket", "tune"]

#: RFC 8305, section 8: head start of each address over the next one.
ATTEMPT_DELAY_S = 0.25
#: Seconds of silence after which the kernel asks whether the peer is still there, the pause
#: between its questions, and how many stay unanswered: a dead peer is found in 30 s.
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
#: Milliseconds for which sent bytes may stay unacknowledged (RFC 5482).
_USER_TIMEOUT_MS = 30_000


def tune(sock: socket.socket) -> None:
    """Set the options of a connection: no Nagle, and half-open peers are found in 30 s."""
    wanted = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    named = (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS))
    for name, value in named:
        option = getattr(socket, name, None)  # not every platform has every one
        if option is not None:
            wanted.append((socket.IPPROTO_TCP, option, value))
    for level, option, value in wanted:
        with suppress(OSError):  # a connection without them is worse, but is one
            sock.setsockopt(level, option, value)


async def open_socket(addresses: Sequence[Address]) -> socket.socket:
    """A non-blocking socket, connected to the first address that answers (RFC 8305).

    :raises OSError: none answers; the error of the first address, the others as notes.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0])
    return await _race(addresses)


async def _connect(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        tune(sock)
        with suppress(BlockingIOError):
            sock.connect((str(address.ip), address.port))
        # Also where it connected at once: a dial is always a checkpoint.
        await anyio.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if sock.getsockname() == sock.getpeername():
            # A port of the ephemeral range that nobody listens on: TCP's simultaneous open
            # connected the socket to itself, and we would answer our own request.
            raise ConnectionRefusedError("connected to itself")
    except BaseException:
        sock.close()
        raise
    return sock


class _Race:
    """Attempts that run at once, the first to succeed wins."""

    def __init__(self) -> None:
        self.winner: socket.socket | None = None
        self.failures: list[OSError] = []

    async def attempt(
        self, address: Address, group: anyio.abc.TaskGroup, failed: anyio.Event
    ) -> None:
        try:
            sock = await _connect(address)
        except OSError as exc:
            exc.add_note(f"while connecting to {address.ip}")
            self.failures.append(exc)
            failed.set()
            return
        if self.winner is not None:
            sock.close()
            return
        self.winner = sock
        group.cancel_scope.cancel()


async def _race(addresses: Sequence[Address]) -> socket.socket:
    race = _Race()
    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                failed = anyio.Event()
                group.start_soon(race.attempt, address, group, failed)
                with anyio.move_on_after(ATTEMPT_DELAY_S):
                    await failed.wait()
    except BaseException:
        if race.winner is not None:
            race.winner.close()
        raise
    if race.winner is not None:
        return race.winner
    first, *others = race.failures
    for other in others:
        first.add_note(f"also: {other}")
    raise first
