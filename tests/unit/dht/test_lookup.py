"""The iterative lookup: how wide it asks, when it ends, what liars can do to it."""

from random import Random

import pytest

from haif.base import limits
from haif.base.errors import Malformed
from haif.base.ids import Digest, PeerId
from haif.dht.contact import Contact, node_id, pack_contacts
from haif.dht.lookup import Ask, Extent, Lookup, Pace
from haif.dht.messages import Command, Reply
from haif.dht.witnesses import Witnesses

TARGET = Digest(bytes(32))
OWN = PeerId(b"o" * 32)


def contacts(count: int, seed: int = 1) -> list[Contact]:
    """Nearest first."""
    random = Random(seed)
    peers = sorted((PeerId(random.randbytes(32)) for _ in range(count)), key=node_id)
    return [Contact(peer, (f"{20 + n // 200}.{n % 200}.0.1", n + 1)) for n, peer in enumerate(peers)]


def reply(named: list[Contact]) -> Reply:
    return Reply(bytes(7), b"t" * 16, contacts=pack_contacts(named, 1200))


def who(ask: Ask) -> Contact:
    assert ask.peer is not None
    return Contact(ask.peer, ask.address)


def test_it_asks_the_closest_first_and_ten_at_once() -> None:
    known = contacts(30)
    asks = Lookup(TARGET, known[::-1], OWN).asks()
    assert [who(ask) for ask in asks] == known[: limits.DHT_ALPHA]
    assert {ask.command for ask in asks} == {Command.FIND}


def test_it_ends_only_when_all_of_the_k_closest_have_answered() -> None:
    known = contacts(25)
    lookup = Lookup(TARGET, known, OWN)
    answered = 0
    while not lookup.done:
        for ask in lookup.asks():
            lookup.answered(who(ask), reply([]))
            answered += 1
    assert answered == limits.DHT_K
    assert [answer.contact for answer in lookup.nearest()] == known[: limits.DHT_K]


def test_a_contact_that_fails_is_replaced_by_the_next_closest() -> None:
    known = contacts(22)
    lookup = Lookup(TARGET, known, OWN)
    while asks := lookup.asks():
        for ask in asks:
            if who(ask) in known[:2]:
                lookup.failed(who(ask))
            else:
                lookup.answered(who(ask), reply([]))
    assert lookup.done
    assert [answer.contact for answer in lookup.nearest()] == known[2:]


def test_a_slow_contact_frees_its_slot_and_may_still_answer() -> None:
    known = contacts(11)
    lookup = Lookup(TARGET, known, OWN)
    first = lookup.asks()
    assert lookup.asks() == []
    lookup.slow(who(first[0]))
    assert [who(ask) for ask in lookup.asks()] == known[10:]
    for ask in first:
        lookup.answered(who(ask), reply([]))
    assert not lookup.done
    lookup.answered(known[10], reply([]))
    assert lookup.done


def test_a_prompt_lookup_passes_over_who_is_past_its_timeout_once_k_have_answered() -> None:
    known = contacts(limits.DHT_K + 1)
    for pace in (Pace.STEADY, Pace.PROMPT):
        lookup = Lookup(TARGET, known, OWN, pace=pace)
        while asks := lookup.asks():
            for ask in asks:
                if who(ask) == known[3]:
                    lookup.slow(known[3])
                else:
                    lookup.answered(who(ask), reply([]))
        assert lookup.done is (pace is Pace.PROMPT)
        lookup.answered(known[3], reply([]))
        assert lookup.done
        assert [answer.contact for answer in lookup.nearest()] == known[: limits.DHT_K]


def test_a_prompt_lookup_still_waits_for_the_slow_where_fewer_than_k_answer() -> None:
    known = contacts(5)
    lookup = Lookup(TARGET, known, OWN, pace=Pace.PROMPT)
    for ask in lookup.asks()[1:]:
        lookup.answered(who(ask), reply([]))
    lookup.slow(known[0])
    assert lookup.asks() == []
    assert not lookup.done
    lookup.failed(known[0])
    assert lookup.done


def test_once_three_have_answered_all_of_the_closest_set_are_asked_at_once() -> None:
    lookup = Lookup(TARGET, contacts(40), OWN)
    first = lookup.asks()
    assert len(first) == limits.DHT_ALPHA
    for ask in first[: limits.DHT_GUIDES]:
        lookup.answered(who(ask), reply([]))
    assert len(lookup.asks()) == limits.DHT_K - limits.DHT_ALPHA


