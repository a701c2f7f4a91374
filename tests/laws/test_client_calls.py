"""Laws of whole calls: a real client, servers that fail as chance wants, and what they then saw."""

from __future__ import annotations

import random
from typing import Any, Literal

import anyio
import httpcore
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from sark_trio import BreakerOptions, RetryConfig, ToolRule
from sark_trio.errors import GatewayError, RemoteError, ServerDisconnected
from sark_trio.machines.circuit import TRANSITIONS
from sark_trio.telemetry.events import BreakerChanged, Event
from sark_trio.testing import Victim, held, sweep
from tests.support.audit_disk import MemoryDisk
from tests.support.canaries import Canary, leaks
from tests.support.client import answer, audited, check_log, desk, open_client
from tests.support.http_servers import Peer, Received, response
from tests.support.virtual import virtual

# -- what servers do -----------------------------------------------------------------------------

#: Each takes the request, so that it may have happened.
TAKEN = ("dies", "cuts", "500", "502", "503", "429", "garbage", "another id", "well")


async def misbehave(how: str, peer: Peer, received: Received) -> None:
    if how == "dies":
        await peer.stream.aclose()
        raise anyio.EndOfStream
    if how == "cuts":
        await peer.send(done(received)[:-3])
        await peer.stream.aclose()
        raise anyio.EndOfStream
    if how.isdigit():
        await peer.send(response(b"", f"{how} No"))
    elif how == "garbage":
        await peer.send(response(b"{"))
    elif how == "another id":
        await peer.send(done(received, received.id + 1))
    else:
        await peer.send(done(received))


def done(received: Received, ident: Any = None) -> bytes:
    number = received.json["params"]["arguments"].get("n", "")
    content = b'[{"type":"text","text":"%s"}]' % str(number).encode()
    result = b'{"resultType":"complete","content":%b}' % content
    ident = received.id if ident is None else ident
    return response(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (ident, result))


def run(main: Any) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0))


PATIENT: dict[str, Any] = {
    "retry": RetryConfig(attempts=4),
    "breaker": BreakerOptions(failures=1000),
    "timeout_s": 300.0,
    "oracle": False,
}


@pytest.mark.law("R7")
@given(
    st.lists(st.sampled_from(TAKEN), max_size=6),
    st.integers(0, 2),
    st.sampled_from(["modern", "legacy"]),
)
def test_r07_an_unsafe_call_has_one_effect_at_most(
    script: list[str], refused: int, era: str
) -> None:
    """Whatever a server does with it, a call that is not safe to repeat arrives once at most."""

    async def main() -> None:
        left = list(script)

        async def handle(peer: Peer, received: Received) -> None:
            if received.method == "POST":
                await misbehave(left.pop(0) if left else "well", peer, received)

        async with virtual(handle, era=era, **PATIENT) as world:
            await world.client.list_tools("desk")
            scripts, world.network.scripts = world.network.scripts, ()
            times = len(world.network.times)
            gone = [httpcore.ConnectError("refused")] * (times + refused)
            world.network.scripts = (*gone, *scripts)
            try:
                result = await world.client.invoke_tool("desk", "echo", {"n": 7})
                assert result.text == "7"
                assert len(world.calls) == 1
            except GatewayError as exc:
                assert exc.delivery != "not_sent" or not world.calls
            assert len(world.calls) <= 1
            world.network.scripts = scripts

    run(main)


@pytest.mark.law("R11")
@given(st.lists(st.sampled_from(TAKEN), max_size=6))
def test_r11_attempts_that_are_audited_are_attempts_that_were_sent(script: list[str]) -> None:
    """The intent stands for the first attempt; each further one that a server sees has a record."""

    async def main() -> None:
        left = list(script)

        async def handle(peer: Peer, received: Received) -> None:
            await misbehave(left.pop(0) if left else "well", peer, received)

        async with virtual(handle, **PATIENT) as world:
            await world.client.list_tools("desk")
            try:
                await world.client.invoke_tool("desk", "echo", {"n": 7}, replay_safe=True)
                attempts = None
            except GatewayError as exc:
                attempts = exc.attempts
            arrived = len(world.calls)
            assert attempts is None or attempts <= arrived
        assert len(audited(world.disk, "attempt")) == arrived - 1

    run(main)


