"""HTTP/1.1 on one stream, the client's side: one exchange at a time (RFC 9112, over h11).

Theory of operation. ``send`` writes head and body with one call and reads until the head of
the final response; ``read_piece`` (or ``read_body``) reads on. ``finish`` tells, without I/O,
whether the response has ended and the next exchange may begin; ``drain`` tries a little to
get there. Any error, and any byte that no response accounts for, makes the connection unfit
for ever: ``reusable`` is false, and its owner closes it.

Errors carry ``delivery``: ``not_sent`` as long as the kernel took no byte of the request.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import final

import anyio
import h11
import httpcore
from attrs import define, field

from sark_trio.errors import (
    Delivery,
    GatewayError,
    MessageTooLarge,
    ProtocolError,
    ReadTimeout,
    ServerDisconnected,
    WriteTimeout,
)
from sark_trio.net.decoding import GzipDecoder, body_too_large, decoder_for
from sark_trio.net.framing import (
    ChunkWaste,
    HeadReader,
    Request,
    ResponseHead,
    check_framing,
    request_head,
)
from sark_trio.net.options import Timeouts

__all__ = ["Connection", "Request"]

_READ_BYTES = 64 * 1024
#: Larger requests are written in pieces while we listen for an early answer (413); smaller
#: ones fit into any socket buffer, so that writing them does not wait.
_WRITE_BYTES = 64 * 1024
#: 1xx responses before the final one. Go allows 5.
_INTERIM_MAX = 8
#: Rest of a response that is worth reading to keep the connection, and for how long.
DRAIN_BYTES_MAX = 64 * 1024
DRAIN_S = 0.05
#: What h11 is told that we sent. All that its reading depends on is that it was no HEAD and no
#: CONNECT; the bytes are made by ``request_head``.
_SHADOW = h11.Request(method=b"POST", target=b"/", headers=[(b"Host", b"shadow")])
_SHADOW_END = h11.EndOfMessage()


@final
@define(eq=False, repr=False)
class Connection:
    """One connection to one origin."""

    _stream: httpcore.AsyncNetworkStream
    _timeouts: Timeouts
    #: Exchanges begun.
    exchanges: int = field(default=0, init=False)
    #: Whether a byte of the present response has come.
    answered: bool = field(default=False, init=False)
    #: Whether the next exchange may begin on it, once the present one has finished.
    reusable: bool = field(default=True, init=False)
    _h11: h11.Connection = field(init=False, factory=lambda: h11.Connection(h11.CLIENT))
    _head: HeadReader = field(init=False, factory=HeadReader)
    _decoder: GzipDecoder | None = field(default=None, init=False)
    _deadline: float = field(default=0.0, init=False)
    _ended: bool = field(default=True, init=False)
    _length: int = field(default=0, init=False)
    _waste: ChunkWaste = field(init=False, factory=ChunkWaste)
    _written_before: int | None = field(default=None, init=False)

    @property
    def stream(self) -> httpcore.AsyncNetworkStream:
        """What it runs on, for whoever has to close it."""
        return self._stream

    def is_stale(self) -> bool:
        """Whether an idle connection must not be used: the peer closed it, or spoke unasked."""
        return not self.reusable or bool(self._stream.get_extra_info("is_readable"))

    async def send(
        self, request: Request, on_sent: Callable[[], None] = lambda: None
    ) -> ResponseHead:
        """Send *request*, and wait for the head of its response.

        :param on_sent: called when the kernel has taken the first bytes, maybe more than once.
        :raises InvalidArguments: the request cannot be HTTP (CR, LF or NUL in a header, ...).
        :raises ServerDisconnected: the peer closed or reset the connection.
        :raises WriteTimeout, ReadTimeout: it did not take, or send, a byte for too long.
        :raises ProtocolError: what came is not a response that we accept.
        """
        data = self._begin(request)
        try:
            if len(data) <= _WRITE_BYTES:
                written = await self._write(data, on_sent)
                head = await self._read_head()
            else:
                written, head = await self._write_and_listen(data, on_sent)
        except BaseException:
            self.reusable = False
            if self._delivery != "not_sent":  # in the middle of the first piece
                on_sent()
            raise
        if not written:
            # The server would take what we send next for the rest of this request.
            self.reusable = False
        return head

    async def read_body(self, bytes_max: int) -> bytes:
        """The rest of the response's body, decoded.

        :raises MessageTooLarge: it is larger than *bytes_max*; the same errors as ``send``.
        """
        if self._length > bytes_max:
            self.reusable = False
            raise body_too_large(bytes_max)
        pieces: list[bytes] = []
        room = bytes_max
        try:
            while piece := await self.read_piece(room):
                pieces.append(piece)
                room -= len(piece)
        except MessageTooLarge:
            raise body_too_large(bytes_max) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_piece(self, bytes_max: int) -> bytes:
        """Some bytes of the body, decoded; ``b""`` at its end. The same errors as ``send``."""
        try:
            while not self._ended:
                event = self._next_event()
                if event is h11.NEED_DATA:
                    await self._feed()
                elif isinstance(event, h11.Data):
                    piece = self._decode(event, bytes_max)
                    if piece:
                        return piece
                else:
                    self._end()
        except BaseException:
            self.reusable = False
            raise
        return b""

    def listen(self) -> None:
        """Let what is left of the response take as long as it takes: its reader keeps the time."""
        self._deadline = inf

    def finish(self) -> bool:
        """Whether the response has ended cleanly, as far as bytes that have come can tell.

        If so, the next exchange may begin. No I/O, and never an error.
        """
        try:
            while self.reusable and not self._ended:
                event = self._next_event()
                if event is h11.NEED_DATA:
                    return False
                self._decoder = None  # whatever still comes is thrown away as it is
                if not isinstance(event, h11.Data):
                    self._end()
        except GatewayError:
            self.reusable = False
        return self.reusable and self._ended

    async def drain(self) -> bool:
        """Read the rest of the response if it is short; then as :meth:`finish`."""
        room = DRAIN_BYTES_MAX
        with anyio.move_on_after(DRAIN_S):
            try:
                while room > 0 and not self.finish() and self.reusable:
                    room -= await self._feed()
            except GatewayError:
                self.reusable = False
        return self.finish()

    def __repr__(self) -> str:
        state = "idle" if self._ended else "busy"
        return f"<Connection {state} exchanges={self.exchanges} reusable={self.reusable}>"

    # Writing.

    def _begin(self, request: Request) -> bytes:
        assert self._ended, "the last exchange has not finished"
        assert self.reusable
        head = request_head(request)  # first: if it cannot be sent, nothing has begun
        if self.exchanges:
            self._h11.start_next_cycle()
        self._h11.send(_SHADOW)
        self._h11.send(_SHADOW_END)
        self.exchanges += 1
        self.answered = False
        self._ended = False
        self._decoder = None
        self._waste = ChunkWaste()
        self._written_before = self._stream.get_extra_info("bytes_written")
        self._deadline = anyio.current_time() + self._timeouts.exchange_s
        return head + request.body

    @property
    def _delivery(self) -> Delivery:
        written = self._stream.get_extra_info("bytes_written")
        # Streams that do not count are believed to have sent.
        return "not_sent" if written is not None and written == self._written_before else "unknown"

    async def _write(self, data: bytes, on_sent: Callable[[], None]) -> bool:
        """Write *data*: whether all of it went out. If not, there may be an answer to read."""
        try:
            # In pieces, so that the time limit is one on silence and not on size.
            for start in range(0, len(data), _WRITE_BYTES):
                piece = data[start : start + _WRITE_BYTES]
                await self._stream.write(piece, timeout=self._timeouts.write_s)
                if start == 0:
                    on_sent()
        except httpcore.WriteTimeout:
            text = f"the server took no bytes for {self._timeouts.write_s:g} s"
            raise WriteTimeout(text, delivery=self._delivery) from None
        except httpcore.NetworkError as exc:
            if self._delivery == "not_sent":
                raise self._disconnected(exc) from exc
            # It may have answered before it closed its ear (RFC 9112, section 9.5). What it
            # sent can still be read; if that is nothing, reading fails, too.
            return False
        return True

    async def _write_and_listen(
        self, data: bytes, on_sent: Callable[[], None]
    ) -> tuple[bool, ResponseHead]:
        """As ``_write`` and ``_read_head``, but a final response ends the writing."""
        written = False
        head: ResponseHead | None = None
        failure: GatewayError | None = None

        async def listen() -> None:
            nonlocal head, failure
            try:
                head = await self._read_head(while_writing=True)
            except GatewayError as exc:
                # A writer that failed closed the stream, of which this is only the echo.
                failure = failure or exc
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            try:
                written = await self._write(data, on_sent)
            except GatewayError as exc:
                failure = exc
            if written or failure is not None:
                group.cancel_scope.cancel()
        if head is not None:
            return written, head
        if failure is not None:
            raise failure
        return written, await self._read_head()

    # Reading.

    async def _read_head(self, *, while_writing: bool = False) -> ResponseHead:
        for _ in range(_INTERIM_MAX + 1):
            raw = self._head.feed(b"") if self._head else None
            while raw is None:
                raw = self._head.feed(await self._receive(while_writing=while_writing))
            self._h11.receive_data(raw)
            event = self._next_event()
            if isinstance(event, h11.Response):
                check_framing(event.http_version, event.headers)
                head = ResponseHead(event.status_code, tuple(event.headers))
                self._length = int(head.get(b"content-length") or 0)
                self._decoder = decoder_for(head.get(b"content-encoding"))
                if rest := self._head.take_rest():
                    self._take(rest)
                return head
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                break
        raise ProtocolError("the server sent no final response, but 1xx without end, or 101")

    async def _feed(self) -> int:
        """Read more of the body into h11: how many bytes."""
        data = await self._receive()
        self._take(data)
        return len(data)

    def _take(self, data: bytes) -> None:
        self._waste.on_read(len(data))
        self._h11.receive_data(data)

    async def _receive(self, *, while_writing: bool = False) -> bytes:
        """At least one byte, unless the body may end with the connection."""
        left = self._deadline - anyio.current_time()
        # While we write, it is not silent but listens; and the writer has a limit of its own.
        timeout = left if while_writing or left == inf else min(self._timeouts.read_s, left)
        try:
            data = await self._stream.read(_READ_BYTES, timeout=max(timeout, 0.0))
        except httpcore.ReadTimeout:
            raise ReadTimeout(
                f"the server sent nothing for {timeout:g} s"
                if timeout < left
                else f"no complete response within {self._timeouts.exchange_s:g} s",
                delivery=self._delivery,
            ) from None
        except httpcore.NetworkError as exc:
            raise self._disconnected(exc) from exc
        if data:
            self.answered = True
        elif self._h11.their_state is not h11.SEND_BODY:
            raise self._disconnected(None)
        return data

    def _next_event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            # h11 reports a connection that ended within a body as a violation by the peer.
            if self._h11.trailing_data[1]:
                raise self._disconnected(None) from exc
            raise ProtocolError(f"not a valid HTTP response: {exc}") from exc

    def _decode(self, event: h11.Data, bytes_max: int) -> bytes:
        data = bytes(event.data)
        self._waste.on_data(len(data), new_chunk=event.chunk_start)
        if self._decoder is not None:
            return self._decoder.decode(data, bytes_max)
        if len(data) > bytes_max:
            raise body_too_large(bytes_max)
        return data

    def _end(self) -> None:
        self._ended = True
        if self._decoder is not None:
            self._decoder.finish()
        # Bytes after the response belong to no request (P8); h11's MUST_CLOSE means that.
        extra, at_end = self._h11.trailing_data
        both_done = set(self._h11.states.values()) == {h11.DONE}
        self.reusable = self.reusable and both_done and not extra and not at_end

    def _disconnected(self, exc: Exception | None) -> ServerDisconnected:
        how = f"the connection broke ({exc})" if exc is not None else "the server closed it"
        when = "within its response" if self.answered else "before it answered"
        return ServerDisconnected(f"{how} {when}", delivery=self._delivery)
