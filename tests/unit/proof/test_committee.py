"""Who sits in a panel: nobody can choose it, no third can carry it, and later anybody can check it."""

from collections import Counter

import pytest

from haif.base import limits
from haif.base.errors import BadProof, Misuse
from haif.base.hashing import digest
from haif.base.ids import PeerId
from haif.identity.keys import Identity
from haif.proof import committee
from haif.proof.committee import Elector

ORCHESTRATOR, OTHER = Identity(b"o" * 32), Identity(b"p" * 32)
RECEIPT = digest("receipt", b"1")


def roster(count: int) -> list[Elector]:
    return [Elector(PeerId(bytes([n]) * 32)) for n in range(1, count + 1)]


def output(number: int) -> bytes:
    return digest("output", number.to_bytes(4, "big"))


def test_a_draw_can_be_checked_by_anybody_and_there_is_one_for_a_receipt() -> None:
    proof, drawn = committee.draw(ORCHESTRATOR, RECEIPT)
    assert (proof, drawn) == committee.draw(ORCHESTRATOR, RECEIPT)
    assert drawn == committee.check_draw(ORCHESTRATOR.peer, RECEIPT, proof)
    for peer, receipt, shown in (
        (OTHER.peer, RECEIPT, proof), (ORCHESTRATOR.peer, digest("receipt", b"2"), proof),
        (ORCHESTRATOR.peer, RECEIPT, bytes([proof[0] ^ 1]) + proof[1:]),
    ):  # fmt: skip
        with pytest.raises(BadProof):
            committee.check_draw(peer, receipt, shown)


def test_the_quorum_is_that_of_byzantine_agreement() -> None:
    assert [3, 4, 5, 5, 6, 7] == [committee.quorum(seats) for seats in (4, 5, 6, 7, 8, 9)]
    for seats in range(4, 65):
        assert 2 * committee.quorum(seats) - seats > (seats - 1) // 3, "two quorums share one who does not lie"


@pytest.mark.parametrize("count", range(6, limits.PANEL_ROSTER_MAX + 1))
def test_x_6_no_third_of_the_validators_can_carry_a_panel_whoever_is_drawn(count: int) -> None:
    seats = committee.seats(roster(count))
    assert committee.liars([1] * count) == count // 3 < committee.quorum(seats)
    assert limits.PANEL_SEATS_MIN <= seats <= max(limits.PANEL_SEATS_MIN, (count + 1) // 2)


def test_where_weights_differ_the_lightest_third_is_the_most_that_can_lie() -> None:
    assert 5 == committee.liars([10] * 6 + [6] * 5)
    weighted = [Elector(each.peer, 10 if n < 6 else 6) for n, each in enumerate(roster(11))]
    assert committee.seats(roster(11)) < committee.seats(weighted)


def test_five_of_six_sit_where_the_sixth_accuses() -> None:
    pool = committee.eligible(roster(6), {roster(6)[2].peer})
    assert {each.peer for each in pool} == {*committee.members(output(1), pool, 5)}


def test_a_seat_is_drawn_in_proportion_to_weight() -> None:
    pool = [Elector(each.peer, weight) for each, weight in zip(roster(4), (1, 2, 3, 4), strict=True)]
    first = Counter(committee.members(output(n), pool, 1)[0][0] for n in range(10_000))
    for place, weight in enumerate((1, 2, 3, 4), start=1):
        expected = 10_000 * weight / 10
        assert abs(first[place] - expected) < 4 * (expected * (1 - weight / 10)) ** 0.5


def test_x_4_many_validators_of_one_owner_have_one_seat() -> None:
    crowd = [Elector(each.peer, owner="crowd" if n >= 5 else "") for n, each in enumerate(roster(30))]
    for number in range(50):
        panel = committee.members(output(number), crowd, 6)
        assert 6 == len(panel)
        assert 1 == sum(member[0] > 5 for member in panel)


def test_neither_the_accuser_nor_the_judged_nor_peers_of_their_owners_sit() -> None:
    accuser, kin, neighbour, *others = roster(9)
    known = [Elector(accuser.peer, owner="ada"), Elector(kin.peer, owner="ada"), Elector(neighbour.peer, owner="bob")]
    pool = committee.eligible([*known, *others], {accuser.peer}, {"bob"})
    assert others == pool


def test_a_roster_that_no_panel_can_be_drawn_of_is_refused_and_says_how_many_are_lacking() -> None:
    committee.check_roster(roster(6))
    with pytest.raises(Misuse, match="that makes 6, and there are 5"):
        committee.check_roster(roster(5))
    with pytest.raises(Misuse, match="that makes 6, and there are 5"):
        committee.check_roster([*roster(4), *(Elector(each.peer, owner="one") for each in roster(9)[4:])])
    with pytest.raises(Misuse, match="twice"):
        committee.check_roster([*roster(6), roster(6)[0]])
    with pytest.raises(Misuse, match="weight"):
        committee.check_roster([Elector(each.peer, 0) for each in roster(6)])
    with pytest.raises(Misuse, match="at most"):
        committee.check_roster(roster(limits.PANEL_ROSTER_MAX + 1))


def test_a_worker_that_tries_receipts_gets_no_friends_into_its_panel() -> None:
    """It lacks the key: three of nine sit as often as the lots say, within three standard deviations (n = 1000)."""
    friends = {each.peer for each in roster(3)}
    receipts = [digest("receipt", n.to_bytes(4, "big")) for n in range(1000)]
    panels = [committee.members(committee.draw(ORCHESTRATOR, receipt)[1], roster(9), 5) for receipt in receipts]
    seated = [len(friends & {*panel}) for panel in panels]
    variance = 5 * (3 / 9) * (6 / 9) * (4 / 8)  # hypergeometric: 5 drawn of 9 with 3 friends
    assert abs(sum(seated) - 1000 * 5 / 3) < 3 * (1000 * variance) ** 0.5


def test_what_is_looked_at_again_is_as_much_as_was_said() -> None:
    looked = sum(committee.is_looked_at(output(n), 50) for n in range(10_000))
    assert abs(looked - 500) < 3 * (10_000 * 0.05 * 0.95) ** 0.5
    assert committee.is_looked_at(output(1), 1000)
    assert not committee.is_looked_at(output(1), 0)
