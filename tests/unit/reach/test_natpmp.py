"""NAT-PMP's bytes, as RFC 6886 has them, and whatever else a router may send."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.errors import Malformed, Unsupported
from haif.reach import natpmp
from haif.reach.natpmp import Mapped, Opcode


def test_a_request_has_these_bytes() -> None:
    assert b"\0\0" == natpmp.ADDRESS_REQUEST
    assert bytes.fromhex("00 02 0000 1f40 1f41 00000e10") == natpmp.map_request(Opcode.TCP, 8000, 8001, 3600)
    assert bytes.fromhex("00 01 0000 1f40 0000 00000000") == natpmp.map_request(Opcode.UDP, 8000, 0, 0)


def test_a_response_says_the_address_or_the_mapping() -> None:
    assert "11.4.0.2" == natpmp.read_address(bytes.fromhex("00 80 0000 00000007 0b040002"))
    mapped = bytes.fromhex("00 82 0000 00000007 1f40 2000 00000e10")
    assert Mapped(8000, 0x2000, 3600) == natpmp.read_mapped(mapped, Opcode.TCP, 8000)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("", Malformed), ("00 82 0000", Malformed),
        ("02 82 0000 00000007 1f40 2000 00000e10", Malformed),
        ("00 81 0000 00000007 1f40 2000 00000e10", Malformed),
        ("00 82 0000 00000007 1f41 2000 00000e10", Malformed),
        ("00 82 0000 00000007 1f40 0000 00000e10", Malformed),
        ("00 82 0000 00000007 1f40 2000 00000e10 00", Malformed),
        ("00 82 0002 00000007", Unsupported), ("00 82 0002 00000007 1f40 0000 00000000", Unsupported),
    ],
)  # fmt: skip
def test_what_is_no_answer_to_our_request_is_refused(data: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        natpmp.read_mapped(bytes.fromhex(data), Opcode.TCP, 8000)


@given(st.binary(max_size=20))
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    for prefix in (b"", b"\0\x82\0\0", b"\0\x80\0\0"):
        with suppress(Malformed, Unsupported):
            natpmp.read_mapped(prefix + data, Opcode.TCP, 8000)
        with suppress(Malformed, Unsupported):
            natpmp.read_address(prefix + data)
