"""Serving the gateway on a socket: hypercorn, which runs on trio and on asyncio alike."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import TaskStatus

from sark_trio.errors import ConfigError, TransportNotAvailableError
from sark_trio.gateway.app import Gateway
from sark_trio.gateway.asgi import Receive, Scope, Send
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.rest import failure
from sark_trio.gateway.stalls import Stalls

if TYPE_CHECKING:
    from hypercorn.config import Config

__all__ = ["serve"]

#: For a client that says nothing between two requests.
KEEP_ALIVE_S: Final = 30
#: For a client that takes no byte of its answer: as long as our own client waits to be read.
STALLED_S: Final = 10.0
#: What requests get beyond their grace to be told that it is over, and then the server itself.
_MARGIN_S: Final = 1.0
_BACKLOG: Final = 256
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_LOG: Final = logging.getLogger("sark_trio.gateway")


async def serve(
    app: Gateway,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    grace_s: float = 5.0,
    task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *app* until cancelled; ``await tasks.start(serve, app)`` gives its base URL.

    Cancelled, it takes no new connections, lets running requests end within *grace_s* and cancels
    the others; then nothing of it is left. Only a client that does not take its answer can hold
    that up, for :data:`STALLED_S` seconds.

    :param host: an address of this machine. One that others can reach needs *app* to ask for
        credentials; TLS is for a proxy in front of it to add.
    :param port: 0 takes a free one.
    :raises ConfigError: the address cannot be had, or would let strangers in.
    :raises TransportNotAvailableError: the extra ``serve`` is not installed.
    """
    run = _runner()
    listener = _listen(host, port)
    try:
        _check_open(app, listener)
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listener.getsockname()[1]}"
        config = _config(listener, grace_s)
    except BaseException:
        listener.close()
        raise
    listener.detach()  # hypercorn makes a socket of the descriptor, and closes that
    await _run(app, run, config, grace_s, lambda: task_status.started(url))


async def _run(app: Gateway, run: Any, config: Config, grace_s: float, started: Any) -> None:
    """Run hypercorn such that it always ends in its own, graceful way.

    Cancelled outright, it would leave connections of asyncio's behind: it is told to stop
    instead, and cancelled only if it does not.
    """
    stop, ended = anyio.Event(), anyio.Event()
    shielded = anyio.CancelScope(shield=True)
    failures: list[Exception] = []

    async def work() -> None:
        with shielded:
            try:
                spoken = partial(_speak_http1, app, stalls)
                await run(spoken, config, shutdown_trigger=stop.wait, mode="asgi")
            except Exception as exc:  # noqa: BLE001 - handed to whoever called us, ungrouped
                failures.append(exc)
            finally:
                ended.set()

    stalls = Stalls()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        tasks.start_soon(stalls.watch)
        started()
        try:
            await ended.wait()
        finally:
            stop.set()
            shielded.deadline = anyio.current_time() + grace_s + STALLED_S + 3 * _MARGIN_S
            with anyio.CancelScope(shield=True, deadline=shielded.deadline):
                with anyio.move_on_after(grace_s + _MARGIN_S):
                    await app.close(grace_s)
                stalls.sever_all()
                await ended.wait()
            tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]


async def _speak_http1(
    app: Gateway, stalls: Stalls, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve what came over HTTP/1, and nothing else.

    Hypercorn lets anybody upgrade a plain connection to HTTP/2. Through a proxy that passes the
    upgrade on, that is a tunnel in which the proxy's own rules see no request any more.
    """
    if scope["type"] == "http" and scope["http_version"] not in _VERSIONS:
        await failure(Refused(505, "http_version", "only HTTP/1.1 is spoken here")).send(send)
        return
    if scope["type"] != "http":
        await app(scope, receive, send)
        return
    response = stalls.begin(scope, send)
    try:
        await app(scope, receive, response.send)
    finally:
        stalls.end(response)


def _runner() -> Any:
    """Hypercorn's own entry for the event loop that runs us."""
    trio = anyio.get_cancelled_exc_class().__module__.startswith("trio")
    try:
        if trio:
            from hypercorn.trio import serve as on_trio  # noqa: PLC0415 - an optional extra

            return on_trio
        from hypercorn.asyncio import serve as on_asyncio  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise TransportNotAvailableError(
            "serving needs hypercorn: pip install 'sark_trio[serve]'"
        ) from exc
    return on_asyncio


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ConfigError(f"cannot listen on port {port}: it must be 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        what = exc.strerror or str(exc)
        if exc.errno == errno.EADDRINUSE:
            what = "another program has it; --port takes another one, 0 any that is free"
        elif exc.errno == errno.EACCES:
            what = f"{what}; ports below 1024 need privileges, others do not"
        raise ConfigError(f"cannot listen on {host!r}, port {port}: {what}") from exc
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Inherited by what it accepts: hypercorn waits without end for a peer that does not read.
        stalled_ms = int(STALLED_S * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled_ms)
    return listener


def _check_open(app: Gateway, listener: socket.socket) -> None:
    address = ipaddress.ip_address(listener.getsockname()[0])
    if app.access.open and not address.is_loopback:
        raise ConfigError(
            f"{address} can be reached from outside: give the gateway api_keys or a verifier"
        )


def _config(listener: socket.socket, grace_s: float) -> Config:
    from hypercorn.config import Config  # noqa: PLC0415 - an optional extra

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.alpn_protocols = ["http/1.1"]
    config.accesslog = None
    config.errorlog = _LOG
    config.backlog = _BACKLOG
    config.graceful_timeout = grace_s + 2 * _MARGIN_S
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_S
    return config
