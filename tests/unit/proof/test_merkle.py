"""One root belongs to one list, and a leaf to one place in it."""

from hashlib import sha256
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.errors import BadProof
from haif.base.hashing import digest
from haif.base.ids import Digest
from haif.proof import merkle


def leaves(count: int) -> list[Digest]:
    return [merkle.leaf(number.to_bytes(4, "big")) for number in range(count)]


def as_in_the_rfc(these: list[Digest]) -> Digest:
    """Section 2.1.1, as it is written there: recursion on the largest power of two below n."""
    if not these:
        return digest("haif verify v1 empty tree")
    if len(these) == 1:
        return these[0]
    k = 1 << (len(these) - 1).bit_length() - 1
    return digest("haif verify v1 node", as_in_the_rfc(these[:k]), as_in_the_rfc(these[k:]))


@pytest.mark.parametrize("count", [*range(70), 128, 255, 256, 257, 513])
def test_the_tree_is_the_rfcs(count: int) -> None:
    assert as_in_the_rfc(leaves(count)) == merkle.root(leaves(count))


CERTIFICATE_TRANSPARENCY = (  # the leaves and roots by which implementations of RFC 9162 and 6962 are compared
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"],
    ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
     "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
     "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
     "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
     "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
     "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
     "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
     "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"],
)  # fmt: skip


def test_with_their_hash_the_roots_are_those_of_certificate_transparency(monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = {"haif verify v1 leaf": b"\0", "haif verify v1 node": b"\1"}
    monkeypatch.setattr(
        merkle, "digest", lambda context, *parts: Digest(sha256(prefixes[context] + b"".join(parts)).digest())
    )
    data, roots = CERTIFICATE_TRANSPARENCY
    these = [merkle.leaf(bytes.fromhex(text)) for text in data]
    assert roots == [merkle.root(these[:count]).hex() for count in range(1, 9)]


@pytest.mark.parametrize("count", [*range(1, 70), 513])
def test_every_leaf_is_shown_at_its_place_and_at_no_other(count: int) -> None:
    these = leaves(count)
    root = merkle.root(these)
    for place in Random(count).sample(range(count), min(count, 40)):
        path = merkle.inclusion(these, place)
        assert len(path) <= (count - 1).bit_length()
        merkle.check_inclusion(these[place], place, count, path, root)
        for other in {place ^ 1, place + 1, count - 1 - place} - {place}:
            with pytest.raises(BadProof):
                merkle.check_inclusion(these[place], other, count, path, root)


@given(count=st.integers(1, 64), data=st.data())
def test_a_path_with_anything_changed_is_refused(count: int, data: st.DataObject) -> None:
    these = leaves(count)
    place = data.draw(st.integers(0, count - 1))
    path, root = merkle.inclusion(these, place), merkle.root(these)
    stranger = merkle.leaf(b"stranger")
    wrong = [(stranger, path, root), (these[place], [*path, stranger], root), (these[place], path, stranger)]
    wrong += [(these[place], path[:-1], root)] if path else []
    wrong += [(these[place], [stranger, *path[1:]], root)] if path else []
    for found, steps, wanted in wrong:
        with pytest.raises(BadProof):
            merkle.check_inclusion(found, place, count, steps, wanted)


def test_a_node_is_no_leaf_and_an_odd_node_is_not_doubled() -> None:
    a, b, c = leaves(3)
    node = merkle.root([a, b])
    assert merkle.root([a, b, c, c]) != merkle.root([a, b, c])
    assert merkle.leaf(a + b) != node
    with pytest.raises(BadProof):
        merkle.check_inclusion(node, 0, 1, [], merkle.root([a, b, c]))


def test_a_tree_of_another_size_is_refused() -> None:
    these = leaves(5)
    path = merkle.inclusion(these, 2)
    for size in (1, 2, 3, 4, 9, 17):
        with pytest.raises(BadProof):
            merkle.check_inclusion(these[2], 2, size, path, merkle.root(these))


@pytest.mark.parametrize("place", [-1, 3])
def test_a_place_that_is_not_in_the_list_cannot_be_shown(place: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion(leaves(3), place)
    with pytest.raises(BadProof, match="no leaf"):
        merkle.check_inclusion(leaves(1)[0], place, 3, [], merkle.root(leaves(3)))
