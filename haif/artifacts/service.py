"""The model store: files by digest, each with the manifest somebody signed for it.

    <folder>/<digest>.gguf       the model (a hard link to the file that was added, or a copy), or an adapter
    <folder>/<digest>.manifest   the sealed manifest

The demo model comes with the package and is found like any other. Of a model's bytes only the header is parsed here, by
a strict and bounded reader that refuses what cannot be; llama.cpp opens a model in the engine child's jail, after the
digest of the opened file was compared with its manifest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import blake3

from haif.artifacts.adapter import check_adapter, is_adapter
from haif.artifacts.gguf import Header, Value, read_header
from haif.artifacts.manifest import Manifest, check_name, open_manifest, publish
from haif.artifacts.shape import shape_of
from haif.base.adapters import Adapted
from haif.base.clock import Clock
from haif.base.errors import HaifError, Malformed, Misuse, UnknownModel
from haif.base.ids import Digest, ModelDigest, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Verified
from haif.runtime import disk

DEMO_FOLDER: Final = Path(__file__).parents[1] / "data" / "demo"
DEMO_PUBLISHER: Final = PeerId.parse("60534ef0be928db864109d7b1fe9960ba922fa8087007af8a19acac20d3b3d68")
DEMO_NAME: Final = "haif-demo"
_BLOCK_BYTES: Final = 4 << 20
_HEADER_READ_BYTES: Final = 1 << 20
_YEAR_MS: Final = 365 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model on disk whose manifest verified. The file's bytes are still to be compared with the digest."""

    manifest: Verified[Manifest]
    path: Path

    @property
    def name(self) -> str:
        """What people call it."""
        return self.manifest.payload.name

    @property
    def digest(self) -> ModelDigest:
        """What HAIF calls it."""
        return self.manifest.payload.served

    @property
    def adapted(self) -> Adapted | None:
        """For an adapter: its base and itself, by the digests of their files."""
        return self.manifest.payload.adapted


class ModelStore:
    """The models of one machine. `publishers` are those whose manifests count, besides the demo's."""

    def __init__(self, folder: Path, *, publishers: Collection[PeerId], clock: Clock) -> None:
        self._folder = folder
        self._publishers = frozenset(publishers) | {DEMO_PUBLISHER}
        self._clock = clock

    def models(self) -> list[StoredModel]:
        """Every model whose manifest verifies, by name. Files whose manifest does not are left out."""
        return sorted(self._stored(), key=lambda model: (model.name, -model.manifest.payload.published))

    def rejected(self) -> list[tuple[Path, HaifError]]:
        """Manifests that do not verify, with the reason, for `haif doctor` and `haif model ls`."""
        found: list[tuple[Path, HaifError]] = []
        for path in self._manifests():
            try:
                self._open(path)
            except HaifError as error:
                found.append((path, error))
        return found

    def find(self, name: str) -> StoredModel:
        """The model of that name (the latest published) or digest. Raises `UnknownModel` naming those there are."""
        models = self.models()
        for model in models:
            if name in (model.name, str(model.digest)):
                return model
        known = ", ".join(sorted({model.name for model in models})) or "none"
        raise UnknownModel(f"there is no model {name!r} here (known: {known}). Add one with: haif model add FILE.gguf")

    def base_of(self, model: StoredModel) -> StoredModel:
        """The model that an adapter belongs to; any other is its own. Raises `UnknownModel` if it is not here."""
        if model.adapted is None:
            return model
        try:
            return self.find(str(model.adapted.base))
        except UnknownModel:
            raise UnknownModel(
                f"{model.name} is an adapter, and the model it belongs to is not here: {model.adapted.base}"
            ) from None

    def add(
        self, file: Path, *, name: str, license_name: str, publisher: Identity, progress: Callable[[int, int], None],
        base: str | None = None,
    ) -> StoredModel:  # fmt: skip
        """Hash a GGUF, sign its manifest and keep both. `progress(done, total)` in bytes.

        `base`: name or digest of the model that an adapter belongs to. Adding the same file again under the same name
        changes nothing. Raises `Misuse` for what cannot be added, `UnknownModel` for a base that is not here.
        """
        check_name(name)
        below = None if base is None else self.find(base)
        if below is not None and below.adapted is not None:
            raise Misuse(f"{below.name} is an adapter itself: give the model that both belong to")
        try:
            check_header(file, None if below is None else below.path)
        except Malformed as fault:
            raise Misuse(f"{file} is {fault.message}; it was not added") from None
        model, sha256, size = hash_file(file, progress)
        now = self._clock.wall()
        statement = Manifest(
            name, model, sha256, size, license_name, now, now + _YEAR_MS, None if below is None else below.digest
        )
        for known in self.models():
            if (known.name, known.digest) == (name, statement.served):
                return known
        target = disk.private_folder(self._folder) / f"{statement.served}.gguf"
        if not target.exists():
            _link_or_copy(file, target)
        manifest = target.with_suffix(".manifest")
        disk.write_private(manifest, publish(publisher, statement))
        return self._open(manifest)

    def _stored(self) -> Iterator[StoredModel]:
        for path in self._manifests():
            try:
                yield self._open(path)
            except HaifError:
                continue  # reported by `rejected`

    def _manifests(self) -> list[Path]:
        return [*sorted(self._folder.glob("*.manifest")), *sorted(DEMO_FOLDER.glob("*.manifest"))]

    def _open(self, path: Path) -> StoredModel:
        verified = open_manifest(path.read_bytes(), publishers=self._publishers, now=self._clock.wall())
        model = path.with_suffix(".gguf")
        if not model.exists():
            raise UnknownModel(f"{path.name} has no model file beside it")
        return StoredModel(verified, model)


