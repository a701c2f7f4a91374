"""Agreeing once for all who wait, against a peer that is only a script of replies."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from sark_trio.errors import (
    ClientClosed,
    GatewayError,
    HTTPStatusError,
    ProtocolError,
    RateLimited,
    ReadTimeout,
    ServerDisconnected,
    SessionExpired,
)
from sark_trio.mcp.messages import Failure, Success
from sark_trio.mcp.session import Session
from sark_trio.transports._http_handshake import Handshake, Reply, StatusReply

LEGACY = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
NOT_FOUND = Failure(1, -32601, "no such method")


class Peer:
    """Gives the replies that it was given; an exception is raised, ``None`` never answers."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, bool]] = []
        self.announced: list[Session] = []

    async def shake(self, version: str, *, discover: bool) -> Reply | StatusReply:
        self.asked.append((version, discover))
        await anyio.lowlevel.checkpoint()
        reply = self.replies.pop(0)
        if reply is None:
            await anyio.sleep_forever()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def announce(self, session: Session) -> None:
        self.announced.append(session)
        if session.id == "deaf":
            raise ServerDisconnected("gone")


def legacy(session_id: str | None) -> list[Any]:
    return [Reply(NOT_FOUND, None), Reply(Success(2, LEGACY), session_id)]


def renewal(session_id: str | None) -> Reply:
    return Reply(Success(3, LEGACY), session_id)


@pytest.mark.row(18)
@pytest.mark.anyio
async def test_a_session_is_renewed_by_the_first_who_lost_it_and_joined_by_the_others() -> None:
    peer = Peer(*legacy("a"), renewal("b"))
    handshake = Handshake(peer)
    async with anyio.create_task_group() as group:
        assert not (await handshake.connect(group)).modern
        lost = await handshake.session(group)
        found: list[Session] = []

        async def renew() -> None:
            found.append(await handshake.renewed(lost, group, retried=False))

        async with anyio.create_task_group() as callers:
            for _ in range(5):
                callers.start_soon(renew)
        assert {session.id for session in found} == {"b"}
        assert (await handshake.renewed(lost, group, retried=False)).id == "b"  # too late
        with pytest.raises(SessionExpired):
            await handshake.renewed(found[0], group, retried=True)
    assert peer.asked == [("2026-07-28", True), ("2025-11-25", False), ("2025-11-25", False)]
    assert [session.id for session in peer.announced] == ["a", "b"]


@pytest.mark.row(18)
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (StatusReply(503, b"", 7.0), RateLimited),
        (StatusReply(404, b"", None), HTTPStatusError),
        (Reply(NOT_FOUND, None), ProtocolError),
        (Reply(Success(1, {**LEGACY, "protocolVersion": "2024-11-05"}), None), ProtocolError),
        (ServerDisconnected("gone"), ServerDisconnected),
        (renewal("two words"), ProtocolError),
        (renewal("deaf"), ServerDisconnected),
    ],
)
async def test_a_renewal_that_fails_fails_all_who_wait_and_is_not_the_last(
    reply: Any, kind: type[GatewayError]
) -> None:
    peer = Peer(*legacy("a"), reply, *legacy("c"), renewal("c"))
    handshake = Handshake(peer)
    async with anyio.create_task_group() as group:
        await handshake.connect(group)
        lost = await handshake.session(group)
        errors: list[GatewayError] = []

        async def renew() -> None:
            try:
                await handshake.renewed(lost, group, retried=False)
            except GatewayError as exc:
                errors.append(exc)

        async with anyio.create_task_group() as callers:
            for _ in range(3):
                callers.start_soon(renew)
        assert [type(error) for error in errors] == [kind] * 3
        assert all(error.delivery != "unknown" for error in errors)
        if handshake.agreed is None:
            await handshake.connect(group)
        else:
            del peer.replies[:2]
        assert (await handshake.session(group)).id == "c"


