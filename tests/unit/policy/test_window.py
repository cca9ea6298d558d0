"""A sliding window counts to the very one, at every place of every minute."""

from hypothesis import given
from hypothesis import strategies as st

from haif.base.clock import Instant
from haif.policy.window import Windows


def windows(most: int = 100) -> Windows:
    return Windows(most=most, seconds=60.0, keys_max=3)


def test_exactly_so_many_pass_and_the_next_when_the_first_is_a_minute_old() -> None:
    window = windows()
    answers = [window.take("a", Instant(float(second) / 2)) for second in range(101)]
    assert [answer.allowed for answer in answers] == [True] * 100 + [False]
    assert [answer.remaining for answer in answers[:3]] == [99, 98, 97]
    assert (answers[100].remaining, answers[100].retry_after, answers[100].full_in) == (0, 10.0, 59.5)
    assert not window.take("a", Instant(59.999)).allowed
    assert window.take("a", Instant(60.0)).allowed
    assert not window.take("a", Instant(60.0)).allowed


def test_keys_do_not_share_a_window_and_the_least_recent_is_forgotten_first() -> None:
    window = windows(1)
    for key in "abc":
        assert window.take(key, Instant(0.0)).allowed
    assert not window.take("a", Instant(1.0)).allowed  # now the most recent
    assert window.take("d", Instant(2.0)).allowed
    assert (len(window), window.take("a", Instant(3.0)).allowed, window.take("b", Instant(3.0)).allowed) == (
        3, False, True,
    )  # fmt: skip


@given(st.lists(st.floats(0.0, 30.0), max_size=80))
def test_no_minute_has_more(pauses: list[float]) -> None:
    window, now, passed = windows(5), 0.0, []
    for pause in pauses:
        now += pause
        if window.take("a", Instant(now)).allowed:
            passed.append(now)
    for end in passed:
        assert sum(end - 60.0 < each <= end for each in passed) <= 5
