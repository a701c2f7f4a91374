"""What is common to both WebSocket libraries: ends, refusals, and the stream under them."""

from __future__ import annotations

import httpcore
import pytest

from sark_trio.errors import (
    Forbidden,
    GatewayError,
    MessageTooLarge,
    ProtocolError,
    RateLimited,
    ServerDisconnected,
    WriteTimeout,
)
from sark_trio.transports._websocket_pipe import (
    HungUp,
    Pipe,
    check_subprotocol,
    error_for,
    refusal,
)


class Stream(httpcore.AsyncNetworkStream):
    """Gives what it was given; an exception is raised."""

    def __init__(self, *steps: bytes | Exception) -> None:
        self.steps = list(steps)
        self.written = b""
        self.closed = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self.steps and isinstance(self.steps[0], Exception):
            raise self.steps.pop(0)
        self.written += buffer

    async def aclose(self) -> None:
        self.closed = True

    def get_extra_info(self, info: str) -> object:
        return len(self.written) if info == "bytes_written" else None


def pipe(*steps: bytes | Exception, limit: int = 100) -> tuple[Pipe, Stream, list[str]]:
    stream, ends = Stream(*steps), []
    made = Pipe(stream, limit, 1.0)
    made.on_end = lambda: ends.append("end")
    return made, stream, ends


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 3000, 4999])
def test_most_ends_are_disconnections(code: int) -> None:
    failure = error_for("ws://h", HungUp(code, "why\n"), "unknown")
    assert type(failure) is ServerDisconnected
    assert failure.delivery == "unknown"
    assert r"'why\n'" in failure.message
    assert ("broke" in failure.message) == (code == 1006)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010])
def test_some_say_that_asking_again_gets_the_same(code: int) -> None:
    failure = error_for("ws://h", HungUp(code), "not_sent")
    assert type(failure) is ProtocolError
    assert failure.delivery == "not_sent"
    assert str(code) in failure.message


def test_a_refusal_is_typed_by_its_status() -> None:
    assert isinstance(refusal(403, ()), Forbidden)
    throttled = refusal(503, ((b"Retry-After", b"9"),))
    assert isinstance(throttled, RateLimited)
    assert throttled.retry_after_s == 9
    assert isinstance(refusal(307, ()), ProtocolError)
    assert isinstance(refusal(200, ()), ProtocolError)


@pytest.mark.parametrize("chosen", [None, "", "MCP", "chat"])
def test_only_our_subprotocol_will_do(chosen: str | None) -> None:
    check_subprotocol("mcp")
    with pytest.raises(ProtocolError):
        check_subprotocol(chosen)


@pytest.mark.anyio
async def test_reading_ends_however_the_stream_does() -> None:
    made, _, ends = pipe(b"x", b"", httpcore.ReadError("gone"))
    assert [await made.read() for _ in range(3)] == [b"x", b"", b""]
    assert ends == ["end", "end"]
    assert made.verdict is None


@pytest.mark.anyio
async def test_bytes_that_come_to_no_message_are_bounded() -> None:
    made, _, ends = pipe(*[b"x" * 200_000] * 4)
    assert await made.read()
    made.on_message()
    assert await made.read()
    assert await made.read() == b""
    assert ends == ["end"]
    assert made.verdict is not None
    failure = made.verdict("unknown")
    assert isinstance(failure, MessageTooLarge)
    assert (failure.limit_bytes, failure.delivery) == (100, "unknown")


@pytest.mark.anyio
async def test_writing_says_whether_it_went_out() -> None:
    made, stream, ends = pipe()
    assert await made.write(b"x" * 200_000)
    assert made.bytes_written == len(stream.written) == 200_000
    for failure in (httpcore.WriteError("gone"), httpcore.WriteTimeout("late")):
        stream.steps = [failure]
        assert not await made.write(b"y")
    assert ends == ["end", "end"]
    assert made.verdict is not None
    assert isinstance(made.verdict("unknown"), WriteTimeout)
    made.on_end = None
    made.fail(lambda _: GatewayError("second"))
    assert isinstance(made.verdict("unknown"), WriteTimeout)  # the first one stands
    await made.close()
    assert stream.closed
