"""The routing table: who enters, who stays, who is passed on."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact, node_id
from haif.dht.diversity import Scope
from haif.dht.table import ID_BITS, RoutingTable

OWN = PeerId(b"o" * 32)
NOW = Instant(1000.0)
SALT = Random(7).randbytes(16)


def prefix(peer: PeerId) -> int:
    return ID_BITS - (node_id(OWN) ^ node_id(peer)).bit_length()


def far_contacts(count: int) -> list[Contact]:
    """Contacts that all belong into bucket 0."""
    random, found = Random(1), list[Contact]()
    while len(found) < count:
        peer = PeerId(random.randbytes(32))
        if prefix(peer) == 0:
            found.append(Contact(peer, (f"10.0.{len(found) // 200}.{len(found) % 200 + 1}", 4000)))
    return found


def others(count: int) -> list[Contact]:
    """Contacts of all buckets but that."""
    random, found = Random(2), list[Contact]()
    while len(found) < count:
        peer = PeerId(random.randbytes(32))
        if prefix(peer) > 0:
            found.append(Contact(peer, (f"10.1.0.{len(found) + 1}", 4000)))
    return found


def later(seconds: float) -> Instant:
    return Instant(NOW + seconds)


def full_table() -> tuple[RoutingTable, list[Contact]]:
    table, contacts = RoutingTable(OWN, exempt=Scope.PRIVATE), far_contacts(limits.DHT_K + 12)
    for contact in contacts:
        table.heard(contact, NOW)
    return table, contacts


def branch(peer: PeerId) -> int:
    """The three bits of the id after the first."""
    return node_id(peer) >> 252 & 7


def evenly(count: int) -> list[Contact]:
    """Contacts of bucket 0 in as many wide networks, the branches taking turns: nobody has too many."""
    by_branch: dict[int, list[PeerId]] = {}
    for contact in far_contacts(2 * count):
        by_branch.setdefault(branch(contact.peer), []).append(contact.peer)
    turns = [peers[turn] for turn in range(count // 8) for peers in by_branch.values()]
    return [Contact(peer, (f"{20 + n % 200}.{n // 200}.0.1", 4000)) for n, peer in enumerate(turns)]


def test_half_of_a_full_bucket_belongs_to_whoever_came_first() -> None:
    table, contacts = RoutingTable(OWN, salt=SALT), evenly(400)
    for contact in contacts:
        table.heard(contact, NOW)
    assert len(table) == limits.DHT_K
    assert sum(contact.peer in table for contact in contacts[: limits.DHT_K // 2]) >= limits.DHT_K // 2 - 2


def test_whoever_is_older_than_all_others_gets_its_share_of_the_other_half_and_no_more() -> None:
    shares = []
    for number in range(20):
        table, contacts = RoutingTable(OWN, salt=Random(number).randbytes(16)), evenly(400)
        for contact in contacts:
            table.heard(contact, NOW)
        shares.append(sum(contact.peer in table for contact in contacts[200:]))  # the younger half of all
    assert 3 < sum(shares) / len(shares) < 7


def test_coming_again_and_again_gives_nobody_a_place() -> None:
    table, contacts = RoutingTable(OWN, salt=SALT), evenly(400)
    for contact in contacts * 5:
        table.heard(contact, NOW)
    before = table.closest(0, 400)
    for contact in contacts * 5:
        table.heard(contact, NOW)
    assert set(table.closest(0, 400)) == set(before)


def test_a_stranger_is_wanted_in_a_full_bucket_only_if_its_lot_is_lower() -> None:
    table, contacts = RoutingTable(OWN, salt=SALT), evenly(400)
    for contact in contacts[:200]:
        table.heard(contact, NOW)
    wanted = [contact for contact in contacts[200:] if table.wants(contact)]
    assert 0 < len(wanted) < 50
    for contact in wanted[:1]:
        table.heard(contact, NOW)
        assert contact.peer in table


def test_within_the_distance_given_everybody_is_kept() -> None:
    table, contacts = RoutingTable(OWN, salt=SALT), evenly(400)
    table.widen(1 << (ID_BITS - 1))
    for contact in contacts:
        table.heard(contact, NOW)
    assert len(table) == limits.DHT_K  # bucket 0 begins at that distance
    table.widen((1 << (ID_BITS - 1)) + 1)
    for contact in contacts:
        table.heard(contact, NOW)
    assert all(contact.peer in table for contact in contacts)


def test_ids_ground_against_one_key_do_not_fill_a_bucket_however_early_they_came() -> None:
    contacts = far_contacts(400)
    crowd = [contact for contact in contacts if branch(contact.peer) == 5][:30]
    table = RoutingTable(OWN, exempt=Scope.PRIVATE)
    for contact in crowd:
        table.heard(contact, NOW)
    assert sum(contact.peer in table for contact in crowd) == limits.DHT_K
    for contact in contacts:
        if branch(contact.peer) != 5:
            table.heard(contact, NOW)
    assert sum(contact.peer in table for contact in crowd) <= 3
    assert all(contact.peer in table for contact in crowd[:2])  # the oldest
    assert len(table) == limits.DHT_K


def test_after_two_failures_in_a_row_the_latest_waiting_contact_takes_over() -> None:
    table, contacts = full_table()
    table.failed(contacts[0])
    table.heard(contacts[0], NOW)
    table.failed(contacts[0])
    assert contacts[0].peer in table
    table.failed(contacts[0])
    assert contacts[0].peer not in table
    assert contacts[-1].peer in table
    assert len(table) == limits.DHT_K


def test_a_newcomer_to_a_full_bucket_has_the_longest_silent_contact_pinged() -> None:
    table, contacts = full_table()
    silent, *others = [contact for contact in contacts if contact.peer in table]
    newcomer = next(contact for contact in contacts if contact.peer not in table and not table.wants(contact))
    assert table.heard(newcomer, NOW) is None  # everybody was heard a moment ago
    for contact in others:
        table.heard(contact, later(301))
    assert table.heard(newcomer, later(302)) == silent


def test_a_peer_keeps_its_address_until_that_has_failed() -> None:
    table, contact = RoutingTable(OWN, exempt=Scope.PRIVATE), far_contacts(1)[0]
    moved = Contact(contact.peer, ("10.66.0.1", 1))
    table.heard(contact, NOW)
    table.heard(moved, NOW)
    assert table.closest(0, 5) == [contact]
    table.failed(contact)
    table.heard(moved, NOW)
    assert table.closest(0, 5) == [moved]


def test_a_contact_is_passed_on_only_while_fresh_and_answering() -> None:
    table, contact = RoutingTable(OWN, exempt=Scope.PRIVATE), far_contacts(1)[0]
    table.heard(contact, NOW)
    assert table.closest(0, 5, since=NOW) == [contact]
    assert table.closest(0, 5, since=later(1)) == []
    table.failed(contact)
    assert table.closest(0, 5, since=NOW) == []
    assert table.closest(0, 5) == [contact]


def test_we_never_enter_our_own_table() -> None:
    table = RoutingTable(OWN, exempt=Scope.PRIVATE)
    table.heard(Contact(OWN, ("10.0.0.1", 1)), NOW)
    assert len(table) == 0
    assert not table.wants(Contact(OWN, ("10.0.0.1", 1)))


def test_a_stranger_is_wanted_only_where_there_is_room() -> None:
    table, contacts = full_table()
    assert not table.wants(contacts[0])  # known
    assert not table.wants(contacts[-1])  # full
    near = next(peer for peer in (PeerId(Random(n).randbytes(32)) for n in range(100)) if prefix(peer) == 1)
    assert table.wants(Contact(near, ("10.0.0.1", 1)))


def test_an_idle_bucket_is_due_for_a_refresh_until_a_lookup_goes_into_it() -> None:
    table, contacts = full_table()
    assert table.idle(later(599), 600) == []
    assert table.idle(later(600), 600) == [0]
    table.touch(node_id(contacts[0].peer), later(600))
    assert table.idle(later(601), 600) == []


def test_a_bucket_of_our_own_neighbourhood_is_left_to_the_lookup_of_our_own_id() -> None:
    table, _ = full_table()
    near = next(peer for peer in (PeerId(Random(n).randbytes(32)) for n in range(100)) if prefix(peer) == 1)
    table.heard(Contact(near, ("10.9.0.1", 1)), NOW)
    assert table.idle(later(600), 600) == [0]
    few = RoutingTable(OWN, exempt=Scope.PRIVATE)
    few.heard(Contact(near, ("10.9.0.1", 1)), NOW)
    assert few.idle(later(600), 600) == []


def test_the_closest_are_found_wherever_the_target_lies() -> None:
    random = Random(3)
    table = RoutingTable(OWN, exempt=Scope.PRIVATE)
    for number in range(2000):
        table.heard(Contact(PeerId(random.randbytes(32)), (f"10.0.{number // 250}.{number % 250}", 1)), NOW)
    known = table.closest(0, len(table))
    assert len(known) == len(table) > 6 * limits.DHT_K
    for bits in (*range(16), 255):
        for _ in range(20):
            target = node_id(OWN) ^ random.randrange(1 << (256 - bits))
            assert table.closest(target, 25) == sorted(known, key=lambda c: node_id(c.peer) ^ target)[:25]


@given(st.integers(0, 255), st.binary(min_size=32, max_size=32))
def test_a_random_target_lies_in_its_bucket(bucket: int, noise: bytes) -> None:
    target = int.from_bytes(
        RoutingTable(OWN, exempt=Scope.PRIVATE).target_in(bucket, lambda count: noise[:count]), "big"
    )
    assert ID_BITS - (node_id(OWN) ^ target).bit_length() == bucket


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["heard", "failed"])), max_size=500), st.integers(0))
def test_whatever_happens_the_bounds_hold_and_closest_is_true(events: list[tuple[int, str]], seed: int) -> None:
    random, table = Random(seed), RoutingTable(OWN, exempt=Scope.PRIVATE)
    contacts = [Contact(PeerId(random.randbytes(32)), ("10.0.0.1", n + 1)) for n in range(401)]
    for step, (number, event) in enumerate(events):
        if event == "heard":
            table.heard(contacts[number], later(step))
        else:
            table.failed(contacts[number])
    known = [contact for contact in contacts if contact.peer in table]
    assert len(known) == len(table)
    buckets = [prefix(contact.peer) for contact in known]
    assert all(buckets.count(bucket) <= limits.DHT_K for bucket in buckets)
    target = random.getrandbits(256)
    assert table.closest(target, 7) == sorted(known, key=lambda contact: node_id(contact.peer) ^ target)[:7]


def test_from_each_bucket_come_those_that_entered_first() -> None:
    table, contacts = RoutingTable(OWN, exempt=Scope.PRIVATE), far_contacts(5)
    near = [Contact(PeerId(Random(n).randbytes(32)), ("10.1.0.1", n + 1)) for n in range(200)]
    near = [contact for contact in near if prefix(contact.peer) == 1][:4]
    for contact in (*contacts, *near):
        table.heard(contact, NOW)
    table.heard(contacts[0], later(5))
    assert table.from_each_bucket(3) == [*contacts[:3], *near[:3]]


def test_where_half_a_bucket_is_filled_one_stranger_in_eight_is_pinged_unless_few_are_known_or_it_is_near() -> None:
    table, contacts = RoutingTable(OWN, exempt=Scope.PRIVATE), far_contacts(100)
    for contact in contacts[: limits.DHT_K // 2]:
        table.heard(contact, NOW)
    strangers = [contact for contact in contacts[limits.DHT_K // 2 :] if table.wants(contact)][: limits.DHT_DRAWN_OF]
    assert all(table.invites(contact) for contact in strangers), "few are known"
    for contact in others(200):
        table.heard(contact, NOW)
    assert [table.invites(contact) for contact in strangers].count(True) == 1
    table.widen(1 << 256)
    assert all(table.invites(contact) for contact in strangers), "near us everybody is wanted"


def test_of_strangers_who_could_only_take_anothers_place_one_in_eight_is_pinged() -> None:
    table, contacts = RoutingTable(OWN, exempt=Scope.PRIVATE, salt=b"s" * 32), far_contacts(600)
    first, *others = contacts
    assert table.invites(first)  # there is room
    for contact in contacts[: limits.DHT_K + 10]:
        table.heard(contact, NOW)
    winners = [contact for contact in others[limits.DHT_K + 10 :] if table.wants(contact)]
    assert len(winners) > 8
    assert [table.invites(contact) for contact in winners].count(True) == len(winners) // limits.DHT_DRAWN_OF