def test_where_nobody_waits_few_are_asked_at_once() -> None:
    lookup = Lookup(TARGET, contacts(40), OWN, pace=Pace.PATIENT)
    asked = 0
    while asks := lookup.asks():
        assert len(asks) <= limits.DHT_ALPHA_PATIENT
        lookup.answered(who(asks[0]), reply([]))
        for ask in asks[1:]:
            lookup.answered(who(ask), reply([]))
        asked += len(asks)
    assert lookup.done
    assert asked == limits.DHT_K


def test_a_lookup_that_wants_only_some_ends_when_they_have_answered() -> None:
    lookup = Lookup(TARGET, contacts(40), OWN, enough=4)
    asks = lookup.asks()
    for ask in asks[:3]:
        lookup.answered(who(ask), reply([]))
    assert not lookup.done
    lookup.answered(who(asks[3]), reply([]))
    assert lookup.done
    assert lookup.asks() == []


def test_who_has_just_answered_another_lookup_is_not_asked_again() -> None:
    known = contacts(limits.DHT_K + 5)
    before = Lookup(TARGET, known[:10], OWN)
    for ask in before.asks():
        before.answered(who(ask), reply([]))
    everywhere = Extent(region=1 << 255, thorough=True)
    lookup = Lookup(TARGET, known[5:], OWN, everywhere, salt=bytes(16))
    lookup.recall(before.nearest())
    asked = set()
    while asks := lookup.asks():
        for ask in asks:
            asked.add(who(ask))
            lookup.answered(who(ask), reply([]))
    assert lookup.done
    assert asked.isdisjoint(known[:10])
    assert [answer.contact for answer in lookup.nearest()] == known[: limits.DHT_K]


def test_who_answers_without_having_been_asked_here_takes_part() -> None:
    near, far = contacts(2)
    lookup = Lookup(TARGET, [], OWN)
    lookup.volunteered(far, reply([near]))
    assert [who(ask) for ask in lookup.asks()] == [near]
    lookup.answered(near, reply([]))
    lookup.volunteered(near, reply([]))
    assert [answer.contact for answer in lookup.nearest()] == [near, far]


def test_a_closer_peer_named_in_an_answer_is_asked_next() -> None:
    near, *far = contacts(2)
    lookup = Lookup(TARGET, far, OWN)
    [ask] = lookup.asks()
    lookup.answered(who(ask), reply([near, Contact(OWN, ("10.0.0.9", 9))]))
    assert [who(ask) for ask in lookup.asks()] == [near]


def test_contacts_that_do_not_parse_make_their_sender_fail() -> None:
    [known] = contacts(1)
    lookup = Lookup(TARGET, [known], OWN)
    lookup.asks()
    with pytest.raises(Malformed):
        lookup.answered(known, Reply(bytes(7), b"t" * 16, contacts=b"no contacts"))
    assert lookup.done
    assert lookup.nearest() == []


def test_liars_who_name_ever_closer_strangers_cost_a_bounded_number_of_queries() -> None:
    random, [start] = Random(3), contacts(1)
    lookup, invented = Lookup(TARGET, [start], OWN), 0
    while asks := lookup.asks():
        for ask in asks:
            closer = [Contact(PeerId(random.randbytes(32)), ("10.0.0.1", n + 1)) for n in range(limits.DHT_K)]
            invented += len(closer)
            lookup.answered(who(ask), reply(sorted(closer, key=lambda c: node_id(c.peer))))
    assert lookup.done
    assert lookup.queries <= limits.LOOKUP_QUERIES_MAX


def test_the_dead_cannot_hold_it_beyond_its_queries() -> None:
    lookup = Lookup(TARGET, contacts(limits.LOOKUP_QUERIES_MAX + 50), OWN)
    while asks := lookup.asks():
        for ask in asks:
            lookup.failed(who(ask))
    assert lookup.queries == limits.LOOKUP_QUERIES_MAX
    assert lookup.done


def test_nobody_known_means_nothing_to_ask() -> None:
    lookup = Lookup(TARGET, [], OWN)
    assert lookup.asks() == []
    assert lookup.done


def finish(lookup: Lookup, knows: dict[Contact, list[Contact]] | None = None) -> list[Contact]:
    """Answer everything; each contact names whom it knows. Returns who was asked."""
    asked: list[Contact] = []
    while asks := lookup.asks():
        for ask in asks:
            asked.append(who(ask))
            lookup.answered(who(ask), reply((knows or {}).get(who(ask), [])))
    return asked


