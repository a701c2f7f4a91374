"""Programs of servers: which one is started is checked where it is pinned, and recorded."""

from __future__ import annotations

import hashlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sark_trio import AllowAll, AuditLog, GatewayClient, Stdio
from sark_trio.errors import ConfigError, ProcessStartError, ServerDown
from sark_trio.machines.retry import RetryConfig
from sark_trio.machines.supervision import SuperviseOptions
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, records
from tests.support.stdio import SCRIPTED

pytestmark = pytest.mark.anyio


def script(folder: Path, text: str = "") -> tuple[Path, str]:
    """A program that is a file of its own, and its digest."""
    program = folder / "server"
    program.write_text(f'#!/bin/sh\n{text}exec {SCRIPTED[0]} "$@"\n')
    program.chmod(0o700)
    return program, hashlib.sha256(program.read_bytes()).hexdigest()


@asynccontextmanager
async def serving(
    *command: str, disk: MemoryDisk | None = None, **options: Any
) -> AsyncIterator[GatewayClient]:
    server = Stdio(command, **options)
    audit = AuditLog("log", files=disk or MemoryDisk())
    retry = RetryConfig(attempts=1)
    async with GatewayClient(
        servers={"desk": server}, policy=AllowAll(), audit=audit, retry=retry
    ) as client:
        yield client


@pytest.mark.security(18)
async def test_each_start_is_recorded_and_no_argument_can_be_read() -> None:
    disk = MemoryDisk()
    async with serving(*SCRIPTED, "--stderr", "canary", disk=disk) as client:
        await client.connect("desk")
        first = client.statistics().servers["desk"].wire.details["pid"]
        await client.remove_server("desk")
        await client.add_server("desk", Stdio([*SCRIPTED, "--stderr", "canary"]))
        await client.connect("desk")
        second = client.statistics().servers["desk"].wire.details["pid"]
    started = [one["details"] for one in audited(disk, "event") if one["name"] == "program_started"]
    assert [one["pid"] for one in started] == [first, second]
    assert {one["server"] for one in started} == {"desk"}
    assert {one["program"] for one in started} == {sys.executable}
    (command,) = {one["command"] for one in started}
    assert command.startswith("hmac-sha256:")
    assert "canary" not in str(records(disk))


@pytest.mark.security(18)
async def test_only_the_program_that_was_pinned_is_started(tmp_path: Path) -> None:
    program, digest = script(tmp_path)
    disk = MemoryDisk()
    async with serving(str(program), *SCRIPTED[1:], sha256=digest, disk=disk) as client:
        await client.connect("desk")
        await client.remove_server("desk")
        marker = tmp_path / "ran"
        script(tmp_path, f"touch {marker}\n")
        await client.add_server("desk", Stdio([str(program), *SCRIPTED[1:]], sha256=digest))
        with pytest.raises(ProcessStartError, match="SHA-256") as caught:
            await client.connect("desk")
        assert digest in str(caught.value)
        assert caught.value.delivery == "not_sent"
        assert not marker.exists()
    starts = [one for one in audited(disk, "event") if one["name"] == "program_started"]
    assert len(starts) == 1


async def test_a_pinned_program_is_found_as_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, digest = script(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with serving("server", *SCRIPTED[1:], sha256=digest) as client:
        await client.connect("desk")
    async with serving("not-there", sha256=digest) as client:
        with pytest.raises(ProcessStartError, match="not found on PATH"):
            await client.connect("desk")


async def test_a_program_that_cannot_be_read_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, digest = script(tmp_path)

    def refuses(path: Path, mode: str) -> Any:
        raise PermissionError(13, "Permission denied")

    async with serving(str(program), sha256=digest) as client:
        monkeypatch.setattr(Path, "open", refuses)
        with pytest.raises(ProcessStartError, match="cannot be read: Permission denied"):
            await client.connect("desk")
        monkeypatch.undo()


@pytest.mark.parametrize("wrong", ["", "abc", "g" * 64, "A" * 64, "a" * 65])
def test_a_digest_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="sha256"):
        Stdio(["server"], sha256=wrong)


async def test_how_often_a_server_is_restarted_is_the_operators_to_say() -> None:
    supervision = SuperviseOptions(restarts_max=0)
    async with serving(*SCRIPTED, supervision=supervision) as client:
        await client.connect("desk")
        pid = client.statistics().servers["desk"].wire.details["pid"]
        upstream = client._engine.upstream("desk")
        transport: Any = upstream._transport
        transport._attempt.talk.child.signal_group(signal.SIGKILL)
        while transport.statistics().details["pid"] == pid:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(ServerDown):
            while True:  # until the old one is buried
                await client.connect("desk")


@pytest.mark.security(19)
def test_what_is_said_of_a_process_reaches_its_transport() -> None:
    server = Stdio(["server"], die_with_parent=True, supervision=SuperviseOptions(probe_s=1))
    client = GatewayClient(servers={"desk": server}, audit=AuditLog("log", files=MemoryDisk()))
    transport: Any = client._engine.upstream("desk")._transport
    assert transport.die_with_parent
    assert transport.supervision.probe_s == 1
