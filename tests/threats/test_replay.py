"""H-S3: no signed message counts twice, whatever was restarted in between, and no honest one is refused.

The table of the issue: same channel, other channel, other receiver, after a restart, old boot.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.codec import Message
from haif.base.errors import HaifError, Malformed, Reason
from haif.base.ids import Digest, NetId
from haif.identity.keys import Identity
from haif.identity.replay import ReplayGuard
from haif.identity.service import Memory
from haif.identity.signing import NO_SCOPE
from haif.identity.voice import Voice
from tests.support.wire_pair import entropy

NET = NetId(b"n" * 32)
ALICE, BOB, CAROL = (Identity(letter * 32) for letter in (b"a", b"b", b"c"))
HERE, THERE = Digest(b"1" * 32), Digest(b"2" * 32)
COUNT = 200
KIND = 7


class Note(Message, frozen=True):
    number: int


class HandClock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.time = WallTime(1_800_000_000_000)

    def now(self) -> Instant:
        return Instant(self.time / 1000)

    def wall(self) -> WallTime:
        return self.time


class Scene:
    """Alice has said many things to Bob, and Bob has heard each of them once."""

    def __init__(self, scope: Digest = HERE) -> None:
        self.clock = HandClock()
        self.scope = scope
        self.random = entropy(5)
        self.alice = self.voice(ALICE)
        self.bob = self.voice(BOB)
        self.said = [self.say(number) for number in range(COUNT)]
        assert [self.hear(self.bob, message, scope) for message in self.said] == [None] * COUNT

    def voice(self, who: Identity, remembered: bytes | None = None) -> Voice:
        return Voice(who, NET, self.clock, lambda n: self.random(n)[:n].ljust(n, b"\0"), remembered)

    def say(self, number: int) -> bytes:
        self.clock.time = WallTime(self.clock.time + 1)
        return self.alice.say(BOB.peer, self.scope, KIND, Note(number))[0]

    def hear(self, ear: Voice, message: bytes, scope: Digest) -> Reason | None:
        """Why the message is refused, if it is."""
        try:
            ear.hear(Note, KIND, message, scope)
        except HaifError as error:
            return error.reason
        return None


def same_channel(scene: Scene) -> tuple[Voice, Digest]:
    return scene.bob, scene.scope


def other_channel(scene: Scene) -> tuple[Voice, Digest]:
    return scene.bob, THERE


def other_receiver(scene: Scene) -> tuple[Voice, Digest]:
    return scene.voice(CAROL), scene.scope


def after_an_orderly_restart(scene: Scene) -> tuple[Voice, Digest]:
    scene.bob = scene.voice(BOB, scene.bob.remember())
    return scene.bob, scene.scope


def after_a_crash(scene: Scene) -> tuple[Voice, Digest]:
    """Sessions do not survive one: what is replayed comes in another."""
    scene.clock.time = WallTime(scene.clock.time + 1)
    scene.bob = scene.voice(BOB)
    return scene.bob, scene.scope if scene.scope == NO_SCOPE else THERE


def of_an_old_boot(scene: Scene) -> tuple[Voice, Digest]:
    scene.alice = scene.voice(ALICE)
    assert scene.hear(scene.bob, scene.say(0), scene.scope) is None
    return scene.bob, scene.scope


REPLAYS = {
    same_channel: Reason.REPLAYED,
    other_channel: Reason.WRONG_STATE,
    other_receiver: Reason.WRONG_STATE,
    after_an_orderly_restart: Reason.REPLAYED,
    after_a_crash: None,
    of_an_old_boot: Reason.REPLAYED,
}


@pytest.mark.parametrize("scope", [HERE, NO_SCOPE], ids=["in a session", "in none"])
@pytest.mark.parametrize("replay", REPLAYS, ids=lambda replay: replay.__name__)
def test_h_s3_every_replay_is_refused_and_no_honest_message(
    replay: Callable[[Scene], tuple[Voice, Digest]], scope: Digest
) -> None:
    scene = Scene(scope)
    ear, channel = replay(scene)
    refused = [scene.hear(ear, message, channel) for message in scene.said]
    assert sum(reason is not None for reason in refused) == COUNT
    expected = REPLAYS[replay] or (Reason.REPLAYED if scope == NO_SCOPE else Reason.WRONG_STATE)
    assert set(refused) == {expected}
    fresh = [scene.hear(scene.bob, scene.say(number), scope) for number in range(COUNT)]
    assert fresh == [None] * COUNT


def test_a_sender_restarted_in_order_is_heard_though_its_clock_was_set_back() -> None:
    scene = Scene()
    scene.clock.time = WallTime(scene.clock.time - limits.CLOCK_SKEW_MS // 2)
    scene.alice = scene.voice(ALICE, scene.alice.remember())
    assert [scene.hear(scene.bob, scene.say(number), HERE) for number in range(COUNT)] == [None] * COUNT


def crashed_and_set_back(scene: Scene) -> None:
    scene.clock.time = WallTime(scene.clock.time - limits.CLOCK_SKEW_MS // 2)
    scene.alice = scene.voice(ALICE)


def test_h_s3_a_sender_that_crashed_is_heard_in_its_next_session_though_its_clock_was_set_back() -> None:
    scene = Scene(HERE)
    crashed_and_set_back(scene)
    scene.scope = THERE
    fresh = [scene.say(number) for number in range(COUNT)]
    assert [scene.hear(scene.bob, message, THERE) for message in fresh] == [None] * COUNT
    assert {scene.hear(scene.bob, message, THERE) for message in fresh} == {Reason.REPLAYED}
    assert {scene.hear(scene.bob, message, THERE) for message in scene.said} == {Reason.WRONG_STATE}
    assert {scene.hear(scene.bob, message, HERE) for message in scene.said} == {Reason.REPLAYED}


def test_h_s3_what_belongs_to_no_session_waits_for_the_clock_after_such_a_crash() -> None:
    """Here nothing tells the new boot from a recording of an older one: this refusal is the price of no replays."""
    scene = Scene(NO_SCOPE)
    heard_by = scene.clock.time
    crashed_and_set_back(scene)
    assert scene.hear(scene.bob, scene.say(0), NO_SCOPE) is Reason.REPLAYED
    scene.clock.time = heard_by
    assert scene.hear(scene.bob, scene.say(1), NO_SCOPE) is None


def test_messages_on_their_way_while_the_receiver_restarts_are_heard_in_any_order() -> None:
    scene = Scene()
    late = [scene.say(number) for number in range(COUNT)]
    assert scene.hear(scene.bob, late[-1], HERE) is None
    scene.bob = scene.voice(BOB, scene.bob.remember())
    assert [scene.hear(scene.bob, message, HERE) for message in reversed(late[:-1])] == [None] * (COUNT - 1)


def test_what_one_process_leaves_the_next_takes_once(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state" / "voice")
    assert memory.take() is None
    memory.leave(Scene().bob.remember())
    assert memory.take() is not None
    assert memory.take() is None


def test_a_memory_that_is_none_is_refused() -> None:
    whole = Scene().bob.remember()
    for state in (b"", whole[:15], whole[:19], whole[:-1], whole[:16] + bytes(4), whole + whole[20:] * 2 + b"x"):
        with pytest.raises(Malformed):
            Scene().voice(BOB, state)
    with pytest.raises(Malformed):
        ReplayGuard.restored(whole[16:] + whole[20:], senders_max=1)
