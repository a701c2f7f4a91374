"""Events are plain values of a few fields, each fit to be printed and counted."""

from __future__ import annotations

import re

import attrs
import pytest

from sark_trio.telemetry import events
from sark_trio.telemetry.events import (
    GATEWAY,
    OTHER,
    CallDecided,
    CallFinished,
    CallInfo,
    CallRetried,
    CallStarted,
    Event,
    ProcessExited,
    StreamConnected,
    fields_of,
    word,
)

CALL = CallInfo(request_id="r1", server="db", tool="query", transport="stdio")
KINDS = [
    kind
    for name in events.__all__
    if isinstance(kind := getattr(events, name), type)
    and issubclass(kind, Event)
    and kind is not Event
]


#: What dashboards and alerts look for.
NAMES = {
    "AttemptFinished": "attempt.finished",
    "AttemptStarted": "attempt.started",
    "AuditFailed": "audit.failed",
    "BreakerChanged": "breaker.changed",
    "CacheLookedUp": "cache.looked_up",
    "CallDecided": "call.decided",
    "CallFinished": "call.finished",
    "CallRetried": "call.retried",
    "CallStarted": "call.started",
    "CheckpointTaken": "audit.checkpoint",
    "ConnectionClosed": "connection.closed",
    "ConnectionOpened": "connection.opened",
    "HookDisabled": "hook.disabled",
    "ListFetched": "list.fetched",
    "PoolWaited": "pool.waited",
    "ProcessExited": "process.exited",
    "ProcessStarted": "process.started",
    "ServerConnected": "server.connected",
    "SessionRenewed": "session.renewed",
    "StreamConnected": "stream.connected",
    "StreamReconnecting": "stream.reconnecting",
    "TokenChecked": "token.checked",
}


def test_every_event_has_a_name_of_its_own() -> None:
    assert {kind.__name__: kind.name for kind in KINDS} == NAMES
    assert len(set(NAMES.values())) == len(NAMES)


def test_names_that_stand_for_others_are_none_that_a_server_may_have() -> None:
    assert (GATEWAY, OTHER) == ("_gateway", "_other")


def test_what_is_not_said_is_the_usual() -> None:
    assert CallInfo(request_id="r1", server="db", transport="stdio").method == "tools/call"
    assert not CallDecided(call=CALL, allow=True, seconds=0.1).cached
    assert CallRetried(call=CALL, number=1, reason="stale_connection").wait_s == 0
    assert not StreamConnected(server="db").resumed


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_frozen_values_of_plain_fields(kind: type[Event]) -> None:
    plain = r"(CallInfo|CallOutcome|str|int|float|bool|Literal\[.*\])( \| None)?"
    for attribute in attrs.fields(kind):
        assert attribute.kw_only
        assert re.fullmatch(plain, str(attribute.type)), attribute
    assert attrs.fields(kind)
    assert "__dict__" not in dir(kind)


def test_an_event_is_equal_to_its_like_and_cannot_be_changed() -> None:
    event = CallStarted(call=CALL)
    assert event == CallStarted(call=attrs.evolve(CALL))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.call = CALL  # type: ignore[misc]


def test_fields_are_flat_and_leave_out_what_is_not_known() -> None:
    event = CallFinished(
        call=CALL, outcome="ok", delivery="answered", seconds=0.5, attempts=1, error_type=None
    )
    assert fields_of(event) == {
        "request_id": "r1",
        "server": "db",
        "tool": "query",
        "transport": "stdio",
        "method": "tools/call",
        "outcome": "ok",
        "delivery": "answered",
        "seconds": 0.5,
        "attempts": 1,
    }
    gone = ProcessExited(server="db", pid=7, exit_code=None, expected=False)
    assert fields_of(gone) == {"server": "db", "pid": 7, "expected": False}


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        ("denied", "denied"),
        ("no_policy", "no_policy"),
        (None, None),
        ("", OTHER),
        ("the password is hunter2", OTHER),
        ("x" * 40, "x" * 40),
        ("x" * 41, OTHER),
        ("Upper", OTHER),
        ("line\n", OTHER),
        (7, OTHER),
    ],
)
def test_a_reason_is_one_word_or_none(reason: object, label: str | None) -> None:
    assert word(reason) == label
