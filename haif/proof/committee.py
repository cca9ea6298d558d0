"""Who judges what one validator said: a panel drawn by lot, too large for a lying third of the validators to carry.

    roster      the validators an orchestrator knows, each with a weight and an owner
    draw        (proof, output) = VRF(orchestrator's key, receipt)      one for a receipt, and only this key can make it
    members     seat by seat, each with a chance in proportion to its weight; an owner has one seat at most, and neither
                the accuser, nor the judged, nor any other peer of their owners has one
    seats       five, or more, until ⌊2n/3⌋ + 1 of n are more than there are validators in the lightest third
    second      where the first panel comes to nothing: everybody who may sit

Nobody can try until a panel suits: the worker and the accuser lack the key, the orchestrator has one output for what
the worker signed, and nothing that the accuser says goes in. ⌊2n/3⌋ + 1 of n is the quorum of Byzantine agreement
(Castro, Liskov 1999): two such quorums share a member that does not lie, if fewer than a third do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from haif.base import limits
from haif.base.errors import Misuse
from haif.base.hashing import digest
from haif.base.ids import Digest, PeerId
from haif.identity import vrf
from haif.identity.keys import Identity


@dataclass(frozen=True, slots=True)
class Elector:
    """A validator that may be drawn. Without an `owner` that is known, it is its own."""

    peer: PeerId
    weight: int = 1
    owner: str = ""


Roster = Sequence[Elector]


def quorum(seats: int) -> int:
    """How many of so many must say the same."""
    return 2 * seats // 3 + 1


def liars(weights: Iterable[int]) -> int:
    """The most validators that a third of all weight can be: the lightest."""
    ordered = sorted(weights)
    left, count = sum(ordered), 0
    spent = 0
    for weight in ordered:
        spent += weight
        if 3 * spent > left:
            break
        count += 1
    return count


def seats(roster: Roster) -> int:
    """The size of a panel that the lightest third of a roster cannot carry, whoever of it is drawn."""
    most, size = liars(each.weight for each in roster), limits.PANEL_SEATS_MIN
    while quorum(size) <= most:
        size += 1
    return size


def check_roster(roster: Roster) -> None:
    """Return if panels can be drawn of it, whoever accuses whom. Raises `Misuse`, which says how many are lacking."""
    if len(roster) > limits.PANEL_ROSTER_MAX:
        raise Misuse(f"panels are drawn of at most {limits.PANEL_ROSTER_MAX} validators, not {len(roster)}")
    if len({each.peer for each in roster}) < len(roster):
        raise Misuse("a validator is named twice")
    if not all(1 <= each.weight <= limits.PANEL_WEIGHT_MAX for each in roster):
        raise Misuse(f"the weight of a validator is 1 to {limits.PANEL_WEIGHT_MAX}")
    owners, needed = len({_owner(each) for each in roster}), seats(roster) + 1
    if owners < needed:
        raise Misuse(
            f"a panel takes {needed - 1} validators of different owners, and the accuser is none of them: that makes "
            f"{needed}, and there are {owners}"
        )


def draw(orchestrator: Identity, receipt: Digest) -> tuple[bytes, bytes]:
    """The proof (80 bytes) of the draw for a receipt, and its output. Takes about a millisecond."""
    return vrf.prove(orchestrator, _input(receipt))


def check_draw(orchestrator: PeerId, receipt: Digest, proof: bytes) -> bytes:
    """The output that a proof shows. Raises `BadProof`."""
    return vrf.verify(orchestrator, _input(receipt), proof)


def eligible(roster: Roster, apart: Collection[PeerId], owners: Collection[str] = ()) -> list[Elector]:
    """Who may sit where these peers have a part in it, or these owners."""
    barred = {*owners} | {each.owner for each in roster if each.peer in apart}
    return [each for each in roster if each.peer not in apart and (not each.owner or each.owner not in barred)]


def members(output: bytes, pool: Roster, count: int) -> tuple[PeerId, ...]:
    """So many of the pool, as the output draws them; fewer where there are not so many owners."""
    left, drawn = sorted(pool, key=lambda each: each.peer), list[PeerId]()
    while left and len(drawn) < count:
        lot = int.from_bytes(digest("haif v1 panel seat", output, bytes([len(drawn)]))[:16], "big")
        found = _at(left, lot * sum(each.weight for each in left) >> 128)
        drawn.append(found.peer)
        left = [each for each in left if _owner(each) != _owner(found)]
    return tuple(drawn)


def is_looked_at(output: bytes, per_mille: int) -> bool:
    """Whether a finding that nobody doubts is looked at again, where each is with a chance of `per_mille` in 1000."""
    lot = int.from_bytes(digest("haif v1 panel second look", output)[:8], "big")
    return lot * 1000 < per_mille << 64


def _at(ordered: Roster, place: int) -> Elector:
    for each in ordered:
        place -= each.weight
        if place < 0:
            return each
    raise AssertionError("a place is less than the sum of the weights")


def _owner(elector: Elector) -> str | PeerId:
    return elector.owner or elector.peer


def _input(receipt: Digest) -> bytes:
    return b"haif v1 panel\0" + receipt
