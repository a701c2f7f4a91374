"""How a user gets to the authorization server and back: through the application, or loopback."""

from __future__ import annotations

import hmac
import webbrowser
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, final
from urllib.parse import parse_qs, urljoin, urlsplit

import anyio
import anyio.to_thread
from anyio.abc import ByteStream, Listener, SocketAttribute
from attrs import define, field, frozen

from sark_trio.auth.urls import is_loopback, place_of
from sark_trio.errors import ConfigError

__all__ = ["AppRedirects", "LoopbackRedirects", "Redirects", "Waiting"]

#: Of a browser's request: cookies of other services on this host come along.
_HEAD_BYTES_MAX: Final = 64 * 1024
#: For a browser to send its request.
_HEAD_S: Final = 10.0
#: Browsers connect ahead and ask for icons; whatever else connects must not use us up.
_CONNECTIONS_MAX: Final = 16
#: For closing the socket, which does not wait for anybody.
_CLOSE_S: Final = 1.0
_PAGE: Final = (
    "<!doctype html><meta charset=utf-8><title>sark</title><p>{}</p>"
    "<p>You may close this window.</p>"
)


class Waiting(Protocol):
    """Ready for one user who is sent away and comes back."""

    @property
    def redirect_uri(self) -> str:
        """Where the user comes back to."""

    async def authorize(self, url: str) -> str:
        """Send the user to *url*; the URL that he came back with."""

    async def aclose(self) -> None:
        """Stop waiting. Never raises."""


class Redirects(Protocol):
    """Gets ready for one sign-in."""

    async def open(self) -> Waiting:
        """Be ready, with a redirect URI that will not change."""


@final
@frozen(eq=False)
class AppRedirects:
    """The application has a URL of its own, or another way to get the user's answer.

    :param redirect_uri: as it is registered: ``https``, loopback, or a scheme of the
        application's own.
    :param authorize: awaited with the authorization URL; returns the whole URL that the user
        was redirected to. It is checked here, not there.
    """

    redirect_uri: str = field()
    authorize: Callable[[str], Awaitable[str]] = field(repr=False)

    @redirect_uri.validator
    def _check(self, _: Any, value: str) -> None:
        place = place_of(value)
        own_scheme = place is None and "." in value.partition(":")[0] and value.isascii()
        if not own_scheme and (
            place is None or (place.scheme != "https" and not is_loopback(value))
        ):
            raise ConfigError("neither https:// nor loopback", source="redirect_uri")

    async def open(self) -> AppRedirects:
        """Itself: the application is ready."""
        return self

    async def aclose(self) -> None:
        """Nothing was opened."""


async def _show(url: str) -> None:
    await anyio.to_thread.run_sync(webbrowser.open, url, abandon_on_cancel=True)


@final
@frozen(eq=False, kw_only=True)
class LoopbackRedirects:
    """A web server on this machine, for one sign-in (RFC 8252, section 7.3).

    :param port: 0 takes any free one, which authorization servers must allow; some do not.
    :param path: of the redirect URI.
    :param show: awaited with the authorization URL; default: open a browser.
    """

    port: int = 0
    path: str = "/callback"
    show: Callable[[str], Awaitable[None]] = field(default=_show, repr=False)

    async def open(self) -> Waiting:
        """Listen. The port is taken from here on.

        :raises ConfigError: it is taken already.
        """
        try:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port)
        except OSError as exc:
            raise ConfigError(f"cannot listen: {exc.strerror}", source="port") from exc
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django
        return _Loopback(listener, f"http://127.0.0.1:{port}{self.path}", self.show)


@final
@define(eq=False)
class _Loopback:
    """One listening socket, until the user comes back."""

    _listener: Listener[ByteStream]
    redirect_uri: str
    _show: Callable[[str], Awaitable[None]]
    _state: str = field(default="", init=False, repr=False)
    _result: str | None = field(default=None, init=False, repr=False)
    _came: anyio.Event = field(factory=anyio.Event, init=False)
    _places: anyio.CapacityLimiter = field(
        factory=lambda: anyio.CapacityLimiter(_CONNECTIONS_MAX), init=False
    )

    async def authorize(self, url: str) -> str:
        """Show *url*, and wait for the redirect that answers it."""
        self._state = parse_qs(urlsplit(url).query).get("state", [""])[0]
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._listener.serve, self._handle)
            try:
                await self._show(url)
                await self._came.wait()
            except Exception as exc:  # noqa: BLE001 - raised below, and not as a group
                failure = exc
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        assert self._result is not None
        return self._result

    async def aclose(self) -> None:
        """Close the socket."""
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await self._listener.aclose()

    async def _handle(self, stream: ByteStream) -> None:
        async with stream, self._places:
            with anyio.move_on_after(_HEAD_S):
                try:
                    target = await _target(stream)
                    answer, done = self._answer(target)
                    await stream.send(answer)
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
                if done:
                    # After the page is out: what ends the waiting closes this connection, too.
                    self._result = urljoin(self.redirect_uri, target)
                    self._came.set()

    def _answer(self, target: str) -> tuple[bytes, bool]:
        """The page for *target*, and whether that is what we wait for.

        Any page in the browser can make it ask us things; it does not know our state.
        """
        if urlsplit(target).path != urlsplit(self.redirect_uri).path:
            return _page("404 Not Found", "There is nothing here."), False
        state = parse_qs(urlsplit(target).query).get("state", [""])[0]
        if not self._state or not hmac.compare_digest(state.encode(), self._state.encode()):
            return _page("400 Bad Request", "This is not the sign-in that was asked for."), False
        return _page("200 OK", "The answer has arrived."), True


async def _target(stream: ByteStream) -> str:
    """The request target of a GET, once its head has come; empty for anything else."""
    head = bytearray()
    while b"\r\n\r\n" not in head:
        if len(head) > _HEAD_BYTES_MAX:
            return ""
        head += await stream.receive()
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    fits = len(words) == 3 and words[0] == "GET" and words[1].startswith("/")
    return words[1] if fits else ""


def _page(status: str, text: str) -> bytes:
    body = _PAGE.format(text).encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\ncache-control: no-store\r\n"
        # The URL holds the code: it goes nowhere from here.
        "referrer-policy: no-referrer\r\ncontent-security-policy: default-src 'none'\r\n\r\n"
    )
    return head.encode() + body
