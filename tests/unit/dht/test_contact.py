"""Contacts: their bytes, their place in the key space, and the addresses nobody can have."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.errors import Malformed
from haif.base.ids import PeerId
from haif.dht.contact import Contact, node_id, pack_address, pack_contacts, subnet, unpack_address, unpack_contacts

PEER = PeerId(bytes(range(32)))


def test_a_contact_has_these_bytes() -> None:
    assert pack_contacts([Contact(PEER, ("10.1.2.3", 4000))], 100) == PEER + bytes.fromhex("04 0a010203 0fa0")
    packed = pack_contacts([Contact(PEER, ("2001:db8::1", 1))], 100)
    assert packed == PEER + bytes.fromhex("06 20010db8000000000000000000000001 0001")


def test_a_node_id_follows_from_the_key_alone() -> None:
    assert node_id(PEER) == 0x5977606D397214F808C8D8B0A61AEB3812944E17B8BAD1EBC43DDE228897428B
    assert node_id(PEER) != node_id(PeerId(bytes(32)))


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.ip_addresses(), st.integers(1, 65535)), max_size=20))
def test_contacts_come_back_as_they_went(raw: list[tuple[bytes, object, int]]) -> None:
    contacts = [Contact(PeerId(peer), (str(ip), port)) for peer, ip, port in raw]
    with suppress(Malformed):  # an address nobody can have
        assert unpack_contacts(pack_contacts(contacts, 2000)) == contacts


@given(st.binary(max_size=200))
def test_any_bytes_are_contacts_or_malformed(data: bytes) -> None:
    try:
        contacts = unpack_contacts(data)
    except Malformed:
        return
    assert pack_contacts(contacts, 200) == data


@pytest.mark.parametrize("text", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"])
def test_an_address_nobody_can_have_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        unpack_address(pack_address((text, 4000)))
    with pytest.raises(Malformed):
        unpack_address(pack_address(("10.0.0.1", 0)))


def test_only_as_many_contacts_are_packed_as_fit_and_only_a_bucket_is_read() -> None:
    contacts = [Contact(PEER, ("10.0.0.1", port)) for port in range(1, 31)]
    assert len(unpack_contacts(pack_contacts(contacts, 39 * 5 + 38))) == 5
    with pytest.raises(Malformed, match="more than 20"):
        unpack_contacts(pack_contacts(contacts, 2000))


def test_one_party_is_a_24_or_a_48_or_a_port_of_this_machine() -> None:
    assert subnet(("127.0.0.1", 1)) != subnet(("127.0.0.1", 2))
    assert subnet(("::1", 1)) != subnet(("::1", 2))
    assert subnet(("10.1.2.3", 1)) == subnet(("10.1.2.250", 2))
    assert subnet(("10.1.2.3", 1)) != subnet(("10.1.3.3", 1))
    assert subnet(("2001:db8:1:ab01::1", 1)) == subnet(("2001:db8:1:ffff::9", 1))
    assert subnet(("2001:db8:1:ab01::1", 1)) != subnet(("2001:db8:2:ab01::1", 1))
    with pytest.raises(Malformed):
        subnet(("not an address", 1))