EXTRA = (
    b"",
    b"\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-le",
    response(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"stolen"}]}}'),
)


@pytest.mark.law("P8")
@given(st.lists(st.tuples(st.sampled_from(EXTRA), st.integers(0, 3)), min_size=1, max_size=6))
def test_p08_no_byte_of_one_answer_reaches_another_request(extras: list[tuple[bytes, int]]) -> None:
    """Bytes after an answer, however well they look and whosever id they have, answer nothing."""

    async def main() -> None:
        left = list(extras)

        async def handle(peer: Peer, received: Received) -> None:
            extra, ahead = left.pop(0) if left else (b"", 0)
            if b"%d" in extra:
                body = extra.partition(b"\r\n\r\n")[2] % (received.id + ahead)
                extra = response(body)
            await peer.send(done(received) + extra)

        async with virtual(handle, **PATIENT) as world:
            for number in range(len(extras) + 1):
                result = await world.client.invoke_tool("desk", "echo", {"n": number})
                assert result.text == str(number)
            assert len(world.calls) == len(extras) + 1

    run(main)


# -- the breaker's wrapper -------------------------------------------------------------------------


@pytest.mark.law("B19")
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_b19_the_wrapper_emits_legal_traces_and_settles_each_permit_once(
    backend: Literal["trio", "asyncio"],
) -> None:
    """Cancelled at every step, in every phase: each permit ends once, each move is in the table."""
    legal = {(edge.source.value, edge.target.value) for edge in TRANSITIONS}

    async def scenario(victim: Victim) -> None:
        moves: list[tuple[str, str]] = []

        def hook(event: Event) -> None:
            if isinstance(event, BreakerChanged):
                moves.append((event.source, event.target))

        gone = [ServerDisconnected("gone") for _ in range(2)]
        options: dict[str, Any] = {
            "breaker": BreakerOptions(failures=2, open_s=0.001),
            "retry": RetryConfig(attempts=1),
            "hooks": [hook],
        }
        async with open_client(desk(answer(), *gone, answer(), *gone), **options) as client:

            async def call() -> None:
                try:
                    await client.invoke_tool("desk", "echo")
                except GatewayError:
                    await anyio.lowlevel.checkpoint()

            with victim:
                for _ in range(5):
                    await call()
            for _ in range(4):
                await call()
            assert held(client) == {}
            counts = client.statistics().servers["desk"].breaker
            settled = counts.successes + counts.failures + counts.neutral + counts.late
            assert (counts.outstanding, counts.faults) == (0, 0)
            assert settled == counts.admitted
        assert set(moves) <= legal

    assert sweep(scenario, backend=backend).cancelled > 10


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.law("A5")
@given(st.integers(0, 2**32), st.lists(st.sampled_from(["ok", "error", "dies"]), max_size=3))
def test_a05_no_secret_is_in_the_log_an_error_or_a_repr(seed: int, script: list[str]) -> None:
    """No seeded secret, raw or base64-, URL- or JSON-escaped, is in any byte of what is kept."""
    canary = Canary("password", core=f"kanarie{random.Random(seed).randbytes(8).hex()}")
    said: list[tuple[str, bytes | str]] = []
    disk = MemoryDisk()

    async def main() -> None:
        steps = {
            "ok": answer("fine"),
            "error": RemoteError("no", code=-1),
            "dies": ServerDisconnected("gone"),
        }
        rules = {"*": ToolRule(sensitive_params=("password",))}
        server = desk(*[steps[each] for each in script])
        async with open_client(server, disk, server_tools=rules) as client:
            for _ in range(len(script) + 1):
                arguments = {"user": "ada", "password": canary.secret, "deep": [{"password": 1}]}
                try:
                    said.append(
                        ("a result", repr(await client.invoke_tool("desk", "echo", arguments)))
                    )
                except GatewayError as exc:
                    said.append(("an error", f"{exc!r} {exc} {vars(exc)}"))
            said.append(("the client", f"{client!r} {client.statistics()!r}"))

    run(main)
    check_log(disk)
    said += [(name, bytes(data)) for name, data in disk.contents.items()]
    assert leaks(said, [canary]) == []
