"""The Merkle tree of the audit log (RFC 6962, section 2.1), grown one leaf at a time.

White. A hash chain shows that no record was changed; it can not show that the newest ones
were cut off. A tree head kept elsewhere can, and it lets two parties compare logs with
O(log n) hashes: :func:`inclusion_proof` says that a record is in a log,
:func:`consistency_proof` that a longer log has a shorter one as its beginning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

from attrs import define, field

__all__ = [
    "EMPTY_ROOT",
    "MerkleTree",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "tree_root",
    "verify_consistency",
    "verify_inclusion",
]

#: The hash of the empty tree (RFC 6962, 2.1).
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf; its prefix keeps leaves and nodes apart (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@final
@define(kw_only=True, repr=False)
class MerkleTree:
    """An append-only tree of which only the perfect subtrees' roots are kept: O(log n) memory.

    :param size: number of leaves.
    :param frontier: roots of the perfect subtrees, the largest first, one for each bit that is
        set in *size*. Both come from another tree's properties, to go on where it stood.
    """

    _size: int = field(default=0)
    _frontier: list[bytes] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        if self._size < 0:
            raise ValueError(f"size must not be negative, got {self._size}")
        if len(self._frontier) != self._size.bit_count():
            raise ValueError(f"{len(self._frontier)} subtrees do not make a tree of {self._size}")
        if any(len(root) != 32 for root in self._frontier):
            raise ValueError("each subtree root must be a SHA-256 digest of 32 bytes")

    def append(self, data: bytes) -> None:
        """Add one leaf: two hashes in the mean, log2(size) + 1 at most."""
        node = leaf_hash(data)
        size = self._size
        while size & 1:  # each perfect subtree of the same height merges with the new one
            node = node_hash(self._frontier.pop(), node)
            size >>= 1
        self._frontier.append(node)
        self._size += 1

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    @property
    def frontier(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, the largest first."""
        return tuple(self._frontier)

    def root(self) -> bytes:
        """The tree head: the subtrees folded from the smallest to the largest."""
        if not self._frontier:
            return EMPTY_ROOT
        node = self._frontier[-1]
        for left in reversed(self._frontier[:-1]):
            node = node_hash(left, node)
        return node

    def __repr__(self) -> str:
        return f"<MerkleTree size={self._size} root={self.root().hex()[:12]}>"


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The head of a tree with these leaf *hashes*."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = _split(len(leaves))
    return node_hash(tree_root(leaves[:split]), tree_root(leaves[split:]))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of leaf *index* (RFC 6962, 2.1.1), from the leaf to the root.

    :param leaves: the leaf hashes of the whole tree.
    :raises ValueError: no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise ValueError(f"leaf {index} is not in a tree of {len(leaves)}")
    if len(leaves) == 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*inclusion_proof(leaves[:split], index), tree_root(leaves[split:]))
    return (*inclusion_proof(leaves[split:], index - split), tree_root(leaves[:split]))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether *proof* shows the leaf hash *leaf* at *index* of the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, at, last = leaf, index, size - 1
    for sibling in proof:
        if last == 0:
            return False  # longer than any path of a tree of this size
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and node == root


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """What shows that the first *old_size* leaves are still there (RFC 6962, 2.1.2).

    :param leaves: the leaf hashes of the whole newer tree.
    :raises ValueError: *old_size* is not within 1 and the size of the tree.
    """
    if not 1 <= old_size <= len(leaves):
        raise ValueError(f"no tree of {old_size} within a tree of {len(leaves)}")
    return _subproof(leaves, old_size, whole=True)


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether *proof* shows the older tree to be the newer one's beginning (RFC 9162, 2.1.4.2)."""
    if old_size == size:
        return not proof and old_root == root
    if not 1 <= old_size < size or not proof:
        return False
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)  # a perfect older tree is itself the first node
    at, last = old_size - 1, size - 1
    while at & 1:
        at >>= 1
        last >>= 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old_node = node_hash(sibling, old_node)
            new_node = node_hash(sibling, new_node)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            new_node = node_hash(new_node, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and old_node == old_root and new_node == root


def _subproof(leaves: Sequence[bytes], old_size: int, *, whole: bool) -> tuple[bytes, ...]:
    if old_size == len(leaves):
        return () if whole else (tree_root(leaves),)
    split = _split(len(leaves))
    if old_size <= split:
        left = _subproof(leaves[:split], old_size, whole=whole)
        return (*left, tree_root(leaves[split:]))
    right = _subproof(leaves[split:], old_size - split, whole=False)
    return (*right, tree_root(leaves[:split]))


def _split(size: int) -> int:
    """The largest power of two that is smaller than *size* (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)
