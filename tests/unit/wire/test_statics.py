"""Static keys that are rotated while the node runs."""

import pytest

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Reason
from haif.identity import certificate
from haif.identity.keys import NoiseKey
from haif.wire.handshake import Credentials
from haif.wire.statics import Static, Statics
from tests.support.wire_pair import NET, SERVER, SERVER_KEY, WALL, Pair, credentials, dialling, entropy, listening

HALF = limits.CERTIFICATE_TTL_MS // 2
OLD_KEY = NoiseKey(b"O" * 32)


def statics() -> Statics:
    return Statics(SERVER, NET, SERVER_KEY, entropy())


def at(subject: Statics, later_ms: int) -> tuple[Static, ...]:
    return subject.at(WallTime(WALL + later_ms))


def test_the_first_key_is_the_given_one_and_stays_for_half_of_its_time() -> None:
    subject = statics()
    first = at(subject, 0)
    assert [SERVER_KEY] == [each.key for each in first]
    assert first == at(subject, HALF)


def test_then_a_new_one_is_shown_and_the_old_one_kept_until_its_certificate_is_over() -> None:
    subject = statics()
    [old] = at(subject, 0)
    [new, former] = at(subject, HALF + 1)
    assert former == old
    assert new.key.public != old.key.public
    assert at(subject, 2 * HALF - 1) == (new, old)
    assert at(subject, 2 * HALF) == (new,)


def test_whatever_the_time_what_is_shown_is_certified_for_a_while_and_no_more_than_two_are_kept() -> None:
    subject = statics()
    for later in [*range(0, 10 * HALF, HALF // 3), *range(10 * HALF, 0, -HALF // 3), 30 * HALF]:
        kept, now = at(subject, later), WallTime(WALL + later)
        assert len(kept) <= 2
        for moment in (now, WallTime(now + HALF - 1)):
            shown = certificate.check(kept[0].certificate, net=NET, noise_key=kept[0].key.public, now=moment)
            assert SERVER.peer == shown


def with_former() -> Credentials:
    own, former = credentials(SERVER, SERVER_KEY), credentials(SERVER, OLD_KEY)
    return Credentials(NET, SERVER.peer, SERVER_KEY, own.certificate, None, Static(OLD_KEY, former.certificate, WALL))


@pytest.mark.parametrize("key", [SERVER_KEY, OLD_KEY], ids=["the new key", "the old key"])
def test_who_dials_with_either_key_is_answered_under_it(key: NoiseKey) -> None:
    pair = Pair(dialling(known=key), listening(with_former()))
    pair.settle()
    assert pair.client.established
    assert pair.server.established.peer == pair.client._handshake._credentials.peer
    assert pair.client.certificate == credentials(SERVER, key).certificate


def test_who_dials_with_no_key_is_shown_the_new_one() -> None:
    pair = Pair(server=listening(with_former()))
    pair.settle()
    assert pair.client.certificate == credentials(SERVER, SERVER_KEY).certificate


def test_who_dials_with_a_key_before_those_is_refused() -> None:
    pair = Pair(dialling(known=NoiseKey(b"x" * 32)), listening(with_former()))
    pair.settle()
    assert pair.server.closed.reason is Reason.BAD_SIGNATURE
    assert pair.client.established is None
