"""The public Noise vectors of the patterns we use, through our adapter and our own transport."""

import json
from pathlib import Path

import pytest

from haif.base.clock import Instant
from haif.identity.keys import NoiseKey
from haif.wire.noise import PROTOCOLS, NoiseHandshake, Opener, Pattern, Sealer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "noise.json").read_text())["vectors"]
PATTERNS = {name.decode(): pattern for pattern, name in PROTOCOLS.items()}


def side(pattern: Pattern, vector: dict, *, initiator: bool) -> NoiseHandshake:
    own = "init" if initiator else "resp"
    responder = NoiseKey(bytes.fromhex(vector["resp_static"]))
    return NoiseHandshake(
        pattern,
        initiator=initiator,
        static=NoiseKey(bytes.fromhex(vector[f"{own}_static"])),
        prologue=bytes.fromhex(vector["prologue"]),
        entropy=lambda _: bytes.fromhex(vector[f"{own}_ephemeral"]),
        remote=responder.public if initiator and pattern is Pattern.IK else None,
    )


def test_both_patterns_have_vectors_of_both_sources() -> None:
    assert {(vector["source"], vector["name"]) for vector in VECTORS} == {
        (source, name) for source in ("cacophony", "snow") for name in PATTERNS
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['source']} {vector['name']}")
def test_the_public_vectors_hold_byte_for_byte(vector: dict) -> None:
    pattern = PATTERNS[vector["name"]]
    ends = [side(pattern, vector, initiator=True), side(pattern, vector, initiator=False)]
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    length = {Pattern.XX: 3, Pattern.IK: 2}[pattern]
    for number, (payload, ciphertext) in enumerate(messages[:length]):
        writer, reader = ends[number % 2], ends[1 - number % 2]
        assert writer.write(payload) == ciphertext
        assert reader.read(ciphertext) == payload
    splits = [end.split for end in ends]
    assert splits[0].hash == splits[1].hash
    sealers = [Sealer(split.sending, Instant(0.0)) for split in splits]
    openers = [Opener(split.receiving) for split in splits]
    for number, (payload, ciphertext) in enumerate(messages[length:], length):
        assert sealers[number % 2].seal(payload) == ciphertext
        assert openers[1 - number % 2].open(ciphertext) == payload
