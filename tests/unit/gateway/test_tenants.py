"""Keys are shown once, kept as hashes, known at once and gone within seconds."""

from pathlib import Path

import pytest

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import InvalidRequest, Overloaded, Reason, Unauthenticated
from haif.gateway.allowance import over_quota
from haif.gateway.directory import Directory
from haif.gateway.errors import AddressRefused, EndpointDenied, KeyExpired, KeyRevoked
from haif.gateway.service.live import LiveDirectory
from haif.gateway.service.tenants import TENANTS_SCHEMA, TenantStore, open_store, tenant_key
from haif.gateway.tenants import (
    Absent,
    Key,
    Scope,
    Tenant,
    bearer,
    check_scope,
    check_tenant,
    hash_of,
    id_of,
    new_key,
)
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
    assert directory(KEY).grant_of(TEXT).tenant == ACME
    for wrong in (new_key(lambda n: b"x" * n), TEXT[:-1] + "A", ""):
        with pytest.raises(Unauthenticated) as caught:
            directory(KEY).grant_of(wrong)
        assert caught.value.reason is Reason.UNAUTHENTICATED


def test_a_revoked_key_says_so() -> None:
    revoked = Key(KEY.id, ACME, KEY.hash, WallTime(1), revoked=True)
    with pytest.raises(KeyRevoked):
        directory(revoked).grant_of(TEXT)


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
    assert [known.allowance(ACME, now).take(now).allowed for _ in range(3)] == [True, True, False]
    assert known.allowance(other, now).take(now).allowed
    known.load([KEY])
    refused = known.allowance(ACME, now).take(now)
    assert not refused.allowed
    assert over_quota(ACME, refused).retry_after == 1.0
    wider = known.allowance(Tenant("acme", 60, 5), Instant(now + 1))  # a new limit starts from the level there is
    assert wider.take(Instant(now + 1)).allowed


def test_a_key_is_good_for_what_it_was_made_for_and_nothing_else() -> None:
    tenant = Tenant("acme", 60, 2, models=("tiny", "small"))
    scope = check_scope(Scope(("tiny", "large"), ("embeddings",), ("192.0.2.0/24", "2001:db8::/32")))
    grant = directory(Key(KEY.id, tenant, KEY.hash, WallTime(1), False, scope, WallTime(100))).grant_of(TEXT)
    for source in ("192.0.2.9", "2001:db8::1", "::ffff:192.0.2.1"):
        grant.check("embeddings", source, WallTime(99))
    grant.check("models", "192.0.2.9", WallTime(99))  # what there is may be asked with any key
    for refusal, endpoint, source, at in (
        (KeyExpired, "embeddings", "192.0.2.9", 100), (AddressRefused, "embeddings", "192.0.3.1", 99),
        (AddressRefused, "embeddings", None, 99), (AddressRefused, "embeddings", "2001:db9::1", 99),
        (EndpointDenied, "chat.completions", "192.0.2.9", 99),
    ):  # fmt: skip
        with pytest.raises(refusal):
            grant.check(endpoint, source, WallTime(at))
    assert [name for name in ("tiny", "small", "large") if grant.allows(name)] == ["tiny"]


@pytest.mark.parametrize(
    "scope", [Scope(endpoints=("admin",)), Scope(networks=("192.0.2.1/24",)), Scope(networks=("office",)),
              Scope(models=("",)), Scope(models=("a,b",)), Scope(models=("m",) * 65), Scope(networks=("::1",) * 65)],
)  # fmt: skip
def test_a_scope_that_cannot_be_is_refused(scope: Scope) -> None:
    with pytest.raises(InvalidRequest):
        check_scope(scope)


