"""The keyring: identities on disk, each a file of 64 hex digits that only its owner may read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from haif.base.errors import Misuse
from haif.identity.keys import SEED_BYTES, Identity
from haif.runtime import disk


class Keyring:
    """Identities by name, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The file that holds, or would hold, this identity."""
        return self.folder / f"{name}.key"

    def load(self, name: str) -> Identity:
        """The identity of that name.

        Raises `Misuse` when there is none, when the file can be read by others, or when it is not a key.
        """
        path = self.path(name)
        try:
            text = disk.read_private(path)
        except FileNotFoundError:
            raise Misuse(f"there is no key {path}. Make one with: haif keys new {name}") from None
        try:
            return Identity(bytes.fromhex(text.decode().strip()))
        except (ValueError, UnicodeDecodeError):
            raise Misuse(f"{path} does not hold a key of {2 * SEED_BYTES} hex digits; restore it from a copy") from None

    def create(self, name: str, entropy: Callable[[int], bytes]) -> Identity:
        """A new identity under that name. Raises `Misuse` when one is there: a key is never overwritten."""
        if self.path(name).exists():
            raise Misuse(f"{self.path(name)} is there already. HAIF never overwrites a key; choose another name")
        identity = Identity(entropy(SEED_BYTES))
        disk.write_private(self.path(name), identity.seed().hex().encode() + b"\n")
        return identity

    def load_or_create(self, name: str, entropy: Callable[[int], bytes]) -> Identity:
        """The identity of that name, made on first use."""
        return self.load(name) if self.path(name).exists() else self.create(name, entropy)

    def names(self) -> list[str]:
        """The names of all keys here, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.key"))


class Memory:
    """The file in which a process leaves for the next one what its `Voice` remembers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self) -> bytes | None:
        """What the last process left, if it ended in order; it is gone from the disk when this returns."""
        try:
            content = disk.read_private(self.path)
        except FileNotFoundError:
            return None
        disk.remove(self.path)
        return content

    def leave(self, content: bytes) -> None:
        """Leave this for the next process."""
        disk.write_private(self.path, content)
