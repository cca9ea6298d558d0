"""The verifiable random function gives RFC 9381's numbers, and takes nothing else."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.errors import BadProof
from haif.base.ids import PeerId
from haif.identity import vrf
from haif.identity.keys import Identity

EXAMPLES: Final = (  # RFC 9381, appendix B.3, examples 16 to 18: secret key, input, proof, output
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "",
     ("8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f26f8a57ccaed74ee1b190bed1f479d97"
      "27d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805"),
     ("90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff66b71dda49d2de59d03450451af02679"
      "8e8f81cd2e333de5cdf4f3e140fdd8ae")),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "72",
     ("f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed5933bf0864a62558b3ed7f2fea45c92a465"
      "301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02"),
     ("eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb5e33821bc613efb94db5e5b54c70a848"
      "a0bef4553a41befc57663b56373a5031")),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "af82",
     ("9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf8096bb474e53895c362d8628ee9f9ea3c0"
      "e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e"),
     ("645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c452118fec1219202a0edcf038bb6373241"
      "578be7217ba85a2687f7a0310b2df19f")),
)  # fmt: skip
ALICE: Final = Identity(b"a" * 32)
ORDER: Final = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(("seed", "alpha", "proof", "output"), EXAMPLES, ids=["16", "17", "18"])
def test_the_examples_of_the_rfc_hold_over_the_whole_proof(seed: str, alpha: str, proof: str, output: str) -> None:
    identity = Identity(bytes.fromhex(seed))
    assert (proof, output) == tuple(part.hex() for part in vrf.prove(identity, bytes.fromhex(alpha)))
    assert output == vrf.verify(identity.peer, bytes.fromhex(alpha), bytes.fromhex(proof)).hex()


@given(alpha=st.binary(max_size=64))
def test_what_was_proven_verifies_and_every_input_has_its_own_output(alpha: bytes) -> None:
    proof, output = vrf.prove(ALICE, alpha)
    assert output == vrf.verify(ALICE.peer, alpha, proof)
    assert output != vrf.prove(ALICE, alpha + b"\0")[1]


def test_a_proof_with_any_bit_flipped_is_refused() -> None:
    proof, _ = vrf.prove(ALICE, b"epoch 7")
    for bit in range(8 * len(proof)):
        flipped = bytearray(proof)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadProof):
            vrf.verify(ALICE.peer, b"epoch 7", bytes(flipped))


def test_a_proof_is_for_one_key_and_one_input() -> None:
    proof, _ = vrf.prove(ALICE, b"epoch 7")
    for peer, alpha in ((Identity(b"b" * 32).peer, b"epoch 7"), (ALICE.peer, b"epoch 8")):
        with pytest.raises(BadProof, match="not this key's for this input"):
            vrf.verify(peer, alpha, proof)


def test_a_second_writing_of_the_same_proof_is_refused() -> None:
    proof, _ = vrf.prove(ALICE, b"epoch 7")
    response = int.from_bytes(proof[48:], "little") + ORDER
    with pytest.raises(BadProof, match="not canonical"):
        vrf.verify(ALICE.peer, b"epoch 7", proof[:48] + response.to_bytes(32, "little"))


@pytest.mark.parametrize(
    "weak",
    ["00" * 32, "01" + "00" * 31, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
     "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"],
    ids=["order 4", "neutral", "order 2", "order 8"],
)  # fmt: skip
def test_keys_of_small_order_that_could_prove_anything_are_refused(weak: str) -> None:
    proof, _ = vrf.prove(ALICE, b"epoch 7")
    with pytest.raises(BadProof, match="prime-order"):
        vrf.verify(PeerId(bytes.fromhex(weak)), b"epoch 7", proof)
    with pytest.raises(BadProof, match="not canonical"):
        vrf.verify(ALICE.peer, b"epoch 7", bytes.fromhex(weak) + proof[32:])


def test_a_degenerate_proof_is_refused() -> None:
    gamma = vrf.prove(ALICE, b"epoch 7")[0][:32]
    for challenge, response in ((bytes(16), bytes(32)), (b"\1" * 16, bytes(32))):
        with pytest.raises(BadProof):
            vrf.verify(ALICE.peer, b"epoch 7", gamma + challenge + response)


@pytest.mark.parametrize("size", [0, 79, 81])
def test_a_proof_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(BadProof, match="80 bytes"):
        vrf.verify(ALICE.peer, b"epoch 7", bytes(size))
