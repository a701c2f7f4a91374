"""As much of ASGI 3.0 as this room needs: one request, its bounded body, one reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, final
from urllib.parse import parse_qsl, unquote

import anyio
from attrs import define, field, frozen

from sark_trio import jsontext
from sark_trio.gateway.faults import Refused

__all__ = ["Message", "Receive", "Reply", "Request", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: For the whole body of a request. Slower ones hold a connection for nothing.
BODY_S: Final = 30.0
#: For throwing away the rest of a body that was refused: a caller that still writes when the
#: connection is closed would lose the reply, too (RFC 9112, section 9.6).
DISCARD_S: Final = 2.0
#: Of such a body, in largest bodies.
_DISCARD_FACTOR: Final = 4
#: Parameters of one query; the dialect knows three.
QUERY_FIELDS_MAX: Final = 16
#: Two of one of these would let a proxy and this server disagree on what was asked.
_SINGLE: Final = frozenset(
    {
        "authorization",
        "content-length",
        "content-type",
        "host",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "origin",
        "x-api-key",
        "x-gateway-api-key",
    }
)


@final
@frozen(kw_only=True)
class Reply:
    """A whole response."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def json(
        cls, value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
    ) -> Reply:
        """*value* as JSON."""
        return cls(status=status, body=jsontext.encode(value), headers=headers)

    @classmethod
    def empty(cls, status: int, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
        """A status that says it all."""
        return cls(status=status, content_type=None, headers=headers)

    async def send(self, send: Send) -> None:
        """Send it."""
        headers = [("content-length", str(len(self.body))), *self.headers]
        if self.content_type is not None:
            headers.append(("content-type", self.content_type))
        raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": self.body})


@final
@define(eq=False)
class Request:
    """One HTTP request; names of headers are lower case.

    :param body_bytes_max: largest body that is taken.
    """

    method: str
    #: Segments of the path, decoded one by one: an encoded slash separates nothing.
    path: tuple[str, ...]
    query_string: bytes
    headers: Mapping[str, str]
    scheme: str
    #: A header that stands twice and must not.
    doubled: str | None
    _receive: Receive
    _body_bytes_max: int
    #: Whether the body has been read to its end.
    consumed: bool = field(default=False, init=False)
    _body: bytes | None = field(default=None, init=False)

    @classmethod
    def of(cls, scope: Scope, receive: Receive, body_bytes_max: int) -> Request:
        """The request in *scope*."""
        headers: dict[str, str] = {}
        doubled = None
        for raw_name, raw_value in scope["headers"]:
            name = raw_name.decode("latin-1").lower()
            if name in headers and name in _SINGLE:
                doubled = name
            value = raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        raw_path = scope.get("raw_path") or scope["path"].encode()
        path = tuple(unquote(part) for part in raw_path.decode("latin-1").split("/")[1:])
        return cls(
            method=scope["method"],
            path=path,
            query_string=scope.get("query_string", b""),
            headers=headers,
            scheme=scope.get("scheme", "http"),
            doubled=doubled,
            receive=receive,
            body_bytes_max=body_bytes_max,
        )

    def query(self) -> dict[str, str]:
        """The parameters of the query.

        :raises Refused: it is none, or one stands twice.
        """
        try:
            pairs = parse_qsl(
                self.query_string.decode("ascii"),
                keep_blank_values=True,
                max_num_fields=QUERY_FIELDS_MAX,
                errors="strict",
            )
        except ValueError:
            raise Refused(400, "invalid_request", "the query is malformed") from None
        query = dict(pairs)
        if len(query) != len(pairs):
            raise Refused(400, "invalid_request", "a parameter stands twice in the query")
        return query

    @property
    def unread(self) -> bool:
        """Whether it has a body that nobody has read to its end."""
        length = self.headers.get("content-length", "0")
        return not self.consumed and (length != "0" or "transfer-encoding" in self.headers)

    @property
    def content_type(self) -> str:
        """The media type of the body, lower case and without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def names(self, media_type: str) -> bool:
        """Whether the caller asks for *media_type* by its name."""
        return media_type in self.headers.get("accept", "").lower()

    def accepts(self, media_type: str) -> bool:
        """Whether the caller takes *media_type* (RFC 9110, section 12.5.1; weights are ignored)."""
        ranges = self.headers.get("accept", "*/*").lower().split(",")
        kinds = {one.partition(";")[0].strip() for one in ranges}
        return bool(kinds & {media_type, f"{media_type.partition('/')[0]}/*", "*/*"})

    async def body(self) -> bytes:
        """The whole JSON body, also when asked again.

        :raises Refused: it is too large, too slow, cut short, or not said to be JSON.
        """
        if self._body is not None:
            return self._body
        if self.content_type != "application/json":
            # Nor can a page in a browser send that type without asking first (Fetch, "CORS").
            raise Refused(415, "unsupported_media_type", "the body must be application/json")
        length = self.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._body_bytes_max:
            raise self._too_large()
        pieces = bytearray()
        with anyio.move_on_after(BODY_S):
            while not self.consumed:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "invalid_request", "the body was cut short")
                pieces += message.get("body", b"")
                if len(pieces) > self._body_bytes_max:
                    raise self._too_large()
                self.consumed = not message.get("more_body", False)
        if not self.consumed:
            raise Refused(408, "timeout", f"the body took longer than {BODY_S:g} s")
        self._body = bytes(pieces)
        return self._body

    async def discard(self) -> None:
        """Throw the rest of the body away, as far as that is worth it."""
        room = _DISCARD_FACTOR * self._body_bytes_max
        with anyio.move_on_after(DISCARD_S):
            while self.unread and room > 0:
                message = await self._receive()
                room -= len(message.get("body", b""))
                self.consumed = not message.get("more_body", False)

    async def gone(self) -> None:
        """Wait until the caller has gone away; what it still sends is thrown away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _too_large(self) -> Refused:
        return Refused(413, "too_large", f"the body is larger than {self._body_bytes_max} bytes")
