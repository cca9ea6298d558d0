"""The closest set that is kept is the one that would be put together anew."""

from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.ids import PeerId
from haif.dht.candidates import Answer, Candidates, State
from haif.dht.contact import Contact
from haif.dht.diversity import Scope

FAR = 1 << 200


def contact(number: int) -> Contact:
    """Four addresses for each peer, and two peers for each /24."""
    return Contact(PeerId((number // 4 + 1).to_bytes(32, "big")), (f"20.{number % 4}.{number // 8}.1", 1))


happenings = st.lists(
    st.tuples(st.integers(0, 199), st.sampled_from(["named", "named", "named", "asked", "slow", "answered", "failed"])),
    max_size=200,
)


@settings(max_examples=200)
@given(happenings, st.sampled_from([0, 60, 2 * FAR]))
def test_the_closest_set_is_always_what_it_would_be_anew(events: list[tuple[int, str]], region: int) -> None:
    candidates = Candidates(region, Scope.NOTHING)
    for number, event in events:
        whom = contact(number)
        known = candidates.known.get(whom)
        if known is None:
            candidates.add(whom, number * 7919 % 211, 1)
        elif event == "asked" and known.state is State.NEW:
            known.state = State.ASKED
        elif event == "slow" and known.state is State.ASKED:
            candidates.fell(known, State.SLOW)
        elif event == "failed" and known.state in {State.ASKED, State.SLOW}:
            candidates.fell(known, State.FAILED)
        elif event == "answered" and known.state in {State.ASKED, State.SLOW}:
            candidates.answered(known, Answer(whom, b"token", 0))
        kept = candidates.closest()
        fresh = Candidates(region, Scope.NOTHING)
        for each in candidates.known.values():
            fresh.add(each.contact, each.distance, each.hops)
            fresh.known[each.contact].state = each.state
        fresh.answers.update(candidates.answers)
        assert [each.contact for each in fresh.closest()] == [each.contact for each in kept]


def test_of_the_region_only_who_is_wanted_and_nobody_outside() -> None:
    candidates = Candidates(10, Scope.NOTHING)
    people = [Contact(PeerId(bytes([number] * 32)), (f"{20 + number}.0.0.1", 1)) for number in range(40)]
    for number, whom in enumerate(people):
        candidates.add(whom, number, 1)
    wanted = candidates.closest(lambda whom: whom.peer[0] % 2 == 0)
    assert people[:10:2] == [each.contact for each in wanted]
    assert len(candidates.closest()) == limits.DHT_K