@pytest.mark.parametrize(
    "tenant", [Tenant("", 1, 1), Tenant("-x", 1, 1), Tenant("a b", 1, 1), Tenant("a" * 65, 1, 1), Tenant("a", 0, 1),
               Tenant("a", 1, 0), Tenant("a", 10**9, 1), Tenant("a\n", 1, 1),
               Tenant("a", 1, 1, "padded"), Tenant("a", 1, 1, service="first"), Tenant("a", 1, 1, weight=0),
               Tenant("a", 1, 1, weight=101), Tenant("a", 1, 1, tpm=-1), Tenant("a", 1, 1, budget=10**16),
               Tenant("a", 1, 1, models=("",))],
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
        second, _ = await store.add_key("acme")
        await store.change(Tenant("acme", 5, 5, "full", "batch", 7))
        assert {key.tenant for key in await store.keys()} == {Tenant("acme", 5, 5, "full", "batch", 7)}
        with pytest.raises(InvalidRequest, match="haif key create acme"):
            await store.create(ACME)
        assert await store.revoke(first.id) == [first.id]
        assert await store.revoke("acme") == [second.id]
        assert await store.revoke("acme") == []
        for nobody in (store.revoke("nobody"), store.add_key("nobody"), store.change(Tenant("nobody", 1, 1))):
            with pytest.raises(Absent, match="tenant ls"):
                await nobody


async def test_there_is_an_end_to_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TENANT_KEYS_MAX", 1)
    async with open_store(tmp_path) as store:
        await store.create(ACME)
        with pytest.raises(Overloaded) as caught:
            await store.add_key("acme")
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
        assert (await live.grant_of(text)).tenant == ACME
        await store.revoke("acme")
        assert (await live.grant_of(text)).tenant == ACME  # not heard of yet
        clock.at += limits.TENANT_STALE_SECONDS + 0.001
        assert limits.TENANT_STALE_SECONDS < 5
        with pytest.raises(KeyRevoked):
            await live.grant_of(text)


async def test_a_new_key_takes_the_place_of_an_old_one_that_works_a_while_longer(tmp_path: Path) -> None:
    clock, scope = StillClock(), Scope(("tiny",), ("embeddings",), ("192.0.2.0/24",))
    async with Database(tmp_path / "tenants.sqlite", TENANTS_SCHEMA) as database:
        store, live = TenantStore(database, clock=clock, entropy=entropy), LiveDirectory(database, clock)
        old, old_text = await store.create(ACME, scope, WallTime(clock.wall() + 1_000_000))
        new, text = await store.rotate(old.id, 60_000)
        assert (new.scope, new.expires, new.id != old.id) == (scope, old.expires, True)
        assert (await live.grant_of(text)).tenant == ACME
        grant = await live.grant_of(old_text)
        grant.check("embeddings", "192.0.2.1", clock.wall())
        with pytest.raises(KeyExpired):
            grant.check("embeddings", "192.0.2.1", WallTime(clock.wall() + 61_000))
        last, _ = await store.rotate(new.id, 0)
        await live.refresh()
        with pytest.raises(KeyRevoked):
            await live.grant_of(text)
        for over in (new.id, "key-nothing"):
            with pytest.raises(Absent):
                await store.rotate(over, 0)
        with pytest.raises(InvalidRequest, match="later than now"):
            await store.add_key("acme", expires=WallTime(1))
        assert {key.id: key.state(clock.wall()) for key in await store.keys()}[last.id] == "live"


async def test_a_key_that_is_long_over_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(tmp_path) as store:
        await store.create(ACME)
        await store.revoke("acme")
        monkeypatch.setattr(limits, "TENANT_KEYS_KEPT_MS", -1)
        new, _ = await store.add_key("acme")
        assert [key.id for key in await store.keys()] == [new.id]


async def test_a_key_is_known_and_a_limit_changed_everywhere_within_the_time_that_is_promised(tmp_path: Path) -> None:
    clock = StillClock()
    async with Database(tmp_path / "tenants.sqlite", TENANTS_SCHEMA) as database:
        gateways = [LiveDirectory(database, clock) for _ in range(3)]
        store = TenantStore(database, clock=clock, entropy=entropy)
        _, text = await store.create(ACME)
        for each in gateways:
            assert (await each.grant_of(text)).tenant.rpm == 60
        await store.change(Tenant("acme", 7, 2))
        clock.at += limits.TENANT_STALE_SECONDS + 0.001
        assert {(await each.grant_of(text)).tenant.rpm for each in gateways} == {7}
