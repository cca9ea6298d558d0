"""Identifiers, as people type them."""

import pytest

from haif.base.ids import ModelDigest, PeerId


def test_what_is_no_id_is_named_as_people_name_it() -> None:
    with pytest.raises(ValueError, match="'abc' is not a peer id: it must be 64 hex digits"):
        PeerId.parse("abc")
    with pytest.raises(ValueError, match="is not a model digest: it must be 64 hex digits"):
        ModelDigest.parse("00" * 31)
