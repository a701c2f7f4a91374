"""The kill switch, without a client."""

from __future__ import annotations

from itertools import product

import pytest

from sark_trio.governance.blocks import Block, Blocks


def test_a_block_covers_what_it_names_and_nothing_else() -> None:
    """Every scope against every question, as a naive reading of the names says."""
    names = [None, "a"]
    for server, tool, principal in product(names, names, names):
        if tool is not None and server is None:
            continue
        blocks = Blocks()
        block = Block(server=server, tool=tool, principal=principal, reason="r")
        blocks.add(block)
        for asked in product(["a", "b", None], ["a", "b", None], ["a", "b"]):
            covers = all(
                named in {None, given}
                for named, given in zip((server, tool, principal), asked, strict=True)
            )
            assert blocks.covering(*asked) is (block if covers else None), (block, asked)


def test_of_several_blocks_the_one_that_names_most_is_told() -> None:
    """Always the same one: what is recorded must not depend on the order of a set."""
    every = [
        Block(server="db", tool="drop", principal="ann"),
        Block(server="db", tool="drop"),
        Block(server="db", principal="ann"),
        Block(server="db"),
        Block(principal="ann"),
        Block(),
    ]
    blocks = Blocks()
    for block in reversed(every):
        blocks.add(block)
    for block in every:
        assert blocks.covering("db", "drop", "ann") is block
        assert blocks.remove(block)
    assert blocks.covering("db", "drop", "ann") is None


def test_a_block_is_taken_back_by_the_same_names() -> None:
    blocks = Blocks()
    blocks.add(Block(server="db", tool="drop", reason="incident 7"))
    assert blocks.all()[0].reason == "incident 7"
    assert Block(server="db").reason == ""
    assert not blocks.remove(Block(server="db"))
    assert blocks.remove(Block(server="db", tool="drop"))
    assert blocks.covering("db", "drop", "ann") is None
    assert blocks.all() == ()


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (Block(server="db", tool="drop", principal="ann"), "tool 'drop' of server 'db'"),
        (Block(principal="ann"), "caller 'ann'"),
        (Block(), "everything is blocked"),
    ],
)
def test_the_refusal_is_typed_and_keeps_the_operators_words(block: Block, words: str) -> None:
    denial = Block(
        server=block.server, tool=block.tool, principal=block.principal, reason="secret"
    ).denial()
    assert denial.reason == "blocked"
    assert words in denial.message
    assert "secret" not in denial.message
    assert denial.delivery == "not_sent"


def test_a_tool_is_not_blocked_without_its_server() -> None:
    with pytest.raises(ValueError, match="server"):
        Blocks().add(Block(tool="drop"))


def test_there_are_ten_thousand_blocks_at_most() -> None:
    blocks = Blocks()
    for number in range(10_000):
        blocks.add(Block(principal=str(number)))
    with pytest.raises(ValueError, match="more than 10000"):
        blocks.add(Block(server="b"))
    blocks.add(Block(principal="7", reason="again"))  # not one more
    assert blocks.all()[7].reason == "again"
    assert len(blocks.all()) == 10_000
