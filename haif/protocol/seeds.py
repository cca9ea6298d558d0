"""Where a job's seed comes from, so that nobody had a choice and anybody can check it.

    the tenant gave `seed`    seed = H(seed)                      the same request gives the same answer
    it gave none              seed = H(output), with (proof, output) = VRF(orchestrator's key, job and request digest)

The function has one output for each input (RFC 9381), and the gateway makes the input: so the orchestrator cannot look
for a seed it likes, the gateway cannot foresee what an input would give, and the worker, which is not in it, cannot be
chosen for its seed either. An orchestrator that takes a job over goes on with the seed that was drawn, and names who
drew it: whoever checks that must know that one, too, as an orchestrator.
"""

from __future__ import annotations

from haif.base.errors import BadProof
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, Seed
from haif.identity import vrf
from haif.identity.keys import Identity
from haif.identity.signing import Verified
from haif.protocol.jobs import Reservation


def given_seed(number: int) -> Seed:
    """The seed of a request whose tenant gave `seed`: a signed 64-bit number."""
    return Seed(digest("haif v1 seed", number.to_bytes(8, "little", signed=True)))


def drawn_seed(orchestrator: Identity, job: JobId, request: Digest) -> tuple[Seed, bytes]:
    """The seed of any other request, and the VRF proof (80 bytes) of it. Takes about a millisecond."""
    proof, output = vrf.prove(orchestrator, _input(job, request))
    return Seed(digest("haif v1 drawn seed", output)), proof


def check_seed(reservation: Verified[Reservation]) -> None:
    """Return if the reservation's seed is the only one it could have. Raises `BadProof`."""
    terms = reservation.payload
    if terms.tenant_seed is None:
        output = vrf.verify(
            terms.drawn_by or reservation.signer, _input(terms.job, terms.request_digest), terms.seed_proof
        )
        wanted = Seed(digest("haif v1 drawn seed", output))
    else:
        wanted = given_seed(terms.tenant_seed)
    if terms.seed != wanted or (terms.tenant_seed is not None and terms.seed_proof):
        raise BadProof("the orchestrator chose the seed instead of drawing it", reservation.signer)


def _input(job: JobId, request: Digest) -> bytes:
    return b"haif v1 seed\0" + job + request
