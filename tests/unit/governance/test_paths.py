from __future__ import annotations

import pytest

from sark_trio.governance.paths import (
    PathSet,
    compile_paths,
    fold,
    parse_path,
    pointer,
    trail_pointer,
)


@pytest.mark.parametrize(
    ("text", "segments"),
    [("/a", ("a",)), ("/a/*/b", ("a", "*", "b")), ("/~1~0", ("/~",)), ("/", ("",))],
)
def test_parse(text: str, segments: tuple[str, ...]) -> None:
    assert parse_path(text) == segments


@pytest.mark.parametrize("text", ["", "a/b", "/~2", "/~", "/" + "a/" * 64, "/" + "a" * 1_024])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="path"):
        parse_path(text)


@pytest.mark.parametrize("texts", ["/a", [1], None, ["/a"] * 257])
def test_what_is_no_list_of_paths_is_refused(texts: object) -> None:
    with pytest.raises(ValueError, match="paths"):
        compile_paths(texts)


def test_pointer_escapes_what_parse_reads() -> None:
    assert pointer(["a/b", "~", 3]) == "/a~1b/~0/3"
    assert trail_pointer(((None, "a"), 0)) == "/a/0"
    assert trail_pointer(None) == ""


@pytest.mark.parametrize(
    "name",
    [
        "Password",
        "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
        "pass\u200bword",
        "pa\u017f\u017fword",
        "PASSWORD\u2060",
    ],
)
def test_fold_reads_as_a_careless_peer(name: str) -> None:
    assert fold(name) == "password"


def test_a_set_merges_named_members_and_stars() -> None:
    paths = PathSet.of(compile_paths(["/a/x", "/*/y", "/*/*/z"]))
    below = paths.member("a")
    assert below is not None
    assert [name for name in "xyz" if (found := below.member(name)) and found.ends] == ["x", "y"]
    deeper = below.member("other")
    assert deeper is not None
    assert deeper.member("z") is not None
    assert deeper.member("y") is None
    assert PathSet.of([]).element() is None
    assert not PathSet.of([])
    assert PathSet.of([()])


def test_a_strict_set_meets_names_exactly() -> None:
    assert PathSet.of([("a",)]).member("A") is None
    assert PathSet.of([("a",)], loose=True).member("A") is not None


def test_many_overlapping_paths_cost_no_more_than_their_number() -> None:
    segments = [[f"{'a' if i >> bit & 1 else '*'}" for bit in range(8)] * 8 for i in range(256)]
    state: PathSet | None = PathSet.of(tuple(path) for path in segments)
    for _ in range(64):
        assert state is not None
        state = state.member("a")
    assert state is not None
    assert state.ends
