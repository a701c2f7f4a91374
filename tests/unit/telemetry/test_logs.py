"""Events become log records, each at its level, and none of them can forge another."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sark_trio.telemetry import events
from sark_trio.telemetry.events import CallFinished, CallInfo, Event
from sark_trio.telemetry.logs import JsonFormatter, LogHook, StructlogHook, level_of

CALL = CallInfo(request_id="r1", server="db", tool="query", transport="http")
EVENT = events.ProcessExited(server="db", pid=7, exit_code=-9, expected=False)


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What the default logger is told, all of it."""
    logger, handler = logging.getLogger("sark_trio.events"), Kept()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def ended(outcome: Any) -> CallFinished:
    return CallFinished(call=CALL, outcome=outcome, delivery="unknown", seconds=1, attempts=1)


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (events.CallStarted(call=CALL), "DEBUG"),
        (ended("ok"), "INFO"),
        (ended("tool_error"), "INFO"),
        (ended("cancelled"), "INFO"),
        (ended("denied"), "WARNING"),
        (ended("rejected"), "WARNING"),
        (ended("timeout"), "ERROR"),
        (ended("error"), "ERROR"),
        (ended("unknown"), "ERROR"),
        (EVENT, "WARNING"),
        (events.ProcessExited(server="db", pid=7, exit_code=0, expected=True), "INFO"),
        (events.BreakerChanged(server="db", source="closed", target="open", why="f"), "WARNING"),
        (events.BreakerChanged(server="db", source="open", target="half_open", why="e"), "INFO"),
        (events.PoolWaited(server="db", seconds=1, granted=False), "WARNING"),
        (events.PoolWaited(server="db", seconds=1, granted=True), "DEBUG"),
        (events.TokenChecked(ok=False, reason="expired"), "WARNING"),
        (events.TokenChecked(ok=True), "DEBUG"),
        (events.CheckpointTaken(records=3, error_type="OSError"), "WARNING"),
        (events.AuditFailed(problem="full"), "ERROR"),
        (events.HookDisabled(hook="h", error_type="E"), "ERROR"),
    ],
)
def test_each_event_has_its_level(event: Event, level: str) -> None:
    assert logging.getLevelName(level_of(event)) == level


def test_a_record_has_the_fields_in_its_text_and_beside_it(kept: Kept) -> None:
    LogHook()(EVENT)
    (record,) = kept.records
    assert record.name == "sark_trio.events"
    assert record.levelname == "WARNING"
    assert record.getMessage() == "process.exited server=db pid=7 exit_code=-9 expected=False"
    assert vars(record)["sark"] == {
        "event": "process.exited",
        "server": "db",
        "pid": 7,
        "exit_code": -9,
        "expected": False,
    }


def test_what_is_not_wanted_is_not_made(kept: Kept) -> None:
    logging.getLogger("sark_trio.events").setLevel(logging.ERROR)
    LogHook()(EVENT)
    assert kept.records == []


def test_another_logger_may_be_told() -> None:
    handler, logger = Kept(), logging.getLogger("mine")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    LogHook(logger)(EVENT)
    logger.removeHandler(handler)
    assert [record.name for record in handler.records] == ["mine"]


@pytest.mark.security(31)
@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("full", "problem=full"),
        ("disk is full", "problem='disk is full'"),
        ("x\naudit.failed problem=forged", r"problem='x\naudit.failed problem=forged'"),
        ("\x1b[31m", r"problem='\x1b[31m'"),
    ],
)
def test_no_name_can_look_like_a_line_or_a_field(kept: Kept, problem: str, said: str) -> None:
    LogHook()(events.AuditFailed(problem=problem))
    assert kept.records[0].getMessage() == f"audit.failed {said}"


def test_json_lines_have_the_fields(kept: Kept) -> None:
    LogHook()(EVENT)
    line = JsonFormatter().format(kept.records[0])
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("ts") == pytest.approx(kept.records[0].created, abs=1e-5)
    assert found == {
        "level": "warning",
        "logger": "sark_trio.events",
        "event": "process.exited",
        "server": "db",
        "pid": 7,
        "exit_code": -9,
        "expected": False,
    }


def test_json_lines_have_the_time_in_microseconds() -> None:
    record = logging.makeLogRecord({"created": 0.12345678})
    assert json.loads(JsonFormatter().format(record))["ts"] == 0.123457


@pytest.mark.security(31)
def test_a_json_line_shows_a_terminal_nothing_but_ascii(kept: Kept) -> None:
    """C1 controls and direction marks too, which JSON itself would let stand; nothing is lost."""
    problem = "\x1b[31m\x9b31m\u202e\u2028\n\ud800 caf\u00e9"
    LogHook()(events.AuditFailed(problem=problem))
    line = JsonFormatter().format(kept.records[0])
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["problem"] == problem


def test_json_lines_of_other_records_have_their_message_and_traceback(kept: Kept) -> None:
    logger = logging.getLogger("sark_trio.events")
    try:
        raise RuntimeError("lost")
    except RuntimeError:
        logger.exception("a request to %s failed", "/mcp")
    found = json.loads(JsonFormatter().format(kept.records[0]))
    assert found["message"] == "a request to /mcp failed"
    assert found["exception"].endswith("RuntimeError: lost")


def test_structlog_is_told_name_and_fields() -> None:
    with structlog.testing.capture_logs() as captured:
        StructlogHook(structlog.get_logger())(EVENT)
    assert captured == [
        {
            "event": "process.exited",
            "log_level": "warning",
            "server": "db",
            "pid": 7,
            "exit_code": -9,
            "expected": False,
        }
    ]
