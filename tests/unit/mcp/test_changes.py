"""What is to be heard of, and what is heard."""

from __future__ import annotations

from typing import Any

import mcp_types
import pytest

from sark_trio.mcp.changes import ACKNOWLEDGED, LISTEN, Change, Interest, parse_change
from sark_trio.mcp.messages import Notification

ALL = Interest(
    tools_list=True,
    prompts_list=True,
    resources_list=True,
    resources="file:///a",
    tasks=["t"],
)


def test_the_filter_is_the_official_one() -> None:
    asked = ALL.notifications()
    theirs = mcp_types.SubscriptionFilter.model_validate(asked)
    assert theirs.tools_list_changed
    assert theirs.resource_subscriptions == ["file:///a"]
    assert asked["taskIds"] == ["t"]
    assert set(asked) == {
        "toolsListChanged",
        "promptsListChanged",
        "resourcesListChanged",
        "resourceSubscriptions",
        "taskIds",
    }
    assert Interest(prompts_list=True).notifications() == {"promptsListChanged": True}
    assert not Interest()


@pytest.mark.parametrize(
    ("method", "params", "change"),
    [
        ("notifications/tools/list_changed", {}, Change("tools")),
        ("notifications/prompts/list_changed", {}, Change("prompts")),
        ("notifications/resources/list_changed", {}, Change("resources")),
        ("notifications/resources/updated", {"uri": "x"}, Change("resource", "x")),
        ("notifications/resources/updated", {"uri": 1}, None),
        ("notifications/tasks", {"taskId": "t"}, Change("task", "t")),
        ("notifications/tasks/status", {"taskId": "t"}, Change("task", "t")),
        ("notifications/tasks", {}, None),
        ("notifications/progress", {}, None),
    ],
)
def test_notifications_are_read(method: str, params: dict[str, Any], change: Change | None) -> None:
    assert parse_change(Notification(method, params)) == change


def test_only_what_is_wanted_is_wanted() -> None:
    changes = [Change(kind) for kind in ("tools", "prompts", "resources")]
    changes += [Change("resource", "file:///a"), Change("task", "t")]
    assert all(map(ALL.wants, changes))
    assert not any(map(Interest(resources=["file:///b"]).wants, changes))
    assert Interest(resources=["file:///a", "file:///b"]).wants(Change("resource", "file:///a"))
    assert Interest().wants(Change("gap"))


def test_a_resource_stands_for_what_is_below_it() -> None:
    wants = Interest(resources=["file:///a"]).wants
    assert wants(Change("resource", "file:///a/b"))
    assert not wants(Change("resource", "file:///ab"))
    assert wants(Change("resource", None)) is False
    assert not Interest(resources="file:///a~").wants(Change("resource", "file:///a/b"))


def test_what_a_server_does_not_honour_is_named() -> None:
    assert ALL.unheard(ALL.notifications()) == ()
    partly = {"toolsListChanged": True, "resourceSubscriptions": []}
    assert set(ALL.unheard(partly)) == set(ALL.notifications()) - {"toolsListChanged"}
    assert len(ALL.unheard(None)) == 5
    two = Interest(tasks=["t", "u"])
    assert two.unheard({"taskIds": ["u"]}) == ("taskIds",)
    assert two.unheard({"taskIds": ["u", "t"]}) == ()


def test_the_words_of_the_protocol() -> None:
    assert LISTEN == "subscriptions/listen"
    assert ACKNOWLEDGED == "notifications/subscriptions/acknowledged"


@pytest.mark.parametrize("bad", [[""], [1], ["x"] * 1_001])
def test_subjects_are_a_bounded_number_of_strings(bad: Any) -> None:
    with pytest.raises(ValueError, match="resources"):
        Interest(resources=bad)
    assert len(Interest(resources=["x"] * 1_000).resources) == 1_000
