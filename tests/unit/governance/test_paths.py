from __future__ import annotations

import pytest

from sark_trio.governance.paths import (
    MARK,
    PathSet,
    compile_paths,
    fold,
    loose_paths,
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


@pytest.mark.parametrize(
    "text", ["", "a/b", "/~2", "/~", "/~~10", "/a/~~01", "/" + "a/" * 64, "/" + "a" * 1_024]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="path"):
        parse_path(text)


@pytest.mark.parametrize("texts", ["/a", [1], ["/a", 1], None, ["/a"] * 257])
def test_what_is_no_list_of_paths_is_refused(texts: object) -> None:
    with pytest.raises(ValueError, match="paths"):
        compile_paths(texts)


def test_pointer_escapes_what_parse_reads() -> None:
    assert pointer(["a/b", "~", 3]) == "/a~1b/~0/3"
    assert trail_pointer(((None, "a"), 0)) == "/a/0"
    assert trail_pointer(None) == ""


def test_only_what_cannot_be_seen_is_folded_away() -> None:
    for unseen in "\u115f\u1160\u17b4\u17b5\u180b\u180f\ufe00\ufe0f\U000e0100\U000e01ef":
        assert fold(f"a{unseen}b") == "ab"
    for seen in "\u1161\u17b3\u17b6\u180a\u1810\ufdff\ufe10\U000e01f0":
        assert fold(f"a{seen}b") != "ab"
    assert fold("\u00e9~") == "\u00e9~"


@pytest.mark.parametrize(
    "name",
    [
        "Password",
        "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
        "pass\u200bword",
        "pa\u017f\u017fword",
        "PASSWORD\u2060",
        "pass\u034fword",  # combining grapheme joiner
        "pass\ufe0fword",  # variation selector
        "pass\U000e0100word",
        "pass\u180bword",  # Mongolian variation selector
        "\u3164password\uffa0",  # Hangul fillers
    ],
)
def test_fold_reads_as_a_careless_peer(name: str) -> None:
    assert fold(name) == "password"


def test_a_trail_is_told_as_a_pointer() -> None:
    assert trail_pointer(None) == ""
    assert trail_pointer((((None, "a/b"), 0), "c~d")) == "/a~1b/0/c~0d"


def test_paths_that_take_away_are_met_loosely() -> None:
    paths = loose_paths(["/Password"])
    assert paths.member("pASSWORD") is not None
    assert loose_paths(paths) is paths
    with pytest.raises(ValueError, match="must begin with '/'"):
        loose_paths(["password"])


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


def test_a_set_of_stars_meets_every_member() -> None:
    paths = PathSet.of(compile_paths(["/*/a"]))
    below = paths.member("x")
    assert below is not None
    assert below.member("a") == PathSet.of([()])
    assert below.member("b") is None
    assert below.member("*") is None
    named = PathSet.of(compile_paths(["/a/b"]))
    assert [bool(each) for each in (paths, below, named, PathSet.of([]))] == [True] * 3 + [False]


def test_paths_are_bounded_exactly() -> None:
    longest = "/" + "a" * 1_023
    assert parse_path(longest) == ("a" * 1_023,)
    with pytest.raises(ValueError, match="path of 1025 characters is longer than 1024"):
        parse_path(longest + "a")
    assert len(parse_path("/a" * 64)) == 64
    with pytest.raises(ValueError, match="more than 64 segments"):
        parse_path("/a" * 65)
    assert len(compile_paths(["/a"] * 256)) == 256
    with pytest.raises(ValueError, match="more than 256 paths"):
        compile_paths(["/a"] * 257)


def test_the_mark_is_the_documented_one() -> None:
    assert MARK == "[redacted]"


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
