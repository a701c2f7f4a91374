"""Events are plain values of a few fields, each fit to be printed and counted."""

from __future__ import annotations

import re

import attrs
import pytest

from sark_trio.telemetry import events
from sark_trio.telemetry.events import (
    OTHER,
    CallFinished,
    CallInfo,
    CallStarted,
    Event,
    ProcessExited,
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


def test_every_event_has_a_name_of_its_own() -> None:
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names) > 20


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
        ("x" * 41, OTHER),
        ("Upper", OTHER),
        ("line\n", OTHER),
        (7, OTHER),
    ],
)
def test_a_reason_is_one_word_or_none(reason: object, label: str | None) -> None:
    assert word(reason) == label
