"""A job has one seed it could have, and a stranger can check which."""

from typing import Any

import msgspec
import pytest

from haif.base.errors import BadProof
from haif.base.ids import Digest, JobId, ModelDigest, PeerId, Seed
from haif.identity.keys import Identity
from haif.identity.signing import Domain, open_sealed, seal
from haif.protocol.jobs import Reservation
from haif.protocol.seeds import check_seed, drawn_seed, given_seed

ORCHESTRATOR = Identity(b"o" * 32)
JOB = JobId(b"j" * 16)
REQUEST = Digest(b"r" * 32)
SEED, PROOF = drawn_seed(ORCHESTRATOR, JOB, REQUEST)
TERMS = Reservation(
    JOB, 1, PeerId(b"g" * 32), PeerId(b"w" * 32), ModelDigest(b"m" * 32), REQUEST, 100, SEED, None, PROOF,
    1, 2, 3,
)  # fmt: skip


def check(signer: Identity = ORCHESTRATOR, **changes: Any) -> None:
    evidence = seal(signer, Domain.RESERVATION, msgspec.structs.replace(TERMS, **changes))
    check_seed(open_sealed(Reservation, Domain.RESERVATION, evidence))


def test_a_drawn_seed_is_the_same_for_each_attempt_on_each_worker() -> None:
    assert (SEED, PROOF) == drawn_seed(ORCHESTRATOR, JOB, REQUEST)
    check()
    check(attempt=2, worker=PeerId(b"x" * 32))


def test_a_given_seed_is_the_tenants() -> None:
    check(seed=given_seed(-7), tenant_seed=-7, seed_proof=b"")
    assert given_seed(7) != given_seed(-7)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": Seed(b"s" * 32)},
        {"seed_proof": b""},
        {"seed_proof": drawn_seed(ORCHESTRATOR, JOB, Digest(b"q" * 32))[1]},
        {"seed_proof": drawn_seed(Identity(b"p" * 32), JOB, REQUEST)[1]},
        {"request_digest": Digest(b"q" * 32)},
        {"job": JobId(b"k" * 16)},
        {"tenant_seed": 7},
        {"tenant_seed": 7, "seed": given_seed(8), "seed_proof": b""},
        {"tenant_seed": 7, "seed": given_seed(7)},
    ],
    ids=["chosen", "no proof", "of another request", "of another key", "another request", "another job",
         "said to be given", "another than given", "both"],
)  # fmt: skip
def test_a_seed_that_was_chosen_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadProof):
        check(**changes)


def test_another_orchestrator_draws_another_seed() -> None:
    with pytest.raises(BadProof):
        check(signer=Identity(b"p" * 32))
