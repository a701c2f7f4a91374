"""The ring of events, and how records become events."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from sark_trio.gateway import events
from sark_trio.gateway.events import Feed, Reporter

CALL = {
    "server": "db",
    "tool": "query",
    "principal_id": "ann",
    "principal_kind": "user",
    "request_id": "r1",
}


def told(feed: Feed, since: int = 0) -> list[tuple[str, Any]]:
    return [(one.name, json.loads(one.data)) for one in feed.since(since)]


def report(*records: dict[str, Any], health: Any = None) -> list[tuple[str, Any]]:
    feed = Feed("run")
    reporter = Reporter(feed, health or (lambda _: None))
    for number, record in enumerate(records):
        reporter(number, record)
    return told(feed)


def test_the_ring_keeps_the_latest_and_knows_what_it_lost() -> None:
    feed = Feed("run", events_max=3)
    for number in range(5):
        feed.publish("tick", {"n": number, "nothing": None}, server="s", owner="user:ann")
    assert (feed.first, feed.next) == (2, 5)
    assert told(feed, 0) == [("tick", {"n": 2}), ("tick", {"n": 3}), ("tick", {"n": 4})]
    assert told(feed, 4) == [("tick", {"n": 4})]
    assert told(feed, 5) == []
    assert feed.id_of(4) == "run-4"
    with pytest.raises(ValueError, match="positive"):
        Feed("run", events_max=0)


@pytest.mark.parametrize(
    ("last_id", "place"),
    [
        ("run-4", (5, None)),
        ("run-1", (2, None)),
        ("run-0", (2, "too_old")),
        ("run-5", (2, "unknown_id")),
        ("other-3", (2, "unknown_id")),
        ("3", (2, "unknown_id")),
        ("run-", (2, "unknown_id")),
        ("run-³", (2, "unknown_id")),
        ("run-" + "9" * 30, (2, "unknown_id")),
    ],
)
def test_where_a_reader_goes_on(last_id: str, place: tuple[int, str | None]) -> None:
    feed = Feed("run", events_max=3)
    for _ in range(5):
        feed.publish("tick", {})
    assert feed.place_after(last_id) == place


@pytest.mark.anyio
async def test_whoever_waits_is_woken() -> None:
    feed = Feed("run")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.beyond, 1)
        await anyio.wait_all_tasks_blocked()
        feed.publish("one", {})
        await anyio.wait_all_tasks_blocked()
        feed.publish("two", {})
    await feed.beyond(0)


def test_a_call_has_a_beginning_and_an_end() -> None:
    ok = {"kind": "outcome", "request_id": "r1", "outcome": "ok", "duration_us": 1500}
    about = {"tool_name": "query", "server_name": "db", "user_id": "ann", "request_id": "r1"}
    assert report({"kind": "intent", **CALL, "args": {"secret": 1}}, ok) == [
        ("tool_invoked", {**about, "status": "started"}),
        ("tool_completed", {**about, "status": "ok", "duration": 0.0015}),
    ]
    failed = {**ok, "outcome": "unknown", "error_type": "OutcomeUnknown", "error": "secret words"}
    assert report({"kind": "intent", **CALL}, failed)[1] == (
        "tool_failed",
        {**about, "status": "unknown", "duration": 0.0015, "error": "OutcomeUnknown"},
    )
    # The end of a call of an earlier run: its beginning was told to nobody.
    recovered = {"kind": "recovered", "request_id": "r0", "outcome": "unknown"}
    assert report(recovered, ok) == []


def test_a_refusal_says_one_word_of_ours() -> None:
    denied = {"kind": "denied", **CALL, "reason": "denied: the policy's own secret words"}
    assert report(denied) == [
        (
            "authorization_denied",
            {
                "tool_name": "query",
                "server_name": "db",
                "user_id": "ann",
                "request_id": "r1",
                "status": "denied",
                "error": "denied",
            },
        )
    ]
    ((name, data),) = report({"kind": "denied", **CALL, "reason": "open"})
    assert (name, data["error"], data["status"]) == ("tool_failed", "open", "not_sent")


def test_health_is_told_when_it_changes() -> None:
    states = iter(["healthy", "healthy", "unhealthy", None, "healthy"])
    records: list[dict[str, Any]] = []
    for number in range(5):
        request = {**CALL, "request_id": str(number)}
        records += [
            {"kind": "intent", **request},
            {"kind": "outcome", "request_id": str(number), "outcome": "ok"},
        ]
    found = report(*records, health=lambda _: next(states))
    statuses = [data["status"] for name, data in found if name == "server_health"]
    assert statuses == ["healthy", "unhealthy", "healthy"]


@pytest.mark.parametrize(
    ("name", "details", "event", "data"),
    [
        (
            "server_registered",
            {"server": "db"},
            "server_registered",
            {"server_name": "db", "status": "registered"},
        ),
        (
            "blocked",
            {"server": "db", "tool": None, "principal": None, "reason": "words"},
            "security_event",
            {"server_name": "db", "status": "blocked", "severity": "high"},
        ),
        (
            "audit_refused",
            {"principal_id": "eve"},
            "security_violation",
            {"user_id": "eve", "status": "audit_refused", "severity": "high"},
        ),
    ],
)
def test_operations_are_told(
    name: str, details: dict[str, Any], event: str, data: dict[str, Any]
) -> None:
    record = {"kind": "event", "name": name, "details": details}
    assert report(record) == [(event, data)]


def test_other_records_are_not_told() -> None:
    others = ({"kind": "event", "name": "audit_read", "details": {}}, {"kind": "attempt"})
    assert report(*others) == []


def test_calls_that_never_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "CALLS_MAX", 2)
    begun = [{"kind": "intent", **CALL, "request_id": str(n)} for n in range(3)]
    ends = [{"kind": "outcome", "request_id": str(n), "outcome": "ok"} for n in range(3)]
    found = [data["request_id"] for name, data in report(*begun, *ends) if "completed" in name]
    assert found == ["1", "2"]
