"""What a validator signs, from what its engine computed."""

from dataclasses import replace

import pytest

from haif.base.clock import WallTime
from haif.base.errors import (
    BadSignature,
    ContextTooLong,
    EngineDied,
    HaifError,
    InvalidRequest,
    Malformed,
    UnknownModel,
    Unsupported,
)
from haif.base.hashing import digest
from haif.proof.compare import Cause, Difference
from haif.protocol.audits import check_conviction, check_payload, check_verdict, conviction
from haif.validator.verdict import Answered, Undecided, confirmed, signed, undecided
from tests.unit.validator.cases import ROOT, VALIDATOR, WORK, case, payload

SAME = Answered("an engine", ROOT, WORK, 3, None)
OTHER = replace(SAME, difference=Difference(Cause.TOKENS, 2, "token 2 is another"))
NOW = WallTime(5)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (SAME, ("honest", "", 0, "an engine", ROOT)),
        (OTHER, ("convicted", "tokens", 2, "an engine", ROOT)),
        (Undecided("recipe"), ("undecided", "recipe", 0, "", None)),
    ],
)
def test_a_verdict_says_what_was_found_about_this_receipt(
    found: Answered | Undecided, said: tuple[object, ...]
) -> None:
    verdict = signed(VALIDATOR, case(1), found, NOW)
    stated = verdict.payload
    assert (WORK if stated.transcript else None) == stated.work
    assert said == (stated.finding, stated.cause, stated.place, stated.engine, stated.transcript)
    assert (VALIDATOR.peer, case(1).epoch, NOW) == (verdict.signer, stated.epoch, stated.judged)
    check_verdict(verdict, case(1).bundle)
    with pytest.raises(BadSignature, match="another receipt"):
        check_verdict(verdict, case(2).bundle)


def test_a_machine_that_does_not_agree_with_itself_accuses_nobody() -> None:
    assert OTHER == confirmed(OTHER, OTHER)
    for second in (SAME, replace(OTHER, transcript=digest("another", b"")), Undecided("model")):
        assert Undecided("engine") == confirmed(OTHER, second)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (UnknownModel("no"), "model"), (Unsupported("no"), "recipe"), (EngineDied("no"), "engine"),
        (ContextTooLong("no"), "request"), (InvalidRequest("no"), "request"), (BadSignature("no"), "engine"),
    ],
)  # fmt: skip
def test_what_the_validators_own_engine_cannot_do_is_nobodys_guilt(error: HaifError, why: str) -> None:
    assert Undecided(why) == undecided(error)


def test_the_file_of_a_conviction_holds_all_that_it_takes_and_no_bit_of_it_can_change() -> None:
    bundle = check_payload(payload(1), case(1).bundle)
    verdict = signed(VALIDATOR, case(1), OTHER, NOW)
    file = conviction(verdict, bundle)
    checked, said = check_conviction(file)
    assert (bundle, verdict) == (checked, said)
    for name, text in file.items():
        for place in (0, len(text) // 2, len(text) - 1):
            with pytest.raises((BadSignature, Malformed)):
                check_conviction(file | {name: text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]})


@pytest.mark.parametrize("missing", ["verdict", "request", "tokens", "receipt"])
def test_a_file_that_lacks_something_is_none(missing: str) -> None:
    bundle = check_payload(payload(1), case(1).bundle)
    file = conviction(signed(VALIDATOR, case(1), OTHER, NOW), bundle)
    with pytest.raises((Malformed, BadSignature)):
        check_conviction({name: text for name, text in file.items() if name != missing})


def test_a_verdict_moved_to_another_receipts_file_is_refused() -> None:
    theirs = conviction(signed(VALIDATOR, case(2), OTHER, NOW), check_payload(payload(2), case(2).bundle))
    ours = conviction(signed(VALIDATOR, case(1), OTHER, NOW), check_payload(payload(1), case(1).bundle))
    with pytest.raises(BadSignature, match="another receipt"):
        check_conviction(ours | {"verdict": theirs["verdict"]})
