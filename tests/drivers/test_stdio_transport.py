"""The stdio transport with servers that behave: handshakes, calls, notifications, options."""

from __future__ import annotations

import math
import os
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from sark_trio.errors import (
    ClientClosed,
    InvalidArguments,
    ProcessStartError,
    ProtocolError,
    RemoteError,
    ServerDisconnected,
)
from sark_trio.machines.limits import ResourceLimits
from sark_trio.mcp.messages import Notification
from sark_trio.transports.base import Outgoing
from sark_trio.transports.stdio import StdioTransport
from tests.support.stdio import SCRIPTED, baseline, call, make, running, tool

anyio_test = pytest.mark.anyio
CLIENT = {"name": "tests", "version": "1"}


@anyio_test
async def test_a_modern_server_is_found_by_its_answer_to_the_probe():
    async with running(make()) as transport:
        assert transport.agreed is None
        agreed = await transport.connect()
        assert (agreed.version, agreed.modern) == ("2026-07-28", True)
        assert agreed.server_info == {"name": "scripted"}
        assert transport.agreed == agreed
        seen = (await call(transport, "seen"))["seen"]
    assert [message["method"] for message in seen] == ["server/discover", "tools/call"]
    for message in seen:
        meta = message["params"]["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        assert meta["io.modelcontextprotocol/clientInfo"] == CLIENT
        assert meta["io.modelcontextprotocol/clientCapabilities"] == {}


@anyio_test
@pytest.mark.parametrize("era", ["legacy", "silent", "dies"])
async def test_a_legacy_server_is_initialized_however_it_took_the_probe(era: str):
    async with running(make("--era", era, probe_timeout_s=0.2)) as transport:
        agreed = await transport.connect()
        assert (agreed.version, agreed.modern) == ("2025-11-25", False)
        seen = (await call(transport, "seen"))["seen"]
    probe = [] if era == "dies" else ["server/discover"]
    assert [message["method"] for message in seen] == [
        *probe, "initialize", "notifications/initialized", "tools/call",
    ]  # fmt: skip
    assert seen[len(probe)]["params"]["clientInfo"] == CLIENT
    assert "_meta" not in seen[-1]["params"]
    assert transport.statistics().restarts == (1 if era == "dies" else 0)


@pytest.mark.row(34)
@anyio_test
async def test_34_a_command_that_exits_at_once_says_so_with_its_last_words():
    script = "echo 'cannot find my \x1b[31mconfig' >&2; exit 3"
    with baseline():
        async with running(StdioTransport(["sh", "-c", script], client_info=CLIENT)) as transport:
            with pytest.raises(ProcessStartError) as caught:
                await transport.connect()
            assert caught.value.delivery == "not_sent"
            assert str(caught.value) == (
                "server process 'sh' exited with status 3 before it spoke MCP, saying "
                "'cannot find my \\x1b[31mconfig'; run its command by hand to see why"
            )


@pytest.mark.row(34)
@anyio_test
async def test_34_everyone_who_waited_for_a_start_gets_an_error_of_their_own():
    errors: list[ProcessStartError] = []

    async def connect(transport: StdioTransport) -> None:
        with pytest.raises(ProcessStartError, match="install it") as caught:
            await transport.connect()
        errors.append(caught.value)

    broken = StdioTransport(["no-such-server"], client_info=CLIENT)
    async with running(broken), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(connect, broken)
    assert len({id(error) for error in errors}) == 3


@anyio_test
async def test_a_server_without_a_common_version_is_a_protocol_error():
    echo = "import json,sys\nfor l in sys.stdin:\n m=json.loads(l); print(json.dumps({'jsonrpc':"
    echo += "'2.0','id':m['id'],'error':{'code':-32022,'message':'x','data':{'supported':"
    echo += "['1999-01-01']}}}),flush=True)"
    command = [*SCRIPTED[:-1], "-c", echo]
    async with running(StdioTransport(command, client_info=CLIENT)) as transport:
        with pytest.raises(ProtocolError, match="1999-01-01") as caught:
            await transport.connect()
        assert caught.value.delivery == "not_sent"


@anyio_test
async def test_an_answer_that_is_none_to_the_probe_says_legacy():
    async with running(make("--era", "garbage")) as transport:
        assert not (await transport.connect()).modern
        assert transport.statistics().garbage == 1


@anyio_test
@pytest.mark.law("D3")
async def test_d03_every_call_gets_its_own_answer():
    """Every pending request resolves exactly once, and with its own answer."""
    answers: dict[int, Any] = {}

    async def ask(transport: StdioTransport, number: int) -> None:
        answers[number] = (await call(transport, "echo", number=number))["number"]

    async with running(make()) as transport:
        async with anyio.create_task_group() as tasks:
            for number in range(500):
                tasks.start_soon(ask, transport, number)
        assert answers == {number: number for number in range(500)}
        statistics = transport.statistics()
        assert (statistics.requests, statistics.unmatched, statistics.restarts) == (500, 0, 0)
        assert statistics.details["pending"] == 0


@anyio_test
@pytest.mark.law("D5")
async def test_d05_large_messages_of_many_tasks_are_never_interleaved():
    """No write interleaving: the child reads whole lines."""
    texts = {size: "x" * size for size in (1, 70_000, 200_000, 1_000_000, 300_000, 2)}

    async def ask(transport: StdioTransport, text: str) -> None:
        assert (await call(transport, "echo", text=text))["text"] == text

    async with running(make()) as transport:
        async with anyio.create_task_group() as tasks:
            for text in [*texts.values()] * 3:
                tasks.start_soon(ask, transport, text)
        assert transport.statistics().garbage == 0


@anyio_test
@pytest.mark.fault(44)
async def test_an_error_keeps_its_code_and_data():
    async with running(make()) as transport:
        with pytest.raises(RemoteError, match="no luck") as caught:
            await call(transport, "error", code=-32000, message="no luck", data={"why": [1]})
    assert (caught.value.code, caught.value.data) == (-32000, {"why": [1]})
    assert caught.value.delivery == "answered"


@anyio_test
@pytest.mark.fault(44)
@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("ping", {"result": {}}),
        (
            "roots/list",
            {"error": {"code": -32601, "message": "this client offers no such method"}},
        ),
    ],
)
async def test_a_legacy_server_that_asks_is_answered(method: str, reply: dict[str, Any]):
    async with running(make("--era", "legacy")) as transport:
        result = await call(transport, "ask", method=method)
        assert result["reply"] == {"jsonrpc": "2.0", "id": "ask-0", **reply}
        assert transport.statistics().details["server_requests"] == 1


