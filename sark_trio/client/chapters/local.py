"""Servers that the application starts while it runs, each a process of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, TypeVar, final

import anyio
from attrs import define, field

from sark_trio.client.asked import ToolCall
from sark_trio.client.chapters.base import Chapter, check_timeout
from sark_trio.client.plans import Asked
from sark_trio.client.raw import TOOL_CALL, check_method, raw_notification, raw_request
from sark_trio.client.servers import Sensitivity, Stdio, ToolRule
from sark_trio.client.snapshots import UpstreamStatistics
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ClientClosed, InvalidArguments, UnknownServer
from sark_trio.governance.principal import Principal
from sark_trio.machines.limits import ResourceLimits

__all__ = ["Local", "LocalServerClient"]

T = TypeVar("T")

#: Of a program's name, as much as leaves room for a number within a server's name.
_STEM_CHARS_MAX: Final = 48


class Local(Chapter):
    """Local servers of a client."""

    @cached_property
    def _local(self) -> _Started:
        return _Started()

    async def connect_local_server(
        self,
        command: Sequence[str],
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        server_id: str | None = None,
        *,
        limits: ResourceLimits | None = None,
        trusted: bool = False,
        sensitivity: Sensitivity = "medium",
        tools: Mapping[str, ToolRule] | None = None,
        timeout_s: float | None = None,
    ) -> LocalServerClient:
        """Start *command*, agree on a version with it, and keep it as one more server.

        It is a server like every other: ``invoke_tool(server_id, ...)`` reaches it, policy decides
        on its calls, and it ends with the client at the latest.

        :param command: program and arguments; never a shell line.
        :param cwd: its working directory; ``None`` is ours.
        :param env: variables added to the few that are handed on; values are secrets.
        :param server_id: its name; ``None``: the program's, and a number that no other got.
        :param limits: what its processes may use of the machine (Linux); ``None``: what we may.
        :param trusted: believe its tool annotations; *sensitivity*, *tools* and *timeout_s* are
            those of :class:`~sark_trio.client.servers.Server`.
        :raises ConfigError: the name is taken, or an option cannot be; limits, for one, where the
            system has none.
        :raises TransportNotAvailableError: the client's transport mode forbids it.
        :raises ProcessStartError: it could not be started, or ended before it spoke MCP.
        """
        self._gateway.check("stdio", "connect_local_server")
        self._engine.open_tasks()
        server = Stdio(
            command,
            cwd=cwd,
            env=env or {},
            limits=limits,
            trusted=trusted,
            sensitivity=sensitivity,
            tools=tools or {},
            timeout_s=timeout_s,
        )
        name = (
            self._local.name_for(server.command, self._engine.upstreams)
            if server_id is None
            else server_id
        )
        await self._engine.add(name, server)
        upstream = self._engine.upstream(name)
        try:
            await upstream.connect()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._end(upstream)
            raise
        handle = LocalServerClient(
            server_id=name,
            upstream=upstream,
            principal=self._principal,
            invoke=partial(self._invoke, upstream),
            end=self.disconnect_local_server,
        )
        self._local.handles[name] = handle
        self._note("local_server_connected", name, upstream)
        return handle

    async def disconnect_local_server(self, server_id: str) -> None:
        """End the process of a server that :meth:`connect_local_server` started, and forget it.

        Its running calls fail; returns when nothing of it is left.

        :raises UnknownServer: none such was started, or it was ended already.
        """
        handle = self._local.handles.pop(server_id, None)
        if handle is None:
            raise UnknownServer(f"no local server {server_id!r} was started", server=server_id)
        handle.stopped = True
        self._note("local_server_disconnected", server_id, handle.upstream)
        await self._end(handle.upstream)

    def reset_server(self, name: str) -> None:
        """Say that a server is well again: its breaker closes, and its process may start.

        A server whose process ended too often is down for five minutes
        (:class:`~sark_trio.errors.ServerDown`); whoever mended it need not wait.

        :raises UnknownServer: there is none of that name.
        """
        self._engine.upstream(name).reset()
        self._caller.audit.event_nowait("server_reset", {"server": name})

    async def _end(self, upstream: Upstream) -> None:
        """Forget and close a server of ours, begun afresh meanwhile or not."""
        # Else ``remove_server`` was faster, and another one may have its name.
        with suppress(UnknownServer):
            upstream = await self._engine.take_out(upstream.name, upstream.server)
        await self._leave(upstream)

    def _note(self, what: str, name: str, upstream: Upstream) -> None:
        # Arguments may hold secrets: who knows the command can compare, nobody can read it.
        audit, server = self._caller.audit, upstream.server
        assert isinstance(server, Stdio)
        command = audit.reference("\0".join(server.command))
        audit.event_nowait(what, {"server": name, "program": server.address, "command": command})

    async def _invoke(self, upstream: Upstream, asked: Asked[T]) -> T:
        self._engine.open_tasks()
        return await self._caller.invoke(upstream, asked)


@final
@define(eq=False, kw_only=True)
class LocalServerClient:
    """A local server, for whoever started it. Every message through it is governed.

    :param server_id: its name among the client's servers.
    """

    server_id: str
    upstream: Upstream = field(repr=False)
    #: Whether it was ended for good.
    stopped: bool = field(default=False, init=False)
    _principal: Principal = field(repr=False)
    _invoke: Callable[[Asked[Any]], Awaitable[Any]] = field(repr=False)
    _end: Callable[[str], Awaitable[None]] = field(repr=False)

    async def send_request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = 30.0,
        *,
        principal: Principal | None = None,
    ) -> dict[str, Any]:
        """Send one request, if policy allows it, and return its ``result`` member.

        ``tools/call`` is decided, recorded and retried exactly as
        :meth:`~sark_trio.client.gateway.GatewayClient.invoke_tool` does. Of everything else policy
        is asked the action ``gateway:server:request`` with the method in ``context.method``.

        :param timeout_s: deadline in seconds, at most 300; ``None``: the configured one. There is
            no way to wait for ever.
        :param principal: who asks; default: the client's.
        :raises Denied: policy said no, or could not say yes.
        :raises InvalidArguments: a method or parameters that cannot be sent this way.
        :raises GatewayError: anything else; ``delivery`` says how far it got.
        """
        self._check(method, params, notification=False)
        check_timeout(timeout_s)
        common = {"principal": principal or self._principal, "timeout_s": timeout_s}
        if method == TOOL_CALL:
            return dict((await self._invoke(_tool_call(params or {}, common))).raw)
        result: dict[str, Any] = await self._invoke(raw_request(method, params or {}, **common))
        return result

    async def send_notification(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        principal: Principal | None = None,
    ) -> None:
        """Send one notification, if policy allows it (``gateway:server:notify``).

        Returns when it is queued: nothing ever says that it arrived. The same errors as
        :meth:`send_request`.
        """
        self._check(method, params, notification=True)
        who = principal or self._principal
        await self._invoke(raw_notification(method, params or {}, principal=who))

    @property
    def is_running(self) -> bool:
        """Whether its process runs. One that ended is started again by the next request."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The id of its process; ``None`` while there is none."""
        pid: int | None = self.upstream.statistics().wire.details["pid"]
        return pid

    def statistics(self) -> UpstreamStatistics:
        """A snapshot; ``wire.supervision`` has restarts, and until when it is down."""
        return self.upstream.statistics()

    async def stop(self) -> None:
        """End the process and forget the server. Idempotent."""
        if not self.stopped:
            await self._end(self.server_id)

    def _check(self, method: str, params: object, *, notification: bool) -> None:
        if self.stopped:
            raise ClientClosed(f"{self.server_id}: it was stopped", server=self.server_id)
        check_method(method, notification=notification)
        if params is not None and not isinstance(params, Mapping):
            raise InvalidArguments("parameters are an object (MCP), so give a mapping")


@final
@define(eq=False)
class _Started:
    """What a client started, and how many of each program."""

    handles: dict[str, LocalServerClient] = field(factory=dict)
    _numbers: Counter[str] = field(factory=Counter)

    def name_for(self, command: Sequence[str], taken: Mapping[str, object]) -> str:
        """The program's name and the next number that is free; never the same one twice."""
        program = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(command[0]).name).lstrip("._-")
        stem = program[:_STEM_CHARS_MAX] or "server"
        while True:
            self._numbers[stem] += 1
            name = f"{stem}-{self._numbers[stem]}"
            if name not in taken:
                return name


def _tool_call(params: Mapping[str, Any], common: Mapping[str, Any]) -> ToolCall:
    """The parameters of a ``tools/call`` as the one way on which tools are called.

    :raises InvalidArguments: they say more than a name and arguments, or not even these.
    """
    others = sorted(map(str, params.keys() - {"name", "arguments"}))
    if others:
        raise InvalidArguments(f"tools/call: {', '.join(others)} cannot be given; use invoke_tool")
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise InvalidArguments("tools/call needs a name, a string, and arguments, an object")
    return ToolCall(tool=name, arguments=arguments, **common)