def distance(contact: Contact) -> int:
    return node_id(contact.peer)


def test_one_contact_of_a_network_counts_among_the_k_closest() -> None:
    known = contacts(60)
    crowd = [Contact(contact.peer, ("66.6.6.6", n + 1)) for n, contact in enumerate(known[:30])]
    lookup = Lookup(TARGET, crowd + known[30:], OWN)
    assert set(finish(lookup)) == {crowd[0], *known[30:49]}
    assert lookup.done


def test_exempt_contacts_are_not_counted_by_network() -> None:
    known = [Contact(contact.peer, ("127.0.0.1", n + 1)) for n, contact in enumerate(contacts(30))]
    assert set(finish(Lookup(TARGET, known, OWN))) == set(known[: limits.DHT_K])


def test_a_thorough_lookup_asks_everybody_in_the_region_and_two_of_each_network() -> None:
    known = contacts(60)
    known[10:40] = [Contact(contact.peer, ("66.6.6.6", n + 1)) for n, contact in enumerate(known[10:40])]
    region = distance(known[50])
    lookup = Lookup(TARGET, known, OWN, Extent(region=region, thorough=True))
    asked = set(finish(lookup))
    assert asked & set(known[:50]) == {*known[:12], *known[40:50]}
    assert 1 <= len(asked & set(known[50:])) <= 2 * limits.DHT_SHELL_CONTACTS  # witnesses around the region
    assert len(lookup.reached()) == 22
    assert len(lookup.nearest()) == limits.DHT_K


def test_a_lookup_that_is_not_thorough_ignores_the_region() -> None:
    known = contacts(60)
    assert len(finish(Lookup(TARGET, known, OWN, Extent(region=distance(known[50]))))) == limits.DHT_K


def test_a_neighbourhood_that_is_too_dense_is_suspected_and_a_thorough_lookup_then_looks_around() -> None:
    known = contacts(250)
    factor = limits.DHT_REGION_FACTOR * limits.DHT_DENSITY_FACTOR
    edge = int(distance(known[19]) * factor)  # of the region in which so many nodes would be just dense enough
    calm = Lookup(TARGET, known, OWN, Extent(region=edge))
    assert len(finish(calm)) == limits.DHT_K
    assert not calm.suspected
    plain = Lookup(TARGET, known, OWN, Extent(region=edge + 1000 * (edge >> 16)))
    assert len(finish(plain)) == limits.DHT_K
    assert plain.suspected
    thorough = Lookup(TARGET, known, OWN, Extent(region=distance(known[19]) * 6, thorough=True))
    assert len(finish(thorough)) >= limits.DHT_K + limits.DHT_SHELL_CONTACTS
    assert thorough.suspected
    assert thorough.done


def test_of_a_crowd_a_sample_is_asked_that_another_lookup_would_not_draw() -> None:
    known = contacts(2000)
    region = distance(known[400])
    asked = []
    for salt in (b"one", b"two"):
        lookup = Lookup(TARGET, known, OWN, Extent(region=region, thorough=True), salt=salt)
        asked.append({contact for contact in finish(lookup) if distance(contact) < region})
        assert lookup.done
    for chosen in asked:
        assert 0.15 * 400 < len(chosen) < 0.4 * 400
    assert len(asked[0] & asked[1]) < len(asked[0]) * 0.6


def test_in_a_crowd_nobody_inside_is_believed_about_others_and_witnesses_outside_are() -> None:
    known = contacts(2000)
    region = distance(known[200])
    inside, hidden, outside = known[:100], known[100:120], known[200:260]
    fakes = {contact: contacts(2000, seed)[:20] for seed, contact in enumerate(inside, start=10)}
    for told, believed in ((fakes, False), (dict.fromkeys(outside, hidden), True)):
        lookup = Lookup(TARGET, [*inside, *outside], OWN, Extent(region=region, thorough=True), salt=b"salt")
        strangers = set(finish(lookup, told)) - {*inside, *outside}
        assert bool(strangers) is believed
        assert lookup.queries < 150


def test_whoever_stands_close_is_asked_around_a_point_inside_the_region_and_others_around_the_target() -> None:
    known = contacts(400)
    region = distance(known[30])
    asks = Lookup(TARGET, known[:8], OWN, Extent(region=region, thorough=True), salt=b"salt").asks()
    points = [int.from_bytes(ask.argument, "big") for ask in asks]
    assert len(set(points)) == 8
    assert all(0 <= point < region for point in points)
    far = Lookup(TARGET, known[390:], OWN, Extent(region=region, thorough=True), salt=b"salt").asks()
    assert {ask.argument for ask in far} == {b""}