@pytest.mark.row(31)
@anyio_test
async def test_31_a_modern_server_that_asks_is_counted_and_not_answered():
    async with running(make()) as transport:
        asked = anyio.Event()

        async def ask() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await transport.request(tool("ask", on_sent=asked.set, method="ping"))

        scopes: list[anyio.CancelScope] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await asked.wait()
            seen = (await call(transport, "seen"))["seen"]
            scopes[0].cancel()
        assert all("answer" not in message for message in seen)
        assert transport.statistics().details["server_requests"] == 1


@pytest.mark.row(32)
@anyio_test
async def test_progress_goes_to_the_call_that_it_belongs_to():
    mine: list[Notification] = []
    events: list[Notification] = []
    async with running(make(on_event=events.append)) as transport:
        await transport.request(tool("progress", on_notification=mine.append, steps=3))
        assert [n.params["progress"] for n in mine] == [1, 2, 3]
        # After the end, or with a token like it, it is nobody's.
        token = mine[0].params["progressToken"]
        for odd in (token, True, float(token), str(token)):
            params = {"progressToken": odd, "progress": 9}
            await call(transport, "notify", method="notifications/progress", params=params)
    assert len(mine) == 3
    assert len(events) == 4


@pytest.mark.row(32)
@anyio_test
async def test_32_a_flood_of_progress_costs_the_call_nothing_but_time():
    count = 0

    def note(_notification: Notification) -> None:
        nonlocal count
        count += 1

    async with running(make()) as transport:
        await transport.request(tool("progress", on_notification=note, steps=20_000))
    assert count == 20_000


