"""One script of operations against every real server: the official SDKs', Python's and Node's."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, field, frozen

from sark_trio import (
    AllowAll,
    BreakerOptions,
    GatewayClient,
    Http,
    Progress,
    Server,
    Stdio,
    WebSocket,
)
from sark_trio.client.servers import as_server
from sark_trio.errors import (
    CallTimeout,
    ConnectError,
    GatewayError,
    OutcomeUnknown,
    ProcessExited,
    RemoteError,
    UnknownTool,
)
from tests.support.client import audited, check_log
from tests.support.peers import http_server, peer, sse_server, stdio_server, websocket_server

pytestmark = pytest.mark.anyio


@frozen
class Kind:
    """A server to test with, and what is expected of it."""

    id: str
    start: Callable[[ExitStack], Server]
    version: str
    #: Whether it sends progress while a call runs (a plain JSON answer cannot).
    progress: bool = True


def _stdio(name: str) -> Callable[[ExitStack], Server]:
    return lambda _: Stdio(stdio_server(name))


def _http(name: str, *args: str) -> Callable[[ExitStack], Server]:
    return lambda stack: Http(stack.enter_context(http_server(name, *args)))


def _sse(stack: ExitStack) -> Server:
    return Http(stack.enter_context(sse_server("everything-mcp1")))


def _websocket(stack: ExitStack) -> Server:
    return WebSocket(stack.enter_context(websocket_server()))


KINDS = [
    Kind("mcp2-stdio", _stdio("everything-mcp2"), "2026-07-28"),
    Kind("mcp2-http-sse", _http("everything-mcp2"), "2026-07-28"),
    Kind("mcp2-http-json", _http("everything-mcp2", "--json"), "2026-07-28", progress=False),
    Kind("mcp1-stdio", _stdio("everything-mcp1"), "2025-11-25"),
    Kind("mcp1-http-sse", _http("everything-mcp1"), "2025-11-25"),
    Kind("mcp1-http-json", _http("everything-mcp1", "--json"), "2025-11-25", progress=False),
    Kind("mcp1-http-stateless", _http("everything-mcp1", "--stateless"), "2025-11-25"),
    # Found out: a server of the older transport refuses the newer one's handshake.
    Kind("mcp1-sse", _sse, "2024-11-05"),
    Kind("mcp1-websocket", _websocket, "2025-11-25"),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.id)
def known(request: pytest.FixtureRequest) -> Iterator[tuple[Kind, Server]]:
    """A kind of server, and one that runs for all tests of this file."""
    with ExitStack() as stack:
        yield request.param, request.param.start(stack)


def client_of(server: Server | list[str], folder: Path, **options: Any) -> GatewayClient:
    defaults: dict[str, Any] = {"policy": AllowAll(), "audit": folder / "audit"}
    return GatewayClient(servers={"peer": server}, **{**defaults, **options})


async def test_what_a_server_is_asked_for_it_does(
    known: tuple[Kind, Server], tmp_path: Path
) -> None:
    kind, server = known
    async with client_of(server, tmp_path) as client:
        agreed = await client.connect("peer")
        assert agreed.version == kind.version
        assert agreed.modern is (kind.version >= "2026")
        assert agreed.server_info["name"].startswith("everything-mcp")
        names = {one.tool_name for one in await client.list_tools("peer")}
        assert {"add", "echo", "slow", "fail", "person"} <= names

        total = await client.invoke_tool("peer", "add", {"a": 2, "b": 3})
        assert total.structured_content == {"result": 5}
        assert (await client.invoke_tool("peer", "echo", {"text": "grüße\n☃"})).text == "grüße\n☃"
        person = await client.invoke_tool("peer", "person", {"name": "ada"})
        assert person.structured_content == {"name": "ada", "email": "ada@example.org", "age": 42}
        assert len((await client.invoke_tool("peer", "big", {"size": 1_000_000})).text) == 1_000_000

        failed = await client.invoke_tool("peer", "fail", {"message": "as asked"})
        assert failed.is_error
        assert "as asked" in failed.text
        wrong = await _ended(client, "add", {"a": "two", "b": 3})
        assert isinstance(wrong, RemoteError) or wrong.is_error
        with pytest.raises(UnknownTool):
            await client.invoke_tool("peer", "subtract", {"a": 2, "b": 3})
        info = await client.get_server_info("peer")
        assert (info.health_status, info.protocol_version) == ("healthy", kind.version)
        assert info.tools_count == len(names)
    found = check_log(tmp_path / "audit")
    ends = [each["outcome"] for each in found if each["kind"] == "outcome"]
    assert ends == ["ok", "ok", "ok", "ok", "error", "error"]


async def _ended(client: GatewayClient, tool: str, arguments: dict[str, Any]) -> Any:
    try:
        return await client.invoke_tool("peer", tool, arguments)
    except RemoteError as exc:
        return exc


async def test_progress_arrives_while_the_call_runs(
    known: tuple[Kind, Server], tmp_path: Path
) -> None:
    kind, server = known
    seen: list[Progress] = []
    async with client_of(server, tmp_path) as client:
        arguments = {"seconds": 0.1, "steps": 3}
        result = await client.invoke_tool("peer", "slow", arguments, on_progress=seen.append)
    assert result.text == "slept 0.1"
    steps = [1, 2, 3] if kind.progress else []
    assert [(one.progress, one.total, one.message) for one in seen] == [
        (step, 3, f"step {step}") for step in steps
    ]


async def test_a_caller_gives_up_and_the_server_goes_on_serving(
    known: tuple[Kind, Server], tmp_path: Path
) -> None:
    kind, server = known
    async with client_of(server, tmp_path) as client:
        await client.list_tools("peer")
        with anyio.CancelScope() as scope:
            if not kind.progress:
                scope.deadline = anyio.current_time() + 0.3
            await client.invoke_tool(
                "peer",
                "slow",
                {"seconds": 30, "steps": 600},
                on_progress=lambda _: scope.cancel(),
            )
        assert scope.cancelled_caught
        snapshot = client.statistics()
        assert (snapshot.running_calls, snapshot.audit.open_intents) == (0, 0)
        assert snapshot.servers["peer"].breaker.outstanding == 0
        assert (await client.invoke_tool("peer", "echo", {"text": "still here"})).text
    check_log(tmp_path / "audit")
    first, second = audited(tmp_path / "audit", "outcome")
    assert (first["outcome"], first["delivery"]) == ("cancelled", "unknown")
    assert second["outcome"] == "ok"


async def test_a_deadline_passes_and_the_server_goes_on_serving(
    known: tuple[Kind, Server], tmp_path: Path
) -> None:
    _, server = known
    async with client_of(server, tmp_path) as client:
        await client.list_tools("peer")
        began = anyio.current_time()
        with pytest.raises(TimeoutError) as caught:
            await client.invoke_tool("peer", "slow", {"seconds": 30, "steps": 1}, timeout_s=0.3)
        # The server is told, which takes a second at most.
        assert 0.299 <= anyio.current_time() - began < 2.5  # uvloop ticks in ms
        assert isinstance(caught.value, CallTimeout)
        assert (caught.value.phase, caught.value.delivery) == ("answer", "unknown")
        assert (await client.invoke_tool("peer", "echo", {"text": "still here"})).text
    check_log(tmp_path / "audit")


async def test_many_calls_at_once_get_their_own_answers(
    known: tuple[Kind, Server], tmp_path: Path
) -> None:
    _, server = known
    answers: dict[int, Any] = {}
    async with client_of(server, tmp_path) as client:

        async def call(number: int) -> None:
            result = await client.invoke_tool("peer", "add", {"a": number, "b": number})
            answers[number] = result.structured_content

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(call, number)
    assert answers == {number: {"result": 2 * number} for number in range(40)}
    check_log(tmp_path / "audit")


# -- servers that die -----------------------------------------------------------------------------


@pytest.mark.row(19, 34)
@pytest.mark.parametrize("name", ["everything-mcp2", "everything-mcp1"])
@pytest.mark.fault(44)
async def test_a_process_that_dies_in_mid_call_is_told_and_replaced(
    name: str, tmp_path: Path
) -> None:
    async with client_of(Stdio(stdio_server(name)), tmp_path) as client:
        await client.list_tools("peer")
        with pytest.raises(OutcomeUnknown) as caught:
            await client.invoke_tool("peer", "die", {"code": 3})
        cause = caught.value.__cause__
        assert isinstance(cause, ProcessExited)
        assert cause.exit_code == 3
        assert "dying with 3" in cause.stderr_tail
        assert (await client.invoke_tool("peer", "echo", {"text": "born again"})).text
        assert client.statistics().servers["peer"].wire.restarts == 1
    check_log(tmp_path / "audit")


@pytest.mark.row(35)
async def test_a_process_that_is_killed_in_mid_call_fails_all_its_calls_at_once(
    tmp_path: Path,
) -> None:
    server = Stdio(stdio_server("everything-mcp2"))
    failures: list[BaseException] = []
    async with client_of(server, tmp_path, breaker=BreakerOptions(failures=100)) as client:
        await client.list_tools("peer")
        pid = client.statistics().servers["peer"].wire.details["pid"]
        running = 0

        def kill_when_all_run(progress: Progress) -> None:
            nonlocal running
            running += progress.progress == 1
            if running == 10:
                os.kill(pid, signal.SIGKILL)

        async def call() -> None:
            arguments = {"seconds": 30, "steps": 300}
            with pytest.raises(OutcomeUnknown) as caught:
                await client.invoke_tool("peer", "slow", arguments, on_progress=kill_when_all_run)
            failures.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(call)
        assert len(failures) == 10
        assert (await client.invoke_tool("peer", "echo", {"text": "born again"})).text
    check_log(tmp_path / "audit")


@define
class Restartable:
    """A server behind a URL that can be ended and started again on its port."""

    run: Callable[..., AbstractContextManager[str]]
    port: int = field(init=False)
    _stack: ExitStack = field(factory=ExitStack, init=False)

    def __attrs_post_init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]

    def start(self) -> str:
        return self._stack.enter_context(self.run("--port", str(self.port)))

    def stop(self) -> None:
        self._stack.close()


BEHIND_URLS = {
    "mcp2": partial(http_server, "everything-mcp2"),
    "mcp1": partial(http_server, "everything-mcp1"),
    "sse": partial(sse_server, "everything-mcp1"),
    "websocket": websocket_server,
}


@pytest.mark.row(2, 19)
@pytest.mark.parametrize("run", BEHIND_URLS.values(), ids=BEHIND_URLS)
async def test_a_server_that_restarts_under_us_is_found_again(
    run: Callable[..., AbstractContextManager[str]], tmp_path: Path
) -> None:
    server = Restartable(run)
    try:
        url = server.start()
        async with client_of(as_server(url), tmp_path) as client:
            first = await client.invoke_tool("peer", "effect", {"name": "once"})
            assert first.structured_content == {"result": 1}
            server.stop()
            with pytest.raises(ConnectError) as caught:
                await client.invoke_tool("peer", "effect", {"name": "once"}, timeout_s=2)
            assert caught.value.delivery == "not_sent"
            server.start()
            # A new process: idle connections are gone, and so is a legacy session.
            again = await client.invoke_tool("peer", "effect", {"name": "once"})
            assert again.structured_content == {"result": 1}
    finally:
        server.stop()
    check_log(tmp_path / "audit")


@pytest.mark.row(19)
@pytest.mark.parametrize("run", BEHIND_URLS.values(), ids=BEHIND_URLS)
async def test_a_server_behind_a_url_that_dies_in_mid_call_leaves_the_outcome_unknown(
    run: Callable[..., AbstractContextManager[str]], tmp_path: Path
) -> None:
    with run() as url:
        async with client_of(as_server(url), tmp_path) as client:
            await client.list_tools("peer")
            with pytest.raises(OutcomeUnknown) as caught:
                await client.invoke_tool("peer", "die", {"code": 3})
            assert caught.value.delivery == "unknown"
            # Its port may still take a connection while it dies, and reset it.
            with pytest.raises((ConnectError, OutcomeUnknown)):
                await client.invoke_tool("peer", "echo", {"text": "nobody"}, timeout_s=2)
    check_log(tmp_path / "audit")


# -- other people's servers -----------------------------------------------------------------------


async def test_the_reference_server_for_git(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    await anyio.run_process(["git", "init", "-q", "-b", "trunk", str(repository)])
    (repository / "a.txt").write_text("a")
    async with client_of(stdio_server("git"), tmp_path) as client:
        agreed = await client.connect("peer")
        assert agreed.version == "2026-07-28"
        status = await client.invoke_tool("peer", "git_status", {"repo_path": str(repository)})
        assert "a.txt" in status.text
        nowhere = await client.invoke_tool("peer", "git_status", {"repo_path": "nowhere"})
        assert nowhere.is_error
    check_log(tmp_path / "audit")


async def test_the_reference_server_for_time(tmp_path: Path) -> None:
    async with client_of(stdio_server("time"), tmp_path) as client:
        now = await client.invoke_tool("peer", "get_current_time", {"timezone": "UTC"})
        assert json.loads(now.text)["timezone"] == "UTC"
        wrong = await client.invoke_tool("peer", "get_current_time", {"timezone": "Moon/Crater"})
        assert wrong.is_error
    check_log(tmp_path / "audit")


async def test_the_reference_server_for_files(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "note.txt").write_text("gruß")
    async with client_of(stdio_server("filesystem", folder), tmp_path) as client:
        agreed = await client.connect("peer")
        assert agreed.version == "2025-11-25"
        path = str(folder / "note.txt")
        assert (await client.invoke_tool("peer", "read_text_file", {"path": path})).text == "gruß"
        outside = await client.invoke_tool("peer", "read_text_file", {"path": "/etc/hostname"})
        assert outside.is_error
        written = {"path": str(folder / "new.txt"), "content": "new"}
        await client.invoke_tool("peer", "write_file", written)
        assert (folder / "new.txt").read_text() == "new"
    check_log(tmp_path / "audit")


@pytest.mark.parametrize("how", ["stdio", "http", "sse"])
async def test_the_reference_server_for_everything(how: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server: Server = Stdio(stdio_server("everything-node"))
        if how != "stdio":
            run = http_server if how == "http" else sse_server
            server = Http(stack.enter_context(run("everything-node")))
        seen: list[Progress] = []
        async with client_of(server, tmp_path) as client:
            agreed = await client.connect("peer")
            version = "2024-11-05" if how == "sse" else "2025-11-25"
            assert (agreed.version, agreed.modern) == (version, False)
            total = await client.invoke_tool("peer", "get-sum", {"a": 2, "b": 3})
            assert "5" in total.text
            told = await client.invoke_tool(
                "peer", "get-structured-content", {"location": "Chicago"}
            )
            assert set(told.structured_content) == {"temperature", "conditions", "humidity"}
            image = await client.invoke_tool("peer", "get-tiny-image")
            assert "image" in [block["type"] for block in image.content]
            arguments = {"duration": 0.2, "steps": 2}
            await client.invoke_tool(
                "peer", "trigger-long-running-operation", arguments, on_progress=seen.append
            )
            assert [one.progress for one in seen] == [1, 2]
    check_log(tmp_path / "audit")


@pytest.mark.fault(3)
async def test_a_dead_server_in_the_group_harms_no_other(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/mcp"
    client = GatewayClient(
        servers={
            "well": stdio_server("everything-mcp2"),
            "dead": [str(peer("mcp2").python), "-c", "raise SystemExit('born dead')"],
            "missing": ["no-such-program-anywhere"],
            "nobody": nobody,
        },
        policy=AllowAll(),
        audit=tmp_path / "audit",
    )
    async with client:
        found = await client.list_tools()
        assert {one.server_name for one in found} == {"well"}
        assert set(found.failures) == {"dead", "missing", "nobody"}
        assert all(isinstance(each, GatewayError) for each in found.failures.values())
        assert "born dead" in str(found.failures["dead"].__dict__) + str(found.failures["dead"])
        total = await client.invoke_tool("well", "add", {"a": 1, "b": 1})
        assert total.structured_content == {"result": 2}
    check_log(tmp_path / "audit")
