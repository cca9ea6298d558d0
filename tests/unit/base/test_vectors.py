"""A vector is finite numbers, and an embedding is 1 long."""

import struct

import pytest

from haif.base.vectors import is_sound, numbers_of


def packed(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


@pytest.mark.parametrize(
    ("vector", "as_score", "as_embedding"),
    [
        (packed(0.6, 0.8), True, True), (packed(-1.0), True, True), (packed(3.0, 4.0), True, False),
        (packed(0.0, 0.0), True, False), (packed(float("nan"), 1.0), False, False),
        (packed(float("inf"), 1.0), False, False), (packed(1.0, float("-inf")), False, False),
        (packed(3e38, 3e38), True, False),
    ],
)  # fmt: skip
def test_what_is_sound(vector: bytes, as_score: bool, as_embedding: bool) -> None:
    assert (as_score, as_embedding) == (is_sound(vector, unit=False), is_sound(vector, unit=True))


def test_numbers_are_little_endian_singles() -> None:
    assert [1.0, -2.5] == numbers_of(bytes.fromhex("0000803f000020c0"))