def header_of(model: StoredModel) -> tuple[Mapping[str, Value], int]:
    """The metadata of a model's file, and its size. Raises `Malformed`, or `Misuse` for no readable file."""
    try:
        with model.path.open("rb", buffering=_HEADER_READ_BYTES) as file:
            size = os.fstat(file.fileno()).st_size
            return read_header(file, size).metadata, size
    except OSError as error:
        raise Misuse(f"{model.path} cannot be read: {error.strerror}") from None


def hash_file(file: Path, progress: Callable[[int, int], None]) -> tuple[ModelDigest, Digest, int]:
    """BLAKE3, SHA-256 and size of a file, read once. Raises `Misuse` if it cannot be read."""
    try:
        with file.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            ours, theirs, done = blake3.blake3(), hashlib.sha256(), 0
            while block := source.read(_BLOCK_BYTES):
                ours.update(block)
                theirs.update(block)
                done += len(block)
                progress(done, size)
    except OSError as error:
        raise Misuse(f"{file} cannot be read: {error.strerror}") from None
    return ModelDigest(ours.digest()), Digest(theirs.digest()), size


def check_header(file: Path, base: Path | None = None) -> None:
    """Return if the file's header is that of a model; or, with `base`, of an adapter for the model in that file.

    Raises `Malformed`, or `Misuse` if a file cannot be read or is not of the kind it is given as.
    """
    header = _header(file)
    if base is not None:
        if not is_adapter(header):
            raise Misuse(f"{file} is no adapter: leave out --base")
        check_adapter(header, _header(base))
        return
    if is_adapter(header):
        raise Misuse(f"{file} is an adapter: say which model it belongs to with --base MODEL")
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise Malformed(f"not a model that can be served: its general.type is {str(kind)[:40]!r}")
    shape_of(header)


def _header(file: Path) -> Header:
    try:
        with file.open("rb", buffering=_HEADER_READ_BYTES) as source:
            return read_header(source, os.fstat(source.fileno()).st_size)
    except OSError as error:
        raise Misuse(f"{file} cannot be read: {error.strerror}") from None


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file.resolve(), target)
    except OSError:  # another file system, or one without hard links
        temporary = target.with_suffix(".part")
        shutil.copyfile(file, temporary)
        temporary.replace(target)
