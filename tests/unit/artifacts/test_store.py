"""A model is its bytes; a manifest is somebody's word for them."""

import hashlib
from pathlib import Path

import blake3
import gguf as gguf_writer
import pytest

from haif.artifacts.manifest import Manifest, open_manifest, publish
from haif.artifacts.service import ModelStore
from haif.base.adapters import Adapted
from haif.base.clock import Instant, WallTime
from haif.base.errors import BadSignature, Expired, HaifError, Misuse, Reason, UnknownModel
from haif.base.ids import Digest, ModelDigest
from haif.identity.keys import Identity
from tests.support.tiny_model import build_tiny_model
from tools.random_adapter import random_adapter

PUBLISHER, STRANGER = Identity(b"p" * 32), Identity(b"q" * 32)
NOW = WallTime(1_700_000_000_000)
MANIFEST = Manifest("tiny", ModelDigest(b"m" * 32), Digest(b"s" * 32), 4, "MIT", NOW, NOW + 1000)


class At:
    def now(self) -> Instant:
        return Instant(0)

    def wall(self) -> WallTime:
        return NOW


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "some.gguf", layers=1, width=64, feed_forward=64)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models", publishers=[PUBLISHER.peer], clock=At())


def put(store: ModelStore, file: Path, name: str = "tiny", publisher: Identity = PUBLISHER):
    return store.add(file, name=name, license_name="MIT", publisher=publisher, progress=lambda done, total: None)


def test_an_added_model_is_found_by_name_and_by_digest(store: ModelStore, gguf: Path) -> None:
    added = put(store, gguf)
    content = gguf.read_bytes()
    assert added.digest == blake3.blake3(content).digest()
    assert added.manifest.payload.sha256 == hashlib.sha256(content).digest()
    assert added.manifest.payload.size == len(content)
    assert store.find("tiny") == store.find(str(added.digest)) == added
    assert added.path.read_bytes() == content


def test_adding_twice_changes_nothing(store: ModelStore, gguf: Path) -> None:
    assert put(store, gguf) == put(store, gguf)


def test_only_a_gguf_can_be_added(store: ModelStore, tmp_path: Path) -> None:
    other = tmp_path / "model.bin"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(Misuse, match="not a GGUF"):
        put(store, other)
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(Misuse, match=r"damaged\.gguf is not a GGUF model .*: at byte 8, version 0"):
        put(store, damaged)
    with pytest.raises(Misuse, match="cannot be read"):
        put(store, tmp_path / "nothing.gguf")


@pytest.mark.parametrize("name", ["", "UPPER", "../up", "a b", "x" * 65, "-x"])
def test_names_are_plain(store: ModelStore, gguf: Path, name: str) -> None:
    with pytest.raises(Misuse, match="cannot name a model"):
        put(store, gguf, name)


def test_an_unknown_model_names_those_there_are(store: ModelStore, gguf: Path) -> None:
    put(store, gguf)
    with pytest.raises(UnknownModel, match="tiny") as caught:
        store.find("huge")
    assert caught.value.reason is Reason.UNKNOWN_MODEL


def test_a_strangers_manifest_is_left_out_and_reported(store: ModelStore, gguf: Path) -> None:
    with pytest.raises(BadSignature, match="not a trusted publisher"):
        put(store, gguf, publisher=STRANGER)
    assert "tiny" not in [model.name for model in store.models()]
    assert [type(error) for _, error in store.rejected()] == [BadSignature]


def test_a_changed_manifest_is_left_out(store: ModelStore, gguf: Path) -> None:
    path = put(store, gguf).path.with_suffix(".manifest")
    evidence = bytearray(path.read_bytes())
    evidence[-1] ^= 1
    path.write_bytes(evidence)
    assert "tiny" not in [model.name for model in store.models()]
    assert len(store.rejected()) == 1


