"""The pool's body: does what ``machines.pool`` decides, with sockets, tasks and a clock.

Everything that changes who owns a connection happens in synchronous code: performing the
machine's effects never waits. Dials run in the pool's own task group, so cancelling a caller
never abandons a half-made socket, and a finished dial that nobody wants any more goes idle.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import final

import anyio
import httpcore
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from sark_trio.errors import (
    ClientClosed,
    ConnectError,
    GatewayError,
    Overloaded,
    PoolTimeout,
    ServerDisconnected,
)
from sark_trio.machines.pool import (
    Close,
    Dial,
    Effect,
    Fail,
    Fault,
    Grant,
    Pool,
    PoolOptions,
    PoolStatistics,
)
from sark_trio.net.clock import lasting_time, suspended_s
from sark_trio.net.connection import Connection
from sark_trio.net.dial import close_stream, dial
from sark_trio.net.lease import Lease
from sark_trio.net.options import Timeouts
from sark_trio.net.streams import SocketStream
from sark_trio.net.tls import TLSOptions
from sark_trio.net.url import Origin
from sark_trio.telemetry.events import ConnectionClosed, ConnectionOpened, PoolWaited
from sark_trio.telemetry.hooks import Reporter

__all__ = ["ConnectionPool", "Lease"]


@define(eq=False)
class _Wait:
    """One caller who waits for a connection."""

    done: anyio.Event = field(factory=anyio.Event)
    granted: bool = False
    failure: Fail | None = None


@final
class ConnectionPool:
    """Connections to any number of origins, within the limits of ``PoolOptions``.

    :meth:`run` must be running while it is used.

    :param backend: where streams come from: any of httpcore's network interface.
    :param report: told of connections, and of waits for one.
    """

    __slots__ = (
        "_backend",
        "_connections",
        "_dials",
        "_group",
        "_machine",
        "_report",
        "_timeouts",
        "_timer",
        "_tls",
        "_waits",
        "_wake_at",
        "draining",
    )

    def __init__(
        self,
        *,
        backend: httpcore.AsyncNetworkBackend,
        options: PoolOptions | None = None,
        timeouts: Timeouts | None = None,
        tls: TLSOptions | None = None,
        report: Reporter | None = None,
    ) -> None:
        self._backend = backend
        self._report = report
        self._timeouts = timeouts or Timeouts()
        self._tls = tls or TLSOptions()
        self._machine = Pool(options or PoolOptions())
        self._connections: dict[int, Connection] = {}
        self._dials: dict[int, anyio.CancelScope] = {}
        self._waits: dict[int, _Wait] = {}
        self._group: TaskGroup | None = None
        self._timer = anyio.Event()
        self._wake_at = inf
        #: Leased connections in our own hands, whose lessee left a short rest of the response.
        self.draining = 0

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the connections until :meth:`shutdown` has drained them, or cancelled.

        When it returns, however it returns, no socket is left.
        """
        try:
            async with anyio.create_task_group() as self._group:
                task_status.started()
                await self._keep_time()
                self._group.cancel_scope.cancel()
        finally:
            self._group = None

    def lease_nowait(self, origin: Origin, *, stream: bool = False) -> Lease | None:
        """A connection that is idle and fit for use, or ``None``: then :meth:`lease` one."""
        now = lasting_time()
        while (slot := self._machine.try_lease(now, origin, stream=stream)) is not None:
            connection = self._connections[slot]
            if not connection.is_stale():
                return Lease(connection, slot, self._take_back)
            connection.reusable = False
            self._take_back(slot, connection)
        return None

    async def lease(self, origin: Origin, *, stream: bool = False, fresh: bool = False) -> Lease:
        """A connection to *origin*, idle or new, as soon as the limits allow.

        :param stream: it will be held for long (an event stream).
        :param fresh: only one on which nothing has been sent yet.
        :raises PoolTimeout: none came free within ``timeouts.pool_s``.
        :raises Overloaded: too many wait already, or too many streams are open.
        :raises ConnectError: dialing failed (``ConnectTimeout``, ``TLSError``).
        :raises ServerDisconnected: the server closed a new connection, or spoke, unasked.
        :raises ClientClosed: the pool is shut down.
        """
        while True:
            lease = None if fresh else self.lease_nowait(origin, stream=stream)
            lease = lease or await self._wait_for_lease(origin, stream=stream)
            connection = lease.connection
            is_new = connection.exchanges == 0
            if (is_new or not fresh) and not connection.is_stale():
                return lease
            lease.discard()
            if is_new:
                raise ServerDisconnected(
                    f"{origin}: the server closed the new connection, or spoke unasked",
                    delivery="not_sent",
                )

    def shutdown(self) -> None:
        """Take no more callers; idle connections and dials end now, leases within the grace."""
        self._perform(self._machine.shutdown(lasting_time()))

    def statistics(self) -> PoolStatistics:
        """A snapshot of the machine's counters."""
        return self._machine.statistics()

    def __repr__(self) -> str:
        return f"<ConnectionPool {self._machine!r}>"

    # Callers.

    async def _wait_for_lease(self, origin: Origin, *, stream: bool) -> Lease:
        if self._group is None:
            raise ClientClosed("the connection pool is not running")
        now = anyio.current_time()
        ticket, effects = self._machine.want(lasting_time(), origin, stream=stream)
        wait = self._waits[ticket] = _Wait()
        self._perform(effects)
        limit = self._timeouts.pool_s
        if any(isinstance(effect, Dial) for effect in effects):
            limit += self._timeouts.connect_s  # the dial has its own limit, and error, for that
        try:
            with anyio.CancelScope(deadline=now + limit):
                await wait.done.wait()
        except BaseException:
            self._waited(now, granted=False)
            self._give_up(ticket, wait)
            raise
        self._waited(now, granted=wait.granted)
        if not wait.granted:
            self._give_up(ticket, wait)
            raise self._error(origin, wait.failure, limit)
        del self._waits[ticket]
        slot = self._machine.start(lasting_time(), ticket)
        if isinstance(slot, Fault):
            raise ClientClosed("the connection pool was shut down")
        return Lease(self._connections[slot], slot, self._take_back)

    def _waited(self, since: float, *, granted: bool) -> None:
        if self._report is not None:
            seconds = anyio.current_time() - since
            event = PoolWaited(server=self._report.server, seconds=seconds, granted=granted)
            self._report.emit(event)

    def _give_up(self, ticket: int, wait: _Wait) -> None:
        # Granted but not started: the machine hands the connection on in this very step.
        del self._waits[ticket]
        if wait.failure is None:
            self._perform(self._machine.cancel(lasting_time(), ticket))

    @staticmethod
    def _error(origin: Origin, failure: Fail | None, limit: float) -> GatewayError:
        match failure:
            case None:
                return PoolTimeout(f"{origin}: no connection came free within {limit:g} s")
            case Fail(reason="full"):
                return Overloaded(f"{origin}: too many calls wait for a connection")
            case Fail(reason="streams_full"):
                return Overloaded(f"{origin}: too many event streams are open")
            case Fail(error=GatewayError() as error):
                return error.twin()  # others may have waited for the same dial
            case Fail(reason="dial_failed"):
                return ConnectError(f"{origin}: the connection attempt was given up")
        return ClientClosed("the connection pool is shut down")

    def _take_back(self, slot: int, connection: Connection) -> None:
        clean = connection.finish()
        # What was closed under the lessee's hands has nothing left to read, and nobody to read it.
        held = slot in self._connections
        if held and not clean and connection.reusable and self._group is not None:
            self.draining += 1
            self._group.start_soon(self._drain, slot, connection)
        else:
            self._give_back(slot, clean=clean)

    async def _drain(self, slot: int, connection: Connection) -> None:
        clean = False
        try:
            clean = await connection.drain()
        finally:
            self.draining -= 1
            self._give_back(slot, clean=clean)

    def _give_back(self, slot: int, *, clean: bool) -> None:
        if slot in self._connections:  # else it was closed under the lessee's hands
            self._perform(self._machine.give_back(lasting_time(), slot, clean=clean))

    # Effects.

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        """Do as the machine says, and as it says to what came of that; without waiting."""
        work = deque(effects)
        while work:
            effect = work.popleft()
            match effect:
                case Dial(slot=slot, origin=Origin() as origin):
                    self._start_dial(slot, origin)
                case Grant(ticket=ticket):
                    wait = self._waits[ticket]
                    wait.granted = True
                    wait.done.set()
                case Fail(ticket=ticket):
                    wait = self._waits[ticket]
                    wait.failure = effect
                    wait.done.set()
                case Close(slot=slot):
                    work.extend(self._close(slot))
                case _:
                    raise AssertionError(f"the pool's body and machine disagree: {effect}")
        self._reset_timer()

    def _close(self, slot: int) -> tuple[Effect, ...]:
        scope = self._dials.get(slot)
        if scope is not None:
            scope.cancel()  # the dialer closes its socket and reports
            return ()
        connection = self._connections.pop(slot)
        stream = connection.stream
        if self._report is not None:
            exchanges = connection.exchanges
            event = ConnectionClosed(server=self._report.server, exchanges=exchanges)
            self._report.emit(event)
        if isinstance(stream, SocketStream):
            stream.close()
        elif self._group is not None:
            self._group.start_soon(self._close_foreign, slot, stream)
            return ()
        return self._machine.closed(lasting_time(), slot)

    async def _close_foreign(self, slot: int, stream: httpcore.AsyncNetworkStream) -> None:
        try:
            await close_stream(stream)
        finally:
            self._perform(self._machine.closed(lasting_time(), slot))

    def _start_dial(self, slot: int, origin: Origin) -> None:
        assert self._group is not None
        self._dials[slot] = anyio.CancelScope()
        self._group.start_soon(self._dial, slot, origin)

    async def _dial(self, slot: int, origin: Origin) -> None:
        error: GatewayError | None = None
        connection: Connection | None = None
        began = anyio.current_time()
        try:
            with self._dials[slot]:
                connection = await dial(origin, self._backend, self._tls, self._timeouts)
        except GatewayError as exc:
            error = exc
        finally:
            del self._dials[slot]
            now = lasting_time()
            if connection is not None:
                self._connections[slot] = connection
                if self._report is not None:
                    seconds = anyio.current_time() - began
                    event = ConnectionOpened(server=self._report.server, seconds=seconds)
                    self._report.emit(event)
                self._perform(self._machine.dialed(now, slot))
            else:
                self._perform(self._machine.dial_failed(now, slot, error))

    # Time.

    async def _keep_time(self) -> None:
        try:
            while not self._machine.drained:
                self._timer = anyio.Event()
                self._wake_at = self._machine.next_deadline() or inf
                with anyio.CancelScope(deadline=self._wake_at - suspended_s()):
                    await self._timer.wait()
                self._perform(self._machine.tick(lasting_time()))
        finally:
            # Cancelled: no grace. What is leased is closed under its lessee's hands.
            self._perform(self._machine.shutdown(lasting_time()))
            self._perform(self._machine.tick(inf))

    def _reset_timer(self) -> None:
        deadline = self._machine.next_deadline()
        if self._machine.drained or (deadline is not None and deadline < self._wake_at):
            self._timer.set()
