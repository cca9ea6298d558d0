"""What a gateway keeps of requests for validators, and for how long."""

import pytest

from haif.base.clock import Instant
from haif.base.errors import Refusal
from haif.base.hashing import digest
from haif.base.ids import Nonce
from haif.gateway.openai import parse_completion
from haif.gateway.payloads import Payloads, size_of
from haif.protocol.audits import Payload


def payload(number: int, size: int = 100) -> Payload:
    return Payload(digest("receipt", bytes([number])), bytes(size), [1, 2, 3])


def test_what_was_kept_is_there_for_who_drew_it() -> None:
    kept = Payloads()
    for number in (1, 2):
        kept.keep(payload(number), Instant(0))
    assert [payload(2)] == kept.those([payload(2).receipt, payload(3).receipt])


def test_what_is_too_old_or_too_much_is_forgotten_oldest_first() -> None:
    kept = Payloads(bytes_max=3 * size_of(payload(0)), seconds=10.0)
    for number in range(5):
        kept.keep(payload(number), Instant(number))
    assert [payload(n) for n in (2, 3, 4)] == kept.those(payload(n).receipt for n in range(5))
    kept.forget(Instant(13.5))
    assert [payload(4)] == kept.those(payload(n).receipt for n in range(5))
    kept.forget(Instant(14))
    assert 0 == len(kept)


@pytest.mark.parametrize(("said", "may"), [(b"", True), (b', "haif": {"audit": false}', False),
                                           (b', "haif": {"audit": true}', True), (b', "haif": {}', True)])  # fmt: skip
def test_a_tenant_can_keep_its_request_out(said: bytes, may: bool) -> None:
    ask = parse_completion(b'{"model": "m", "prompt": "p"' + said + b"}", Nonce(bytes(16)))
    assert may is ask.audit


def test_a_tenant_says_so_clearly_or_is_refused() -> None:
    with pytest.raises(Refusal):
        parse_completion(b'{"model": "m", "prompt": "p", "haif": {"audit": "no"}}', Nonce(bytes(16)))
