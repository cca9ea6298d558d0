"""What a peer announces of itself."""

from haif.base import codec, limits
from haif.base.ids import PeerId
from haif.protocol.reach import Place
from haif.protocol.relay import RelayAt
from haif.reach.classify import Mapping, Verdict
from haif.reach.place import Facts

HOME = ("192.168.1.2", 4000)
OUTSIDE = "11.4.0.2"
RELAY = RelayAt(PeerId(b"r" * 32), "11.1.0.2", 4040)


def seen(mapping: Mapping) -> Verdict:
    return Verdict(mapping, (OUTSIDE, 5000), OUTSIDE, 5)


def test_a_peer_announces_what_it_listens_at_and_its_relays() -> None:
    assert Place((HOME,), (RELAY,)) == Facts((HOME,), relays=(RELAY,)).place()


def test_a_peer_that_listens_everywhere_announces_the_addresses_it_has() -> None:
    own = ("192.168.1.2", "2a10:1::2")
    assert Place((HOME,)) == Facts((("0.0.0.0", 4000),), own).place()
    assert Place((HOME, ("2a10:1::2", 4000))) == Facts((("0.0.0.0", 4000), ("::", 4000)), own).place()
    assert Place(()) == Facts((("::", 4000),)).place()


def test_the_address_outside_is_announced_where_peers_got_through_with_our_own_port() -> None:
    assert Place(((OUTSIDE, 4000), HOME)) == Facts((HOME,), verdicts=(seen(Mapping.OPEN),)).place()
    assert Place((HOME,)) == Facts((HOME,), verdicts=(seen(Mapping.CONSISTENT),)).place()


def test_what_a_router_gives_is_announced_only_where_peers_see_us_at_that_address() -> None:
    mapped = ((OUTSIDE, 7000),)
    assert Place(((OUTSIDE, 7000), HOME)) == Facts((HOME,), verdicts=(seen(Mapping.CONSISTENT),), mapped=mapped).place()
    assert Place((HOME,)) == Facts((HOME,), verdicts=(seen(Mapping.RANDOM),), mapped=(("100.64.0.2", 7000),)).place()
    assert Place((HOME,)) == Facts((HOME,), mapped=mapped).place()


def test_no_more_addresses_are_announced_than_anybody_dials() -> None:
    own = tuple(f"10.0.0.{number}" for number in range(1, 9))
    assert limits.CANDIDATES_MAX >= len(Facts((("0.0.0.0", 4000),), own).place().addresses)


def test_an_announcement_has_room_for_two_addresses_and_two_relays_and_never_outgrows_its_record() -> None:
    relays = tuple(RelayAt(PeerId(bytes([n]) * 32), f"203.255.255.{n}", 65535) for n in range(3))
    own = ("192.168.100.100", "192.168.200.200")
    inside = tuple((host, 65535) for host in own)
    assert Place(inside, relays[:2]) == Facts((("0.0.0.0", 65535),), own, relays=relays).place()
    long = "2a10:ffff:ffff:ffff:ffff:ffff:ffff:fff"
    crowd = tuple(RelayAt(PeerId(bytes([n]) * 32), f"{long}{n}", 65535) for n in range(3))
    place = Facts((("::", 65535),), tuple(f"{long}{n}" for n in range(9)), relays=crowd).place()
    assert (1, 1) == (len(place.addresses), len(place.relays))
    assert len(codec.encode(place)) <= limits.PLACE_BYTES_MAX
