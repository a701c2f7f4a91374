"""Progress and log notifications: the well-formed ones, and everything else."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.mcp.progress import (
    LOG,
    PROGRESS,
    LogMessage,
    Progress,
    number_of,
    parse_log_message,
    parse_progress,
)


def test_the_words_of_the_protocol() -> None:
    assert (PROGRESS, LOG) == ("notifications/progress", "notifications/message")


@pytest.mark.parametrize(
    ("integer", "number"),
    [
        (-(2**63), -(2.0**63)),
        (-(2**63) - 1, None),
        (2**63 - 1, 2.0**63),
        (2**63, None),
        (0, 0.0),
    ],
)
def test_an_integer_is_a_number_if_64_bits_hold_it(integer: int, number: float | None) -> None:
    assert number_of(integer) == number


def test_progress_with_everything() -> None:
    params = {"progressToken": "t", "progress": 1, "total": 2.5, "message": "half"}
    assert parse_progress(params) == Progress("t", 1.0, 2.5, "half")


def test_progress_with_the_least() -> None:
    assert parse_progress({"progressToken": 7, "progress": 0.5}) == Progress(7, 0.5)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"progressToken": 1},
        {"progress": 1},
        {"progressToken": True, "progress": 1},
        {"progressToken": 1.0, "progress": 1},
        {"progressToken": None, "progress": 1},
        {"progressToken": [], "progress": 1},
        {"progressToken": 1, "progress": True},
        {"progressToken": 1, "progress": "1"},
        {"progressToken": 1, "progress": float("inf")},
        {"progressToken": 1, "progress": 10**400},
    ],
)
def test_progress_that_is_none(params: dict[str, Any]) -> None:
    assert parse_progress(params) is None


def test_the_ornaments_of_progress_may_be_wrong() -> None:
    params = {"progressToken": 1, "progress": 1, "total": "2", "message": 3}
    assert parse_progress(params) == Progress(1, 1.0, None, None)


def test_a_log_message() -> None:
    params = {"level": "error", "logger": "db", "data": {"a": 1}}
    assert parse_log_message(params) == LogMessage("error", {"a": 1}, "db")
    assert parse_log_message({"level": "debug", "data": None, "logger": 1}) == LogMessage(
        "debug", None
    )


@pytest.mark.parametrize(
    "params",
    [{}, {"level": "error"}, {"level": "loud", "data": 1}, {"level": ["error"], "data": 1}],
)
def test_a_log_message_that_is_none(params: dict[str, Any]) -> None:
    assert parse_log_message(params) is None