def test_an_expired_manifest_is_refused() -> None:
    evidence = publish(PUBLISHER, MANIFEST)
    assert open_manifest(evidence, publishers=[PUBLISHER.peer], now=NOW).payload == MANIFEST
    with pytest.raises(Expired):
        open_manifest(evidence, publishers=[PUBLISHER.peer], now=WallTime(NOW + 1000))


def test_no_bit_of_a_manifest_can_change() -> None:
    evidence = publish(PUBLISHER, MANIFEST)
    for bit in range(8 * len(evidence)):
        changed = bytearray(evidence)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HaifError):
            open_manifest(bytes(changed), publishers=[PUBLISHER.peer], now=NOW)


@pytest.fixture
def adapter(gguf: Path, tmp_path: Path) -> Path:
    return random_adapter(gguf, tmp_path / "adapter.gguf")


def put_on(store: ModelStore, file: Path, base: str | None, name: str = "tuned"):
    return store.add(file, name=name, license_name="MIT", publisher=PUBLISHER, progress=lambda *_: None, base=base)


def test_an_adapter_is_a_model_of_its_own_named_by_both_digests(store: ModelStore, gguf: Path, adapter: Path) -> None:
    base, added = put(store, gguf), put_on(store, adapter, "tiny")
    assert Adapted(base.digest, Digest(blake3.blake3(adapter.read_bytes()).digest())) == added.adapted
    assert added.adapted is not None
    assert added.adapted.model == added.digest != base.digest
    assert store.find("tuned") == store.find(str(added.digest)) == added == put_on(store, adapter, str(base.digest))
    assert (base, base) == (store.base_of(added), store.base_of(base))
    assert {"tiny", "tuned"} <= {model.name for model in store.models()}


def test_the_same_adapter_on_two_models_is_two_models(store: ModelStore, gguf: Path, adapter: Path, tmp_path: Path):
    put(store, gguf)
    put(store, build_tiny_model(tmp_path / "other.gguf", layers=1, width=64, feed_forward=64, seed=9), "other")
    one, other = put_on(store, adapter, "tiny"), put_on(store, adapter, "other", "elsewhere")
    assert one.digest != other.digest
    assert one.path.read_bytes() == other.path.read_bytes()
    assert {one, other} <= set(store.models())


def test_an_adapter_is_added_for_a_model_that_is_here_and_fits(
    store: ModelStore, gguf: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(Misuse, match="is an adapter: say which model it belongs to with --base"):
        put(store, adapter)
    with pytest.raises(UnknownModel, match="no model 'tiny'"):
        put_on(store, adapter, "tiny")
    put(store, gguf)
    with pytest.raises(Misuse, match="is no adapter: leave out --base"):
        put_on(store, gguf, "tiny")
    put(store, build_tiny_model(tmp_path / "wide.gguf", layers=1, width=128, feed_forward=64), "wide")
    with pytest.raises(Misuse, match=r"adapter\.gguf is not an adapter that can be served: .* for another model"):
        put_on(store, adapter, "wide")
    put_on(store, adapter, "tiny")
    with pytest.raises(Misuse, match="tuned is an adapter itself"):
        put_on(store, adapter, "tuned", "twice")


def test_an_adapter_without_its_base_says_which_one_is_missing(
    store: ModelStore, gguf: Path, adapter: Path, tmp_path: Path
) -> None:
    base, added = put(store, gguf), put_on(store, adapter, "tiny")
    base.path.unlink()
    with pytest.raises(UnknownModel, match=f"tuned is an adapter, and .* not here: {base.digest}"):
        store.base_of(added)


def test_what_is_neither_model_nor_adapter_is_refused(store: ModelStore, tmp_path: Path) -> None:
    writer = gguf_writer.GGUFWriter(str(tmp_path / "clip.gguf"), "clip")
    writer.add_type("mmproj")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(Misuse, match=r"general\.type is 'mmproj'"):
        put(store, tmp_path / "clip.gguf")
