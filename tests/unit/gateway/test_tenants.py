"""Keys are shown once, kept as hashes, known at once and gone within seconds."""

from pathlib import Path

import pytest

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import InvalidRequest, Overloaded, Reason, Unauthenticated
from haif.gateway.errors import KeyRevoked
from haif.gateway.service.tenants import TENANTS_SCHEMA, LiveDirectory, TenantStore, open_store, tenant_key
from haif.gateway.tenants import Directory, Key, Tenant, bearer, check_tenant, hash_of, id_of, new_key, over_quota
from haif.runtime.clock import SystemClock, entropy
from haif.storage.service import Database

ACME = Tenant("acme", 60, 2)
TEXT = new_key(lambda n: b"k" * n)
KEY = Key(id_of(hash_of(TEXT)), ACME, hash_of(TEXT), WallTime(1), revoked=False)


class StillClock(SystemClock):
    """A clock that a test moves."""

    at = 1000.0

    def now(self) -> Instant:
        return Instant(self.at)


def directory(*keys: Key) -> Directory:
    known = Directory()
    known.load(keys)
    return known


def test_a_key_has_256_bits_and_its_hash_is_golden() -> None:
    assert TEXT == "haif-a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s"
    assert id_of(hash_of(TEXT)) == KEY.id
    assert hash_of(TEXT) != hash_of(new_key(lambda n: b"l" * n))


def test_a_known_key_names_its_tenant_and_any_other_nobody() -> None:
    assert directory(KEY).tenant_of(TEXT) == ACME
    for wrong in (new_key(lambda n: b"x" * n), TEXT[:-1] + "A", ""):
        with pytest.raises(Unauthenticated) as caught:
            directory(KEY).tenant_of(wrong)
        assert caught.value.reason is Reason.UNAUTHENTICATED


def test_a_revoked_key_says_so() -> None:
    revoked = Key(KEY.id, ACME, KEY.hash, WallTime(1), revoked=True)
    with pytest.raises(KeyRevoked):
        directory(revoked).tenant_of(TEXT)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", f"Basic {TEXT}", "Bearer sk-other", TEXT]
)
def test_a_header_without_a_key_of_ours_is_refused(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        bearer(header)


def test_a_bearer_key_is_read() -> None:
    assert bearer(f"Bearer {TEXT}") == TEXT == bearer(f"bearer  {TEXT} ")


def test_tenants_do_not_share_a_bucket_and_keep_theirs_when_keys_change() -> None:
    other = Tenant("other", 60, 2)
    known, now = directory(KEY), Instant(5.0)
    assert [known.take(ACME, now).allowed for _ in range(3)] == [True, True, False]
    assert known.take(other, now).allowed
    known.load([KEY])
    refused = known.take(ACME, now)
    assert not refused.allowed
    assert over_quota(ACME, refused).retry_after == 1.0
    assert known.take(Tenant("acme", 60, 5), Instant(now + 1)).allowed  # a new limit starts from the level there is


@pytest.mark.parametrize(
    "tenant", [Tenant("", 1, 1), Tenant("-x", 1, 1), Tenant("a b", 1, 1), Tenant("a" * 65, 1, 1), Tenant("a", 0, 1),
               Tenant("a", 1, 0), Tenant("a", 10**9, 1), Tenant("a\n", 1, 1),
               Tenant("a", 1, 1, "padded"), Tenant("a", 1, 1, service="first"), Tenant("a", 1, 1, weight=0),
               Tenant("a", 1, 1, weight=101)],
)  # fmt: skip
def test_a_tenant_that_cannot_be_is_refused(tenant: Tenant) -> None:
    with pytest.raises(InvalidRequest):
        check_tenant(tenant)


async def test_keys_are_kept_as_hashes_only(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        key, text = await store.create(ACME)
        assert [key] == await store.keys()
    files = [path.read_bytes() for path in (tmp_path / "gateway").iterdir()]
    assert any(bytes(key.hash) in content for content in files)
    assert all(text.encode() not in content and text[5:].encode() not in content for content in files)


async def test_a_tenant_may_have_several_keys_and_lose_one_or_all(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        first, _ = await store.create(ACME)
        second, _ = await store.create(Tenant("acme", 5, 5, "full", "batch", 7))
        assert {key.tenant for key in await store.keys()} == {Tenant("acme", 5, 5, "full", "batch", 7)}
        assert await store.revoke(first.id) == [first.id]
        assert await store.revoke("acme") == [second.id]
        assert await store.revoke("acme") == []
        with pytest.raises(InvalidRequest, match="tenant ls"):
            await store.revoke("nobody")


async def test_there_is_an_end_to_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TENANT_KEYS_MAX", 1)
    async with open_store(tmp_path) as store:
        await store.create(ACME)
        with pytest.raises(Overloaded) as caught:
            await store.create(ACME)
        assert caught.value.reason is Reason.OVERLOADED


async def test_a_key_that_works_is_kept_and_one_that_does_not_replaced(tmp_path: Path) -> None:
    first = await tenant_key(tmp_path, "local", None)
    assert await tenant_key(tmp_path, "local", first) == first
    assert await tenant_key(tmp_path, "other", first) != first
    async with open_store(tmp_path) as store:
        await store.revoke("local")
    assert await tenant_key(tmp_path, "local", first) != first


async def test_a_gateway_hears_of_new_keys_at_once_and_of_revoked_ones_within_the_limit(tmp_path: Path) -> None:
    clock = StillClock()
    async with Database(tmp_path / "tenants.sqlite", TENANTS_SCHEMA) as database:
        live, store = LiveDirectory(database, clock), TenantStore(database, clock=clock, entropy=entropy)
        await live.refresh()
        _, text = await store.create(ACME)
        clock.at += 0.001
        assert await live.tenant_of(text) == ACME
        await store.revoke("acme")
        assert await live.tenant_of(text) == ACME  # not heard of yet
        clock.at += limits.TENANT_STALE_SECONDS + 0.001
        assert limits.TENANT_STALE_SECONDS < 5
        with pytest.raises(KeyRevoked):
            await live.tenant_of(text)