@pytest.mark.anyio
async def test_a_session_asked_for_while_nothing_is_agreed_is_an_error_and_no_crash() -> None:
    handshake = Handshake(Peer(*legacy("a")))
    async with anyio.create_task_group() as group:
        agreed = await handshake.connect(group)
        handshake.forget(agreed)
        handshake.forget(agreed)
        handshake.sessions.on_404(1, retried=True)
        with pytest.raises(ProtocolError):
            await handshake.session(group)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (StatusReply(401, b"", None), HTTPStatusError),
        (StatusReply(503, b"", 3.0), RateLimited),
        (ServerDisconnected("gone"), ServerDisconnected),
        (Reply(Success(1, {"supportedVersions": ["1999-01-01"]}), None), ProtocolError),
    ],
)
async def test_a_failure_to_agree_sent_nothing_of_those_who_wait(
    reply: Any, kind: type[GatewayError]
) -> None:
    handshake = Handshake(Peer(reply))
    async with anyio.create_task_group() as group:
        with pytest.raises(kind) as caught:
            await handshake.connect(group)
        assert caught.value.delivery != "unknown"
        assert caught.value.retry_after_s == getattr(reply, "retry_after_s", None)


@pytest.mark.anyio
async def test_each_who_waited_for_a_handshake_that_failed_has_an_error_of_their_own() -> None:
    handshake = Handshake(Peer(ProtocolError("no MCP", delivery="answered")))
    failures: list[GatewayError] = []
    async with anyio.create_task_group() as group:

        async def caller(request_id: str) -> None:
            try:
                await handshake.connect(group)
            except ProtocolError as exc:
                exc.request_id = request_id
                exc.add_note(request_id)
                failures.append(exc)

        for request_id in ("first", "second"):
            group.start_soon(caller, request_id)
    assert {(exc.request_id, *exc.__notes__) for exc in failures} == {
        ("first", "first"),
        ("second", "second"),
    }


@pytest.mark.anyio
async def test_an_announcement_that_fails_leaves_no_session_behind() -> None:
    handshake = Handshake(Peer(*legacy("deaf"), *legacy("b")))
    async with anyio.create_task_group() as group:
        with pytest.raises(ServerDisconnected):
            await handshake.connect(group)
        await handshake.connect(group)
        assert (await handshake.session(group)).id == "b"


@pytest.mark.anyio
async def test_closing_ends_a_handshake_under_way_and_allows_no_other() -> None:
    handshake = Handshake(Peer(None))
    async with anyio.create_task_group() as group:
        errors: list[GatewayError] = []

        async def connect() -> None:
            try:
                await handshake.connect(group)
            except ClientClosed as exc:
                errors.append(exc)

        async with anyio.create_task_group() as callers:
            callers.start_soon(connect)
            callers.start_soon(connect)
            await anyio.wait_all_tasks_blocked()
            assert handshake.close() is None
        assert len(errors) == 2
        with pytest.raises(ClientClosed):
            await handshake.session(group)


@pytest.mark.anyio
async def test_closing_names_the_session_to_end() -> None:
    handshake = Handshake(Peer(*legacy("a")))
    async with anyio.create_task_group() as group:
        await handshake.connect(group)
        session = handshake.close()
        assert session is not None
        assert session.id == "a"
        with pytest.raises(ClientClosed):
            await handshake.renewed(session, group, retried=False)


@pytest.mark.trio
async def test_a_handshake_without_end_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    handshake = Handshake(Peer(None))
    async with anyio.create_task_group() as group:
        begun = trio.current_time()
        with pytest.raises(ReadTimeout) as caught:
            await handshake.connect(group)
        assert trio.current_time() - begun == 60.0
        assert caught.value.delivery == "not_sent"


@pytest.mark.anyio
async def test_no_handshake_begins_in_a_transport_that_is_closed() -> None:
    peer = Peer()
    handshake = Handshake(peer)
    assert handshake.close() is None
    async with anyio.create_task_group() as group:
        with pytest.raises(ClientClosed):
            await handshake.connect(group)
    assert peer.asked == []
