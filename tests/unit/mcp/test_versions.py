"""Versions: an enumerated set, in an order of preference."""

from __future__ import annotations

import pytest

from sark_trio.mcp.versions import (
    HTTP_SSE,
    LEGACY,
    MODERN,
    SPOKEN,
    choose,
    is_modern,
    sends_version_header,
)


def test_what_we_speak() -> None:
    assert SPOKEN == ("2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
    assert (SPOKEN[0], SPOKEN[1:4], SPOKEN[4]) == (MODERN, LEGACY, HTTP_SSE)


def test_only_the_stateless_revision_is_modern() -> None:
    assert [version for version in (*SPOKEN, "2099-01-01", "") if is_modern(version)] == [MODERN]


def test_the_newest_common_version_is_chosen_whatever_the_order() -> None:
    assert choose([HTTP_SSE, *reversed(LEGACY), MODERN]) == MODERN
    assert choose(["2025-03-26", "2025-11-25"]) == "2025-11-25"


def test_nothing_common_is_none() -> None:
    assert choose([]) is None
    assert choose(["2099-01-01", "zzz"]) is None
    assert choose([MODERN], spoken=LEGACY) is None


def test_what_is_no_string_in_a_peers_list_is_passed_over() -> None:
    assert choose([None, 7, ["2025-11-25"], {}, "2025-06-18"]) == "2025-06-18"


@pytest.mark.parametrize(
    ("version", "sends"),
    [
        (MODERN, True),
        ("2025-11-25", True),
        ("2025-06-18", True),
        ("2025-03-26", False),
        (HTTP_SSE, False),
        ("2099-01-01", False),
    ],
)
def test_the_version_header_came_with_2025_06_18(version: str, sends: bool) -> None:
    assert sends_version_header(version) is sends
