"""Levels of a jail have an order, and words that are none suffice for nothing."""

from haif.base.confinement import LEVELS, stricter, suffices


def test_a_level_suffices_for_itself_and_what_is_below() -> None:
    for place, level in enumerate(LEVELS):
        assert [demanded for demanded in LEVELS if suffices(level, demanded)] == list(LEVELS[: place + 1])
    assert not suffices("padded", "none")
    assert not suffices("full", "padded")


def test_the_stricter_of_two_demands() -> None:
    assert stricter("none", "full") == stricter("full", "reduced") == "full"
