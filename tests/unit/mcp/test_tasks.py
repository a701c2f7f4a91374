"""Tasks of both kinds: read into one value, watched by one machine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.errors import ProtocolError
from sark_trio.mcp.messages import Fault
from sark_trio.mcp.tasks import (
    EXTENSION,
    Answer,
    Ended,
    Fetch,
    Poll,
    Polling,
    Task,
    is_created,
    parse_task,
)

ASK = {"method": "elicitation/create"}


def task(status: Any = "working", task_id: str = "t", **more: Any) -> Task:
    return Task(task_id=task_id, status=status, **more)


def test_a_task_of_the_extension_is_read() -> None:
    result = {
        "resultType": "task",
        "taskId": "t",
        "status": "working",
        "ttlMs": 60_000,
        "pollIntervalMs": 500,
    }
    made = parse_task(result)
    assert (made.task_id, made.status, made.ttl_ms, made.poll_interval_ms) == (
        "t",
        "working",
        60_000,
        500,
    )
    assert is_created(result, modern=True)
    assert not is_created(result, modern=False)


def test_everything_that_a_task_says_is_read() -> None:
    raw = {
        "taskId": "t" * 1_024,
        "status": "completed",
        "statusMessage": "done",
        "createdAt": "then",
        "lastUpdatedAt": "now",
        "ttlMs": 0,
        "pollIntervalMs": 0,
        "result": {"content": []},
        "error": {"code": 1},
        "inputRequests": {"a": ASK},
    }
    assert parse_task(raw) == Task(
        task_id="t" * 1_024,
        status="completed",
        status_message="done",
        created_at="then",
        last_updated_at="now",
        ttl_ms=0,
        poll_interval_ms=0,
        result={"content": []},
        error={"code": 1},
        input_requests={"a": ASK},
        raw=raw,
    )
    odd = parse_task({**raw, "statusMessage": 1, "createdAt": [], "result": [], "error": "x"})
    assert (odd.status_message, odd.created_at, odd.result, odd.error) == (None,) * 4


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ("working", False),
        ("input_required", False),
        ("completed", True),
        ("failed", True),
        ("cancelled", True),
    ],
)
def test_three_statuses_are_ends(status: str, ended: bool) -> None:
    assert parse_task({"taskId": "t", "status": status}).ended is ended


def test_the_extension_has_its_name() -> None:
    assert EXTENSION == "io.modelcontextprotocol/tasks"


def test_a_task_of_2025_11_25_is_read() -> None:
    result = {"task": {"taskId": "t", "status": "working", "ttl": None, "pollInterval": 10}}
    made = parse_task(result)
    assert (made.task_id, made.ttl_ms, made.poll_interval_ms) == ("t", None, 10)
    assert is_created(result, modern=False)
    assert not is_created({**result, "content": []}, modern=False)


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"taskId": "", "status": "working"},
        {"taskId": "t" * 1_025, "status": "working"},
        {"taskId": "t", "status": "sleeping"},
        {"taskId": "t", "status": ["working"]},
        {"taskId": "t", "status": "input_required", "inputRequests": []},
        {"taskId": "t", "status": "input_required", "inputRequests": {"a": {}}},
        {"taskId": "t", "status": "input_required", "inputRequests": {"a": "x"}},
        {"taskId": "t", "status": "working", "inputRequests": {"a": {**ASK, "params": []}}},
        {"taskId": "t", "status": "working", "inputRequests": {"a": {**ASK, "params": None}}},
    ],
)
def test_what_is_no_task_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="task is malformed") as caught:
        parse_task(result)
    assert caught.value.delivery == "answered"


@pytest.mark.parametrize(
    ("asked_ms", "seconds"),
    [(None, 1.0), (0, 0.05), (49, 0.05), (2_000, 2.0), (30_001, 30.0), (10**400, 30.0)],
)
def test_a_server_suggests_how_often_to_ask_within_bounds(
    asked_ms: int | None, seconds: float
) -> None:
    polling = Polling(task(poll_interval_ms=asked_ms), modern=True)
    assert polling.next() == Poll(seconds)


def test_a_task_that_asks_is_answered_once_for_each_key() -> None:
    polling = Polling(task(), modern=True)
    assert polling.on_task(task("input_required", input_requests={"a": ASK})) == Answer({"a": ASK})
    assert isinstance(polling.on_answered(), Poll)
    # The server has not caught up with our answers yet, and then asks for more.
    assert isinstance(polling.on_task(task("input_required", input_requests={"a": ASK})), Poll)
    both = task("input_required", input_requests={"a": ASK, "b": ASK})
    assert polling.on_task(both) == Answer({"b": ASK})


def test_ends_are_final() -> None:
    for status in ("completed", "failed", "cancelled"):
        polling = Polling(task(), modern=True)
        ended = polling.on_task(task(status, result={}))
        assert ended == Ended(task(status, result={}), asked_too_much=False)
        assert Ended(task()) == Ended(task(), asked_too_much=False)
        assert polling.on_task(task()) == Fault("the task has ended")
        assert repr(polling) == f"<Polling {status} polls=1 answered=0>"
        assert polling.next() == ended


def test_what_a_task_waits_for_is_read() -> None:
    requests = {"a": ASK, "b": {**ASK, "params": {"message": "who?"}}}
    made = parse_task({"taskId": "t", "status": "input_required", "inputRequests": requests})
    assert made.input_requests == requests
    assert parse_task({"taskId": "t", "status": "working"}).input_requests == {}


def test_a_server_that_asks_without_end_is_left() -> None:
    """Whatever it says afterwards: nothing brings an ended watch back."""
    many = {str(number): ASK for number in range(101)}
    polling = Polling(task(), modern=True)
    for number in range(100):
        asked = polling.on_task(task("input_required", input_requests={str(number): ASK}))
        assert isinstance(asked, Answer)
        assert isinstance(polling.on_answered(), Poll)
    ended = polling.on_task(task("input_required", input_requests=many))
    assert isinstance(ended, Ended)
    assert ended.asked_too_much
    assert polling.next() == ended
    assert isinstance(polling.on_task(task()), Fault)
    assert isinstance(polling.on_answered(), Fault)
    polling.check_invariants()
    first = Polling(task("input_required", input_requests=many), modern=True)
    assert isinstance(first.on_task(task("completed", result={})), Fault)


@pytest.mark.parametrize(
    ("raw", "ttl_ms"),
    [
        ({"ttlMs": 5, "ttl": 7}, 5),
        ({"ttlMs": "5", "ttl": 7}, 7),
        ({"ttlMs": -1}, None),
        ({"ttl": True}, None),
        ({"ttl": 1.5}, None),
    ],
)
def test_a_time_that_is_no_count_is_left_out(raw: dict[str, Any], ttl_ms: int | None) -> None:
    assert parse_task({"taskId": "t", "status": "working", **raw}).ttl_ms == ttl_ms


def test_in_2025_11_25_the_result_is_fetched_and_brings_the_questions() -> None:
    for status in ("completed", "failed", "input_required"):
        assert Polling(task(status), modern=False).next() == Fetch()
    assert isinstance(Polling(task("cancelled"), modern=False).next(), Ended)


def test_another_task_is_none_of_ours() -> None:
    polling = Polling(task(), modern=True)
    assert polling.on_task(task("completed", "other")) == Fault("that is another task")
    assert polling.on_answered() == Fault("nothing was asked")
    assert repr(polling) == "<Polling working polls=0 answered=0>"


STATUSES = st.sampled_from(["working", "input_required", "completed", "failed", "cancelled"])
TASKS = st.builds(
    Task,
    task_id=st.sampled_from(["t", "u"]),
    status=STATUSES,
    poll_interval_ms=st.none() | st.integers(0, 10**7),
    input_requests=st.dictionaries(st.text(max_size=2), st.just(ASK), max_size=40),
)


@given(TASKS, st.booleans(), st.lists(TASKS | st.just("answered"), max_size=20))
def test_whatever_comes_no_key_is_asked_twice(first: Task, modern: bool, events: list[Any]) -> None:
    polling, asked = Polling(first, modern=modern), set[str]()
    for event in events:
        step = polling.next()
        if event == "answered":
            if isinstance(step, Answer):
                assert not asked & step.requests.keys()
                asked |= step.requests.keys()
            polling.on_answered()
        else:
            polling.on_task(event)
        polling.check_invariants()
    assert len(asked) <= 100
