"""What comes of an answer's file: the checks of `haif receipt verify`, then those of `haif receipt replay`.

A validator does the same of what it drew: it opens the three statements, is given request and tokens that must be those
that were signed for, and computes the answer again on the same bench.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from haif.base.errors import HaifError, PeerFault
from haif.node.replay import Bench
from haif.protocol.receipts import check_bundle
from haif.testing.attacks.tally import Finding, Outcome
from haif.validator.verdict import undecided


async def judge(bench: Bench, file: Mapping[str, object]) -> Finding:
    """What the checks find: nothing, something that cannot be so, or that they cannot say."""
    try:
        checked = check_bundle(file)
    except PeerFault as fault:
        return Finding(Outcome.CAUGHT, f"verify: {fault.reason.value}")
    try:
        done = await bench.replay(checked)
    except HaifError as error:
        return Finding(Outcome.UNDECIDED, f"replay: {undecided(error).why}")
    if done.difference is None:
        return Finding(Outcome.PASSED, "replay", done.tokens)
    # of tokens that differ, those until the first were enough; for all else the whole answer was
    seen = done.difference.place + 1 if done.difference.cause.value == "tokens" else done.tokens
    return Finding(Outcome.CAUGHT, f"replay: {done.difference.cause.value}", seen)


def refused(check: Callable[[], object], by: str) -> Finding:
    """Whether a check raises; what is no error of ours passes through."""
    try:
        check()
    except HaifError as error:
        return Finding(Outcome.CAUGHT, f"{by}: {error.reason.value}")
    return Finding(Outcome.PASSED, by)
