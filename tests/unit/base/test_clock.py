"""A deadline only shrinks."""

from hypothesis import given
from hypothesis import strategies as st

from haif.base.clock import Deadline, Instant

seconds = st.floats(0, 1e6)


@given(seconds, seconds, seconds)
def test_a_deadline_never_grows(first: float, second: float, now: float) -> None:
    deadline = Deadline.after(first, Instant(now))
    assert deadline.shrunk(second, Instant(now)) <= deadline


@given(seconds, seconds)
def test_what_remains_is_never_negative(at: float, now: float) -> None:
    deadline = Deadline(Instant(at))
    assert deadline.remaining(Instant(now)) == max(0.0, at - now)
    assert deadline.passed(Instant(now)) == (now >= at)
