"""The networks of a machine, on disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from haif.base import codec
from haif.base.clock import WallTime
from haif.base.errors import Expired, Misuse, PeerFault, Refusal
from haif.base.ids import PeerId
from haif.identity import admission
from haif.identity.admission import Admission, Book, Network, Revocations, open_network
from haif.identity.networks import Charter, check_charter, is_file, keepable, read_charter, read_invitation
from haif.identity.signing import Verified
from haif.runtime import disk


class Networks:
    """The networks of this machine: a folder each, with its charter, certificates, delegations and lists.

    What is signed is checked when it is used, not when it is read, and a list is never replaced by one with a lower
    number. The folder's files are its owner's alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """The names of all networks kept here, sorted."""
        return sorted(path.parent.name for path in self.folder.glob("*/charter"))

    def find(self, text: str, now: WallTime) -> Charter:
        """The network that a setting means: one kept here, one in a file (which is kept from now on), or the open one.

        Raises `Misuse` for a file that is no invitation, or contradicts what is kept here, and for what names nothing.
        """
        if is_file(text):
            return self.join(text, now)
        if keepable(text) and (self.folder / text / "charter").exists():
            try:
                return read_charter(disk.read_private(self.folder / text / "charter"))
            except PeerFault as error:
                raise Misuse(f"{self.folder / text}: {error.message}; join the network again") from None
        try:
            return check_charter(Charter(open_network(text), None))
        except PeerFault as error:
            raise Misuse(f"--network: {text[:80]!r} cannot name a network: {error.message}") from None

    def found(self, charter: Charter) -> None:
        """Keep a new network. Raises `Misuse` if one of this name is here."""
        name = check_charter(charter).network.name
        if name in self.names():
            raise Misuse(f"there is a network {name} already in {self.folder}; choose another name")
        self._write(charter.network, "charter", codec.encode_evidence(charter))

    def join(self, path: str, now: WallTime) -> Charter:
        """Take in an invitation: the network, and whatever in it is news here. Raises `Misuse`."""
        file = Path(path)
        if not file.exists():
            raise Misuse(f"there is no file {path}: give the one the network's owner gave you, or a network's name")
        if file.is_dir():
            raise Misuse(f"{path} is a folder; a network's owner gives a file (haif network admit)")
        invitation = read_invitation(disk.read_private(file))
        charter = invitation.charter
        network = charter.network
        if network.name in self.names():
            kept = self.find(network.name, now).network
            if kept != network:
                raise Misuse(
                    f"another network named {network.name} is here already, with other root keys; remove it first"
                )
        self._write(network, "charter", codec.encode_evidence(charter))
        try:
            for evidence in invitation.admissions:
                self.keep_admission(network, evidence, now)
            for evidence in invitation.delegations:
                self.keep_delegation(network, evidence, now)
            for evidence in invitation.revocations:
                with suppress(Expired):  # of a delegate whose time is over, as is that of all it signed
                    self.keep_list(network, evidence, now)
        except (PeerFault, Refusal) as error:
            raise Misuse(f"{path}: {error.message}") from None
        return charter

    def keep_admission(self, network: Network, evidence: bytes, now: WallTime) -> None:
        """Keep a certificate that holds, unless a younger one of its peer is here. Raises as `admission.read`."""
        statement = admission.read(evidence, network=network, now=now).admission.payload
        for kept in self.admissions(network, now):
            if kept.payload.peer == statement.peer and kept.payload.not_before > statement.not_before:
                return
        self._write(network, f"{statement.peer}.admission", evidence)

    def keep_delegation(self, network: Network, evidence: bytes, now: WallTime) -> None:
        """Keep a delegation that holds. Raises as `admission.read_delegation`."""
        statement = admission.read_delegation(evidence, network=network, now=now).payload
        self._write(network, f"{statement.peer}.delegation", evidence)

    def keep_list(self, network: Network, evidence: bytes, now: WallTime) -> None:
        """Keep a list, unless a newer one of its issuer is here. Raises as `admission.read_revocations`."""
        found = admission.read_revocations(evidence, network=network, now=now)
        kept = self.list_of(network, found.signer, now)
        if kept is not None and kept.sequence >= found.payload.sequence:
            return
        self._write(network, f"{found.signer}.revocations", evidence)

    def admission(self, network: Network, peer: PeerId) -> bytes:
        """A peer's certificate, whether it holds or not; empty if there is none."""
        return self._read(network, f"{peer}.admission")

    def delegation(self, network: Network, peer: PeerId) -> bytes:
        """The delegation of a peer; empty if there is none."""
        return self._read(network, f"{peer}.delegation")

    def admissions(self, network: Network, now: WallTime) -> list[Verified[Admission]]:
        """The certificates kept here that hold, but for revocations."""
        held: list[Verified[Admission]] = []
        for path in sorted(self._place(network).glob("*.admission")):
            with suppress(PeerFault, Refusal):
                held.append(admission.read(disk.read_private(path), network=network, now=now).admission)
        return held

    def list_of(self, network: Network, issuer: PeerId, now: WallTime) -> Revocations | None:
        """The list kept of an issuer, if there is one that holds."""
        with suppress(PeerFault, Refusal):
            return admission.read_revocations(
                self._read(network, f"{issuer}.revocations"), network=network, now=now
            ).payload
        return None

    def lists(self, network: Network) -> list[bytes]:
        """The lists of revocations kept here."""
        return [disk.read_private(path) for path in sorted(self._place(network).glob("*.revocations"))]

    def book(self, network: Network, now: WallTime, peer: PeerId | None = None) -> Book:
        """What is kept here of who may take part: the lists that hold, and this peer's certificate."""
        book = Book(network, b"" if peer is None else self.admission(network, peer))
        for evidence in self.lists(network):
            with suppress(PeerFault, Refusal):
                book.learn(evidence, now)
        return book

    def stamp(self, network: Network) -> int:
        """A number that changes when anything about the network is kept anew; 0 where nothing is."""
        try:
            return self._place(network).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _place(self, network: Network) -> Path:
        return self.folder / network.name

    def _read(self, network: Network, name: str) -> bytes:
        try:
            return disk.read_private(self._place(network) / name)
        except FileNotFoundError:
            return b""

    def _write(self, network: Network, name: str, content: bytes) -> None:
        disk.private_folder(self.folder)
        disk.write_private(self._place(network) / name, content)