@pytest.mark.row(61)
@anyio_test
async def test_events_go_to_the_listener_and_its_faults_are_its_own():
    heard: list[str] = []

    def listen(notification: Notification) -> None:
        heard.append(notification.method)
        raise RuntimeError("the listener is broken")

    async with running(make(on_event=listen)) as transport:
        await call(transport, "notify", method="notifications/tools/list_changed")
        assert heard == ["notifications/tools/list_changed"]
        assert transport.statistics().details["listener_errors"] == 1
        assert transport.statistics().details["notifications"] == 1


@anyio_test
async def test_events_without_a_listener_are_counted():
    async with running(make()) as transport:
        await call(transport, "notify", method="notifications/tools/list_changed")
        assert transport.statistics().details["notifications"] == 1


@anyio_test
@pytest.mark.parametrize("graceful", [True, False])
async def test_a_subscription_hears_its_own_notifications_until_the_server_ends_it(graceful: bool):
    heard: list[str] = []
    opened = anyio.Event()
    outcome: list[BaseException | dict[str, Any]] = []
    listen = Outgoing(
        method="subscriptions/listen",
        params={"notifications": {}},
        on_notification=lambda notification: heard.append(notification.method),
        on_sent=opened.set,
    )

    async def subscribe() -> None:
        try:
            outcome.append(await transport.request(listen))
        except ServerDisconnected as exc:
            outcome.append(exc)

    async with running(make()) as transport, anyio.create_task_group() as tasks:
        tasks.start_soon(subscribe)
        await opened.wait()
        (held,) = (await call(transport, "held"))["held"]
        meta = {"io.modelcontextprotocol/subscriptionId": held}
        changed = "notifications/tools/list_changed"
        await call(transport, "notify", method=changed, params={"_meta": meta})
        if graceful:
            await call(transport, "release")
        else:
            params = {"requestId": held}
            await call(transport, "notify", method="notifications/cancelled", params=params)
    assert heard == [changed]
    assert isinstance(outcome[0], dict) is graceful


@anyio_test
async def test_a_server_cannot_cancel_an_ordinary_call():
    async with running(make()) as transport:
        params = {"requestId": 3}
        result = await call(transport, "notify", method="notifications/cancelled", params=params)
        assert result["resultType"] == "complete"


@anyio_test
async def test_on_sent_is_called_once_and_may_be_faulty():
    async with running(make()) as transport:
        sent: list[int] = []
        await transport.request(tool("echo", on_sent=lambda: sent.append(1), text="x" * 300_000))
        assert sent == [1]
        await transport.request(tool("echo", on_sent=lambda: 1 // 0))
        assert transport.statistics().details["listener_errors"] == 1


@anyio_test
async def test_a_notification_of_ours_arrives_in_order():
    async with running(make()) as transport:
        await transport.notify("notifications/roots/list_changed", {"n": 1})
        seen = (await call(transport, "seen"))["seen"]
        assert seen[-2]["method"] == "notifications/roots/list_changed"


@anyio_test
@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"x": math.nan, "y": object()}, "not encodable"),
        ({"x": "y" * 2000}, "at most 1000 may go"),
        ({"_meta": {"progressToken": 1}}, "reserved"),
    ],
)
async def test_what_cannot_be_sent_is_refused_and_leaves_no_waiter(params: Any, why: str):
    async with running(make(message_bytes_max=1000)) as transport:
        await transport.connect()
        with pytest.raises(InvalidArguments, match=why) as caught:
            await transport.request(Outgoing(method="tools/call", params=params))
        assert caught.value.delivery == "not_sent"
        assert transport.statistics().details["pending"] == 0