def test_a_false_address_of_a_peer_that_has_answered_takes_nobodys_place() -> None:
    known = contacts(21)
    false = Contact(known[0].peer, (known[1].address[0], 1))  # in the network of the second
    lookup = Lookup(TARGET, known[:20], OWN, Extent())
    asked = finish(lookup, {known[5]: [false]})
    assert set(asked) == set(known[:20])
    assert [answer.contact for answer in lookup.nearest()] == known[:20]


def test_a_broad_lookup_asks_three_at_each_doubling_of_the_distance() -> None:
    known = contacts(250)
    asked = finish(Lookup(TARGET, known, OWN, Extent(broad=True)))
    assert set(known[: limits.DHT_K]) <= set(asked)
    beyond = [distance(contact).bit_length() for contact in asked if contact not in known[: limits.DHT_K]]
    assert {256: 3, 255: 3, 254: 3}.items() <= {shell: beyond.count(shell) for shell in beyond}.items()
    assert max(map(beyond.count, beyond)) == limits.DHT_SHELL_CONTACTS


def test_a_broad_lookup_finds_its_way_past_liars_who_are_closest_to_all_that_we_know() -> None:
    liars, far, hidden = contacts(limits.DHT_K), contacts(2000)[1999], contacts(60, 2)[:30]
    for broad in (False, True):
        lookup = Lookup(TARGET, [*liars, far], OWN, Extent(broad=broad))
        assert (set(hidden[:20]) <= {far, *finish(lookup, {far: hidden[:20]})}) is broad


def test_a_write_may_begin_with_whoever_is_as_good_as_sure_to_be_among_the_closest() -> None:
    known = contacts(40)
    lookup = Lookup(TARGET, known[20:], OWN)
    asks = lookup.asks()
    for ask in asks[:7]:
        lookup.answered(who(ask), reply([]))
    assert [answer.contact for answer in lookup.settled()] == known[20:27], "no nearer one is known to be unheard"
    lookup.answered(who(asks[7]), reply(known[:3]))
    assert lookup.settled() == [], "three nearer ones are not heard from yet"
    [nearest] = [ask for ask in lookup.asks() if ask.peer == known[1].peer]
    lookup.answered(who(nearest), reply([]))
    assert [answer.contact for answer in lookup.settled()] == [known[1], *known[20:27]]


def test_hops_are_counted_from_our_own_table() -> None:
    known = contacts(30)
    lookup = Lookup(TARGET, known[29:], OWN)
    for named in ([known[20]], [known[3], known[29]], []):
        [ask] = lookup.asks()
        lookup.answered(who(ask), reply(named))
    assert lookup.done
    assert lookup.hops == 3
    assert Lookup(TARGET, [], OWN).hops == 0


def in_flight_after_silence(pace: Pace) -> int:
    """How many are on their way when five have answered and ten are past their timeouts."""
    lookup = Lookup(TARGET, contacts(100), OWN, pace=pace)
    first = lookup.asks()
    for ask in first[:5]:
        lookup.answered(who(ask), reply([]))
    second = lookup.asks()
    late = [*first[5:], *second[:5]]
    for ask in late:
        lookup.slow(who(ask))
    return len(second) - 5 + len(lookup.asks())


def test_where_many_are_silent_a_prompt_lookup_asks_as_many_more_at_once_as_it_will_take() -> None:
    assert in_flight_after_silence(Pace.STEADY) == limits.DHT_K - 5  # with the five who answered, k
    assert in_flight_after_silence(Pace.PROMPT) in {45, 46}  # three times fifteen: one in three answers


def test_a_prompt_lookup_draws_another_witness_for_one_that_is_late() -> None:
    witnesses, known = Witnesses(), contacts(5)
    for number, contact in enumerate(known):
        witnesses.add(1 << 200, contact, number)
    assert list(witnesses.drawn(lambda _: 3, lambda _: (False, 0))) == known[:3]
    witnesses.slow(known[0])
    assert list(witnesses.drawn(lambda _: 3, lambda _: (False, 0))) == known[:4]
    witnesses.answered(known[0])  # after all
    witnesses.answered(known[1])
    assert list(witnesses.drawn(lambda _: 3, lambda _: (False, 0))) == known[2:4]
