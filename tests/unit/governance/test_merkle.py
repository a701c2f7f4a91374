from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.governance.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

#: The leaves and tree heads of the Certificate Transparency test suites.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
EMPTY_CT_ROOT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def _leaves(count: int) -> list[bytes]:
    return [leaf_hash(bytes([number])) for number in range(count)]


def test_the_published_tree_heads() -> None:
    tree = MerkleTree()
    assert tree.root() == EMPTY_ROOT == tree_root([])
    assert EMPTY_ROOT.hex() == EMPTY_CT_ROOT
    for data, root in zip(CT_LEAVES, CT_ROOTS, strict=True):
        tree.append(data)
        assert tree.root().hex() == root
    assert tree_root([leaf_hash(data) for data in CT_LEAVES]).hex() == CT_ROOTS[-1]


def test_leaves_and_nodes_have_hashes_of_their_own() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert node_hash(left, right) != leaf_hash(left + right)
    assert node_hash(left, right) != node_hash(right, left)


@pytest.mark.parametrize("size", range(70))
def test_growing_by_one_is_the_same_as_building_at_once(size: int) -> None:
    tree = MerkleTree()
    for number in range(size):
        tree.append(bytes([number]))
    assert tree.size == size
    assert tree.root() == tree_root(_leaves(size))
    assert len(tree.frontier) == size.bit_count()


@given(st.integers(0, 200), st.integers(0, 100))
def test_a_tree_goes_on_from_its_frontier(before: int, after: int) -> None:
    whole, first = MerkleTree(), MerkleTree()
    for number in range(before):
        whole.append(b"%d" % number)
        first.append(b"%d" % number)
    second = MerkleTree(size=first.size, frontier=list(first.frontier))
    for number in range(after):
        whole.append(b"+%d" % number)
        second.append(b"+%d" % number)
    assert second.root() == whole.root()


@pytest.mark.parametrize(
    ("size", "frontier"),
    [(-1, []), (-1, [b"\0" * 32]), (1, []), (2, [b"\0" * 32] * 2), (1, [b"short"])],
)
def test_a_frontier_that_makes_no_tree_is_refused(size: int, frontier: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"must|do not"):
        MerkleTree(size=size, frontier=frontier)


def test_every_inclusion_proof_holds_for_its_leaf_only() -> None:
    for size in range(1, 20):
        leaves = _leaves(size)
        root = tree_root(leaves)
        for index in range(size):
            proof = inclusion_proof(leaves, index)
            assert len(proof) <= size.bit_length()
            for other in range(size):
                held = verify_inclusion(leaves[other], index, size, proof, root)
                assert held is (other == index)
                # A position is part of what is proved, except where the path alone is the same.
                if other != index:
                    assert not verify_inclusion(leaves[index], other, size, proof, root)


def test_an_inclusion_proof_of_the_wrong_shape_proves_nothing() -> None:
    leaves = _leaves(5)
    root, proof = tree_root(leaves), inclusion_proof(leaves, 2)
    assert not verify_inclusion(leaves[2], 2, 5, proof[:-1], root)
    assert not verify_inclusion(leaves[2], 2, 5, (*proof, root), root)
    assert not verify_inclusion(leaves[2], 2, 5, (proof[1], proof[0], *proof[2:]), root)
    assert verify_inclusion(leaves[2], 5, 5, proof, root) is False
    assert verify_inclusion(leaves[2], -1, 5, proof, root) is False
    assert verify_inclusion(leaves[0], 0, 1, (), leaves[0]) is True
    assert verify_inclusion(leaves[0], 1, 1, (), leaves[0]) is False
    assert verify_inclusion(leaves[0], 0, 1, (root,), leaves[0]) is False
    with pytest.raises(ValueError, match="leaf 5 is not in a tree of 5"):
        inclusion_proof(leaves, 5)


def test_every_consistency_proof_holds_for_its_two_trees_only() -> None:
    for size in range(1, 20):
        leaves = _leaves(size)
        root = tree_root(leaves)
        for old_size in range(1, size + 1):
            proof = consistency_proof(leaves, old_size)
            old_root = tree_root(leaves[:old_size])
            assert verify_consistency(old_size, old_root, size, root, proof)
            assert not verify_consistency(old_size, leaf_hash(b"x"), size, root, proof)
            assert not verify_consistency(old_size, old_root, size, leaf_hash(b"x"), proof)
            for at in range(len(proof)):
                bent = (*proof[:at], leaf_hash(b"x"), *proof[at + 1 :])
                assert not verify_consistency(old_size, old_root, size, root, bent)


def test_a_consistency_proof_of_the_wrong_shape_proves_nothing() -> None:
    leaves = _leaves(7)
    root, old_root, proof = tree_root(leaves), tree_root(leaves[:3]), consistency_proof(leaves, 3)
    assert not verify_consistency(3, old_root, 7, root, proof[:-1])
    assert verify_consistency(3, old_root, 7, root, (*proof, root)) is False
    assert verify_consistency(3, old_root, 7, root, ()) is False
    assert not verify_consistency(0, EMPTY_ROOT, 7, root, proof)
    assert not verify_consistency(8, root, 7, root, proof)
    assert not verify_consistency(7, root, 7, root, proof)
    with pytest.raises(ValueError, match="no tree of 0"):
        consistency_proof(leaves, 0)


def test_repr_is_one_line() -> None:
    tree = MerkleTree()
    tree.append(b"")
    assert repr(tree) == "<MerkleTree size=1 root=6e340b9cffb3>"
