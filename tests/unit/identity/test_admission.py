"""Who may take part: what is signed, by whom, for how long, and what no signature can bring about."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import (
    BadSignature,
    Expired,
    Forbidden,
    HaifError,
    Malformed,
    OverQuota,
    Oversize,
    PeerFault,
    Refusal,
    Replayed,
    Unauthenticated,
)
from haif.base.ids import PeerId
from haif.base.roles import Role
from haif.identity.admission import (
    DAY_MS,
    Admission,
    Book,
    Delegation,
    Network,
    Office,
    Revocations,
    Revoked,
    admit,
    check_network,
    delegate,
    open_network,
    read,
    read_delegation,
    read_revocations,
    revise,
)
from haif.identity.keys import Identity
from haif.identity.signing import Domain, open_sealed, seal

ROOT, DELEGATE, WORKER, STRANGER = (Identity(bytes([n]) * 32) for n in range(1, 5))
NOW = WallTime(1_800_000_000_000)
NETWORK = Network("acme", closed=True, roots=(ROOT.peer,))
OPEN = Network("acme", closed=False, roots=(ROOT.peer,))
OFFICE = Office(ROOT)
WORKERS = frozenset({Role.WORKER})


def later(days: float) -> WallTime:
    return WallTime(int(NOW + days * DAY_MS))


def deputy(roles: frozenset[Role] = WORKERS, days: int = 90, network: Network = NETWORK) -> Office:
    return Office(DELEGATE, delegate(OFFICE, network, DELEGATE.peer, roles, NOW, days))


def admitted(office: Office = OFFICE, roles: frozenset[Role] = WORKERS, network: Network = NETWORK, **options) -> bytes:
    return admit(office, network, WORKER.peer, roles, NOW, **({"days": 30, "owner": "Ada"} | options))


def revoking(*peers: PeerId, office: Office = OFFICE, now: WallTime = NOW, network: Network = NETWORK) -> bytes:
    return revise(office, network, None, now, peers)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_closed_networks_id_commits_to_its_roots_and_an_open_ones_to_its_name_alone() -> None:
    other = Network("acme", closed=True, roots=(STRANGER.peer,))
    assert len({NETWORK.net, other.net, OPEN.net, Network("b", closed=True, roots=NETWORK.roots).net}) == 4
    assert open_network("acme").net == OPEN.net


@pytest.mark.parametrize(
    "network",
    [
        Network("a", closed=True, roots=()),
        Network("a", closed=True, roots=(ROOT.peer, ROOT.peer)),
        Network("a", closed=True, roots=tuple(sorted((ROOT.peer, WORKER.peer), reverse=True))),
        Network("a", closed=True, roots=tuple(PeerId(bytes([n]) * 32) for n in range(limits.NETWORK_ROOTS_MAX + 1))),
        Network("", closed=True, roots=(ROOT.peer,)),
        Network("a\x1b", closed=True, roots=(ROOT.peer,)),
    ],
    ids=["no root", "a root twice", "out of order", "too many roots", "no name", "a name for terminals"],
)
def test_what_cannot_be_a_network_is_refused(network: Network) -> None:
    with pytest.raises(Malformed):
        check_network(network)


# --- certificates -----------------------------------------------------------------------------------------------------


def test_a_certificate_has_these_fields_in_this_order() -> None:
    """Golden: the payload of an Admission is this CBOR map, whatever library reads it."""
    statement = open_sealed(Admission, Domain.ADMISSION, admitted()).payload
    assert (
        bytes.fromhex("a7 01 5820")
        + NETWORK.net
        + bytes.fromhex("02 5820")
        + WORKER.peer
        + bytes.fromhex("03 81 66")
        + b"worker"
        + bytes.fromhex("04 63")
        + b"Ada"
        + bytes.fromhex("05 1b 000001a3185c5000 06 1b 000001a3b2db1800 07 40")
        in admitted()
    )
    assert statement == Admission(NETWORK.net, WORKER.peer, (Role.WORKER,), "Ada", NOW, NOW + 30 * DAY_MS, b"")


def test_a_delegation_has_these_fields_in_this_order() -> None:
    assert (
        bytes.fromhex("a5 01 5820")
        + NETWORK.net
        + bytes.fromhex("02 5820")
        + DELEGATE.peer
        + bytes.fromhex("03 81 66")
        + b"worker"
        + bytes.fromhex("04 1b 000001a3185c5000 05 1b 000001a4e7d8a800")
        in deputy().delegation
    )


def test_a_list_of_revocations_has_these_fields_in_this_order() -> None:
    assert bytes.fromhex("a5 01 5820") + NETWORK.net + bytes.fromhex(
        "02 1b 000001a3185c5000 03 1b 000001a3185c5000 04 81 82 5820"
    ) + WORKER.peer + bytes.fromhex("1b 000001a3185c5000 05 40") in revoking(WORKER.peer)


def test_a_root_admits_and_so_does_its_delegate() -> None:
    assert Book(NETWORK).judge(WORKER.peer, admitted(), NOW) == WORKERS
    assert Book(NETWORK).judge(WORKER.peer, admitted(deputy()), NOW) == WORKERS
    assert len(admitted(deputy(frozenset(Role)), frozenset(Role), owner="x" * 64)) <= limits.ADMISSION_BYTES_MAX


@pytest.mark.parametrize(
    ("evidence", "error"),
    [
        (lambda: b"", Unauthenticated),
        (lambda: admitted(network=Network("other", closed=True, roots=(ROOT.peer,))), Unauthenticated),
        (lambda: admitted(network=OPEN), Unauthenticated),
        (lambda: admit(OFFICE, NETWORK, STRANGER.peer, WORKERS, NOW, days=30), Unauthenticated),
        (lambda: admitted(Office(STRANGER)), Unauthenticated),
        (lambda: admitted(Office(STRANGER, deputy().delegation)), Unauthenticated),
        (lambda: admitted(deputy(), frozenset({Role.ORCHESTRATOR, Role.WORKER})), Forbidden),
        (lambda: admitted(deputy(days=90), days=401), Expired),
        (lambda: admitted(days=0), Expired),
        (lambda: admit(OFFICE, NETWORK, WORKER.peer, WORKERS, later(1), days=9), Expired),
        (lambda: admit(OFFICE, NETWORK, WORKER.peer, WORKERS, later(-30), days=29), Expired),
        (lambda: admitted(roles=frozenset()), Malformed),
        (lambda: admitted(owner="\x1b[2J"), Malformed),
        (lambda: admitted(owner="x" * 65), Malformed),
        (lambda: deputy().delegation, BadSignature),
        (revoking, BadSignature),
        (lambda: admitted(owner="x" * 1100), Oversize),
    ],
    ids=[
        "none", "another network's", "the open network's of that name", "another peer's", "a stranger's",
        "a stolen right", "a role beyond the delegate's", "for too long", "for no time", "not yet", "not any more",
        "no role",
        "an owner for terminals", "an owner too long", "a delegation", "a list", "too long",
    ],
)  # fmt: skip
def test_a_certificate_that_does_not_hold_is_refused_with_the_reason(
    evidence: Callable[[], bytes], error: type[HaifError]
) -> None:
    with pytest.raises(error):
        Book(NETWORK).judge(WORKER.peer, evidence(), NOW)


def test_a_delegate_cannot_delegate_further() -> None:
    below = Office(STRANGER, seal(DELEGATE, Domain.DELEGATION, Delegation(
        NETWORK.net, STRANGER.peer, (Role.WORKER,), NOW, NOW + DAY_MS)))  # fmt: skip
    with pytest.raises(Unauthenticated):
        Book(NETWORK).judge(WORKER.peer, admitted(below), NOW)


def test_a_certificate_ends_with_its_delegation() -> None:
    evidence = admitted(deputy(days=10))
    assert Book(NETWORK).judge(WORKER.peer, evidence, later(9)) == WORKERS
    with pytest.raises(Expired):
        Book(NETWORK).judge(WORKER.peer, evidence, later(11))


@pytest.mark.parametrize(
    "roles", [("worker", "worker"), ("worker", "gateway"), ("king",), ()], ids=["twice", "order", "unknown", "none"]
)
def test_roles_have_one_form_and_unknown_ones_are_refused(roles: tuple[str, ...]) -> None:
    class Loose(Admission, frozen=True):
        roles: tuple[str, ...]  # type: ignore[assignment]

    fields = msgspec.structs.asdict(open_sealed(Admission, Domain.ADMISSION, admitted()).payload) | {"roles": roles}
    with pytest.raises(Malformed):
        read(seal(ROOT, Domain.ADMISSION, Loose(**fields)), network=NETWORK, now=NOW)


def test_no_bit_of_a_certificate_can_change_unnoticed() -> None:
    evidence, book = admitted(deputy()), Book(NETWORK)
    for bit in range(8 * len(evidence)):
        changed = bytearray(evidence)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((PeerFault, Refusal)):
            book.judge(WORKER.peer, bytes(changed), NOW)


@given(st.binary(max_size=1200))
def test_arbitrary_bytes_are_refused_as_certificate_delegation_and_list(data: bytes) -> None:
    for reader in (read, read_delegation, read_revocations):
        with pytest.raises(PeerFault):
            reader(data, network=NETWORK, now=NOW)


ids = st.binary(min_size=32, max_size=32).map(PeerId)


@given(
    st.builds(
        Admission, st.just(NETWORK.net), ids, st.lists(st.sampled_from(Role)).map(tuple), st.text(max_size=70),
        st.integers(-(2**63), 2**64 - 1), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=40),
    )
)  # fmt: skip
def test_whatever_a_root_signs_is_a_certificate_or_refused(statement: Admission) -> None:
    evidence = seal(ROOT, Domain.ADMISSION, statement)
    try:
        roles = Book(NETWORK).judge(statement.peer, evidence, NOW)
    except (PeerFault, Refusal):
        return
    assert roles == set(statement.roles)


@given(
    st.builds(
        Revocations, st.just(NETWORK.net), st.integers(-(2**63), 2**64 - 1), st.integers(-(2**63), 2**64 - 1),
        st.lists(st.builds(Revoked, ids, st.integers(-(2**63), 2**64 - 1)), max_size=5).map(tuple),
        st.binary(max_size=40),
    )
)  # fmt: skip
def test_whatever_a_root_signs_is_a_list_or_refused(statement: Revocations) -> None:
    book = Book(NETWORK)
    try:
        book.learn(seal(ROOT, Domain.REVOCATIONS, statement), NOW)
    except (PeerFault, Refusal):
        assert not book.lists()
    else:
        assert book.revoked() == {entry.peer for entry in statement.revoked}


# --- open networks ----------------------------------------------------------------------------------------------------


def test_an_open_network_takes_everybody_and_asks_for_no_role() -> None:
    assert Book(open_network("a")).judge(STRANGER.peer, b"", NOW) is None
    assert Book(open_network("a")).judge(STRANGER.peer, b"whatever", NOW) is None
    assert Book(OPEN).judge(STRANGER.peer, b"", NOW) is None
    assert Book(OPEN).judge(WORKER.peer, admitted(network=OPEN), NOW) is None


def test_what_is_shown_in_an_open_network_that_has_a_root_must_hold() -> None:
    with pytest.raises(Unauthenticated):
        Book(OPEN).judge(WORKER.peer, admitted(network=NETWORK), NOW)


def test_the_root_of_an_open_network_can_shut_a_peer_out_for_good() -> None:
    book = Book(OPEN)
    book.learn(revoking(WORKER.peer, network=OPEN), NOW)
    for evidence in (b"", admit(OFFICE, OPEN, WORKER.peer, WORKERS, later(1), days=9)):
        with pytest.raises(Forbidden):
            book.judge(WORKER.peer, evidence, later(2))


def test_we_show_our_certificate_only_while_it_holds() -> None:
    book = Book(NETWORK, admitted())
    assert [bool(book.certificate(when)) for when in (NOW, later(29), later(31))] == [True, True, False]
    assert Book(NETWORK).certificate(NOW) == b""


# --- revocations ------------------------------------------------------------------------------------------------------


def test_a_revocation_is_for_good_whatever_is_signed_afterwards() -> None:
    book = Book(NETWORK)
    book.learn(revoking(WORKER.peer, now=later(1)), later(1))
    for evidence in (admitted(), admit(OFFICE, NETWORK, WORKER.peer, WORKERS, later(2), days=9)):
        with pytest.raises(Forbidden):
            book.judge(WORKER.peer, evidence, later(2))


def test_with_a_delegate_everything_it_signed_is_revoked() -> None:
    book = Book(NETWORK)
    book.learn(revoking(DELEGATE.peer), NOW)
    with pytest.raises(Forbidden):
        book.judge(WORKER.peer, admitted(deputy()), NOW)


def test_a_delegate_revokes_what_it_admitted_and_nobody_elses() -> None:
    book = Book(NETWORK)
    book.learn(revoking(WORKER.peer, office=deputy()), NOW)
    assert book.judge(WORKER.peer, admitted(), NOW) == WORKERS
    with pytest.raises(Forbidden):
        book.judge(WORKER.peer, admitted(deputy()), NOW)


def test_a_lower_number_never_replaces_a_higher_one_and_is_said_to_be_old() -> None:
    book, first = Book(NETWORK), revoking()
    second = revise(OFFICE, NETWORK, open_sealed(Revocations, Domain.REVOCATIONS, first).payload, NOW, [WORKER.peer])
    assert [book.learn(data, NOW) for data in (first, first, second, second)] == [True, False, True, False]
    with pytest.raises(Replayed, match="an old list"):
        book.learn(first, NOW)
    assert book.revoked() == {WORKER.peer}


def test_two_lists_of_one_number_cannot_both_count() -> None:
    book = Book(NETWORK)
    book.learn(revoking(WORKER.peer), NOW)
    with pytest.raises(Replayed):
        book.learn(revoking(), NOW)


def test_a_list_made_from_a_copy_of_the_past_is_still_newer() -> None:
    past = open_sealed(Revocations, Domain.REVOCATIONS, revoking(now=later(-9))).payload
    current = open_sealed(Revocations, Domain.REVOCATIONS, revoking(WORKER.peer)).payload
    again = open_sealed(Revocations, Domain.REVOCATIONS, revise(OFFICE, NETWORK, past, later(1), [])).payload
    assert again.sequence > current.sequence


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (lambda: revoking(office=Office(STRANGER)), Unauthenticated),
        (lambda: revoking(network=OPEN), Unauthenticated),
        (lambda: revoking(now=later(1)), Expired),
        (lambda: revoking(office=deputy(days=0)), Expired),
        (lambda: seal(ROOT, Domain.REVOCATIONS, Revocations(NETWORK.net, -1, NOW, (), b"")), Malformed),
        (lambda: seal(ROOT, Domain.REVOCATIONS, Revocations(NETWORK.net, 1, NOW, tuple(
            Revoked(PeerId(n.to_bytes(32, "big")), 1) for n in range(limits.REVOCATIONS_MAX + 1)), b"")), Oversize),
    ],
    ids=["a stranger's", "another network's", "from the future", "of no delegate", "a number below", "too many"],
)  # fmt: skip
def test_a_list_that_does_not_hold_is_refused(data: Callable[[], bytes], error: type[HaifError]) -> None:
    book = Book(NETWORK)
    with pytest.raises(error):
        book.learn(data(), NOW)
    assert not book.lists()


def test_a_full_list_fits_into_one_piece_of_evidence_and_a_fuller_one_is_not_signed() -> None:
    peers = [PeerId(n.to_bytes(32, "big")) for n in range(limits.REVOCATIONS_MAX)]
    full = revoking(*peers, office=deputy())
    assert Book(NETWORK).learn(full, NOW)
    last = open_sealed(Revocations, Domain.REVOCATIONS, full).payload
    with pytest.raises(OverQuota):
        revise(OFFICE, NETWORK, last, NOW, [WORKER.peer])
    much_later = WallTime(NOW + limits.ADMISSION_TTL_MS_MAX)
    renewed = open_sealed(Revocations, Domain.REVOCATIONS, revise(OFFICE, NETWORK, last, much_later, [WORKER.peer]))
    assert [entry.peer for entry in renewed.payload.revoked] == [WORKER.peer]


def test_only_so_many_issuers_lists_are_kept_but_a_roots_always() -> None:
    book = Book(NETWORK)
    for number in range(limits.NETWORK_LISTS_MAX):
        issuer = Identity(bytes([number + 50]) * 32)
        book.learn(revoking(office=Office(issuer, delegate(OFFICE, NETWORK, issuer.peer, WORKERS, NOW, 9))), NOW)
    with pytest.raises(OverQuota):
        book.learn(revoking(office=deputy()), NOW)
    assert book.learn(revoking(WORKER.peer), NOW)


def test_what_another_lacks_is_told_by_numbers() -> None:
    book, data = Book(NETWORK), revoking(WORKER.peer)
    book.learn(data, NOW)
    sequence = book.lists()[0].payload.sequence
    assert book.newer({}) == book.newer({ROOT.peer: sequence - 1}) == [data]
    assert book.newer({ROOT.peer: sequence}) == book.newer({ROOT.peer: sequence + 1}) == []


def test_roots_that_have_been_silent_for_long_are_told() -> None:
    book = Book(NETWORK)
    assert book.stale(NOW)
    book.learn(revoking(), NOW)
    assert [book.stale(NOW), book.stale(later(29)), book.stale(later(31))] == [False, False, True]
    assert not Book(open_network("a")).stale(NOW)


def test_a_second_root_that_never_speaks_is_no_reason_to_worry() -> None:
    network = Network("acme", closed=True, roots=tuple(sorted((ROOT.peer, STRANGER.peer))))
    book = Book(network)
    book.learn(revoking(network=network), NOW)
    assert not book.stale(NOW)
