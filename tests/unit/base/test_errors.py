"""The error tree is complete, and says what it promises."""

import pytest

from haif.base import errors
from haif.base.errors import BY_REASON, LEAVES, HaifError, Malformed, Overloaded, Reason, Refusal, Unavailable
from haif.base.ids import Digest, FixedBytes, ModelDigest, PeerId


def test_every_reason_has_exactly_one_error() -> None:
    assert set(Reason) == set(BY_REASON)
    assert len(LEAVES) == len(Reason)


def test_every_error_is_in_the_drawing() -> None:
    assert errors.__doc__ is not None
    for leaf in LEAVES:
        assert leaf.__name__ in errors.__doc__, f"draw {leaf.__name__} into the tree"


def test_every_error_is_somebodys_doing() -> None:
    families = (errors.Misuse, errors.PeerFault, errors.Refusal, errors.Unavailable, errors.Corruption)
    for leaf in LEAVES:
        assert sum(issubclass(leaf, family) for family in families) == 1


@pytest.mark.parametrize("reason", list(Reason))
def test_an_error_comes_back_from_its_code(reason: Reason) -> None:
    error = errors.from_reason(reason.value, "because", retry_after=2.0)
    assert error.reason is reason
    assert str(error) == "because"
    if isinstance(error, Refusal | Unavailable):
        assert error.retry_after == 2.0


def test_an_unknown_code_is_malformed() -> None:
    error = errors.from_reason("on_holiday", "back on Monday")
    assert isinstance(error, Malformed)
    assert "on_holiday" in error.message


def test_a_refusal_names_the_parameter() -> None:
    assert Overloaded("full", param="n").param == "n"
    assert isinstance(Overloaded("full"), HaifError)


def test_ids_have_one_size_and_one_text() -> None:
    for kind in FixedBytes.__subclasses__():
        raw = bytes(range(kind.size))
        assert kind.parse(raw.hex()) == raw
        with pytest.raises(ValueError, match="bytes"):
            kind(raw + b"x")
        with pytest.raises(ValueError, match="hex digits"):
            kind.parse("zz")
        with pytest.raises(ValueError, match="hex digits"):
            kind.parse(raw.hex()[2:])


def test_ids_show_little_of_themselves() -> None:
    assert repr(PeerId(bytes(32))) == "PeerId(00000000…)"
    assert type(ModelDigest(bytes(32))) is not type(Digest(bytes(32)))
