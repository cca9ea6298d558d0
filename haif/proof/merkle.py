"""A Merkle tree as in RFC 9162 (section 2.1), with BLAKE3: one digest commits to a list, and each place can be shown.

    root of no leaves    = H(empty)
    root of one leaf     = H(leaf, its bytes)
    root of n leaves     = H(node, root of the first k, root of the rest)        k: the largest power of two below n

Leaves and nodes are hashed under contexts of their own, so that no node can be passed off as a leaf, and no odd node is
ever doubled, so that one root belongs to one list (the flaw of CVE-2012-2459). The number of leaves is part of what
must be signed: a root says nothing about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from haif.base.errors import BadProof
from haif.base.hashing import digest
from haif.base.ids import Digest


def leaf(data: bytes) -> Digest:
    """The hash of one leaf."""
    return digest("haif verify v1 leaf", data)


def root(leaves: Sequence[Digest]) -> Digest:
    """The root of a list of leaf hashes."""
    if not leaves:
        return digest("haif verify v1 empty tree")
    level = list(leaves)
    while len(level) > 1:  # the same tree from below: who has no neighbour goes up as it is
        level = [_node(*pair) if len(pair) == 2 else pair[0] for pair in _pairs(level)]
    return level[0]


def inclusion(leaves: Sequence[Digest], place: int) -> list[Digest]:
    """What shows that a leaf is at its place: at most ceil(log2 n) hashes, from the leaf upwards (section 2.1.3.1)."""
    if not 0 <= place < len(leaves):
        raise ValueError(f"there is no leaf {place} in a tree of {len(leaves)}")
    path: list[Digest] = []
    level = list(leaves)
    while len(level) > 1:
        neighbour = place ^ 1
        if neighbour < len(level):
            path.append(level[neighbour])
        level = [_node(*pair) if len(pair) == 2 else pair[0] for pair in _pairs(level)]
        place //= 2
    return path


def check_inclusion(found: Digest, place: int, size: int, path: Sequence[Digest], wanted: Digest) -> None:
    """Return if a leaf hash is at its place in the tree of this size and root (section 2.1.3.2). Raises `BadProof`."""
    if not 0 <= place < size:
        raise BadProof(f"a tree of {size} leaves has no leaf {place}")
    steps = iter(path)
    while size > 1:
        if place ^ 1 < size:
            neighbour = next(steps, None)
            if neighbour is None:
                raise BadProof("the path to the root is too short")
            found = _node(neighbour, found) if place & 1 else _node(found, neighbour)
        place //= 2
        size = (size + 1) // 2
    if next(steps, None) is not None:
        raise BadProof("the path to the root is too long")
    if found != wanted:
        raise BadProof("the leaf is not at this place of the tree that was signed")


def _pairs(level: Sequence[Digest]) -> list[Sequence[Digest]]:
    return [level[start : start + 2] for start in range(0, len(level), 2)]


def _node(left: Digest, right: Digest) -> Digest:
    return digest("haif verify v1 node", left, right)