@anyio_test
@pytest.mark.fault(43)
async def test_the_child_gets_no_secret_no_descriptor_and_its_limits(
    monkeypatch: Any, tmp_path: Any
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    options: dict[str, Any] = {
        "env": {"TOKEN": "given"},
        "cwd": tmp_path,
        "limits": ResourceLimits(open_files_max=99),
    }
    inheritable = os.dup(0)
    os.set_inheritable(inheritable, True)
    try:
        async with running(make(**options)) as transport:
            around = await call(transport, "surroundings")
            process = await call(transport, "pid")
            assert transport.statistics().details["pid"] == process["pid"]
    finally:
        os.close(inheritable)
    assert "AWS_SECRET_ACCESS_KEY" not in around["env"]
    assert around["env"]["TOKEN"] == "given"
    assert around["fds"] == [0, 1, 2]
    assert around["nofile"] == [99, 99]
    assert around["cwd"] == str(tmp_path)
    assert process["pid"] == process["pgid"] == process["sid"] != os.getpgid(0)
    assert "given" not in repr(transport)


@pytest.mark.security(20)
@anyio_test
async def test_arguments_reach_the_program_as_they_are():
    odd = ["--stderr", "$(touch x); `id` | * && \n'\" %s"]
    async with running(make(*odd)) as transport:
        assert (await call(transport, "surroundings"))["argv"][1:] == odd


@anyio_test
@pytest.mark.fault(46)
async def test_the_same_command_twice_is_two_processes_and_both_end():
    with baseline():
        async with running(make()) as first, running(make()) as second:
            pids = {(await call(t, "pid"))["pid"] for t in (first, second)}
        assert len(pids) == 2
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.trio
@pytest.mark.fault(39, 41)
async def test_an_idle_server_is_left_alone_and_nothing_ticks(mock_clock: Any):
    async with running(make()) as transport:
        before = (await call(transport, "pid"))["pid"]
        await trio.testing.wait_all_tasks_blocked()
        # The only deadline left is the block's own guard against hanging.
        guard = trio.current_effective_deadline() - trio.current_time()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == pytest.approx(guard)
        mock_clock.jump(guard - 1)
        assert (await call(transport, "pid"))["pid"] == before
    assert transport.statistics().restarts == 0


@anyio_test
async def test_a_transport_that_is_not_run_or_closed_says_so():
    transport = make()
    with pytest.raises(ClientClosed):
        await transport.connect()
    async with running(transport):
        await transport.connect()
        assert "alive" in repr(transport)
    await transport.aclose()
    for attempt in (
        transport.connect(),
        transport.request(tool("echo")),
        transport.notify("x", {}),
    ):
        with pytest.raises(ClientClosed) as caught:
            await attempt
        assert caught.value.delivery == "not_sent"
    with pytest.raises(RuntimeError, match="once"):
        await transport.run()


@anyio_test
async def test_a_transport_closed_before_its_run_returns_from_it():
    transport = make()
    await transport.aclose()
    with anyio.fail_after(5):
        await transport.run()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"command": []}, "command must be a list"),
        ({"command": [""]}, "command must be a list"),
        ({"command": "mcp-server --x"}, "command must be a list"),
        ({"command": ["a\0b"]}, "without NUL"),
        ({"command": ["a", 1]}, "strings"),
        ({"env": {"A=B": "x"}}, "'A=B' can not be set"),
        ({"env": {"A": "x\0"}}, "can not be set"),
        ({"probe_timeout_s": 0}, "probe_timeout_s must be positive"),
        ({"start_timeout_s": math.inf}, "start_timeout_s must be positive and finite"),
        ({"write_timeout_s": math.nan}, "write_timeout_s must be positive and finite"),
        ({"message_bytes_max": -1}, "message_bytes_max must be positive"),
    ],
)
def test_options_are_checked_where_they_are_written(options: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        StdioTransport(**{"command": ["cat"], "client_info": CLIENT, **options})


def test_a_repr_shows_the_program_and_nothing_of_its_environment():
    transport = StdioTransport(["cat"], client_info=CLIENT, env={"TOKEN": "canary"})
    assert repr(transport) == "<StdioTransport 'cat' None>"
