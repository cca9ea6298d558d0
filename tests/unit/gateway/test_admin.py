"""Operators ask on a listener of their own, with keys of their own, and undo nobody's change unseen."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import InvalidRequest, Overloaded, Reason, Unauthenticated
from haif.gateway.admin import admin_bearer, new_admin_key
from haif.gateway.errors import KeyExpired, KeyRevoked
from haif.gateway.service import TENANTS_SCHEMA, AdminStore
from haif.gateway.tenants import Absent, Tenant
from haif.runtime.clock import SystemClock, entropy
from haif.storage.service import Database
from tests.support.scripted_mesh import ScriptedMesh
from tests.unit.gateway.conftest import House, open_house


@dataclass
class Office:
    """A house with an admin API, and who may use it."""

    house: House
    admins: AdminStore
    key: str
    http: httpx.AsyncClient

    async def ask(self, method: str, path: str, body: Any = None, *, key: str = "", **headers: str) -> httpx.Response:
        sent = {"authorization": f"Bearer {key or self.key}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        content = None if body is None else json.dumps(body)
        return await self.http.request(method, f"/admin/v1/{path}", content=content, headers=sent)


@pytest.fixture
async def office(tmp_path: Path, mesh: ScriptedMesh) -> AsyncIterator[Office]:
    async with open_house(tmp_path, mesh, admin=("127.0.0.1", 0)) as house:
        admins = AdminStore(house.store._database, clock=SystemClock(), entropy=entropy)
        host, port = house.front.admin_address or ("", 0)
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as http:
            yield Office(house, admins, await admins.create("ann", read_only=False), http)


async def test_a_tenant_is_made_shown_changed_and_listed(office: Office) -> None:
    made = await office.ask("POST", "tenants", {"name": "new", "rpm": 30, "models": ["tiny"]})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    key = made.json()["key"]["key"]
    asked = await office.house.http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert [model["id"] for model in asked.json()["data"]] == ["tiny"]
    shown = await office.ask("GET", "tenants/new")
    assert (shown.json()["rpm"], shown.json()["drawn"], shown.headers["etag"]) == (30, 0, made.headers["etag"])
    changed = await office.ask("PATCH", "tenants/new", {"budget": 5}, if_match=shown.headers["etag"])
    assert (changed.json()["rpm"], changed.json()["budget"], changed.json()["models"]) == (30, 5, ["tiny"])
    first = (await office.ask("GET", "tenants?limit=1")).json()
    second = (await office.ask("GET", f"tenants?limit=1&after={first['next']}")).json()
    assert ([each["name"] for each in (*first["data"], *second["data"])], second["next"]) == (["acme", "new"], None)


async def test_a_change_names_the_version_it_changes(office: Office) -> None:
    version = (await office.ask("GET", "tenants/acme")).headers["etag"]
    without = await office.ask("PATCH", "tenants/acme", {"rpm": 1})
    assert (without.status_code, without.json()["code"]) == (428, "version_required")
    assert (await office.ask("PATCH", "tenants/acme", {"rpm": 1}, if_match=version)).status_code == 200
    stale = await office.ask("PATCH", "tenants/acme", {"rpm": 2}, if_match=version)
    assert (stale.status_code, stale.json()["code"]) == (412, "version_changed")
    assert (await office.house.store.tenant("acme")).rpm == 1


async def test_of_two_changes_of_one_version_one_is_taken(office: Office) -> None:
    store, before = office.house.store, await office.house.store.tenant("acme")
    await store.change(Tenant("acme", 1, 1), before)
    with pytest.raises(Exception, match="changed meanwhile") as caught:
        await store.change(Tenant("acme", 2, 2), before)
    assert caught.value.reason is Reason.CONFLICT  # type: ignore[attr-defined]


async def test_keys_are_made_listed_rotated_and_revoked(office: Office) -> None:
    body = {"tenant": "acme", "models": ["tiny"], "networks": ["192.0.2.0/24"], "expires_in_ms": 60_000}
    made = (await office.ask("POST", "keys", body)).json()
    assert (made["models"], made["state"], made["expires"] - made["created"] >= 59_000) == (["tiny"], "live", True)
    new = (await office.ask("POST", f"keys/{made['id']}/rotate", {"grace_ms": 1000})).json()
    assert (new["networks"], new["id"] != made["id"]) == (["192.0.2.0/24"], True)
    assert (await office.ask("DELETE", f"keys/{new['id']}")).json() == {"revoked": [new["id"]]}
    listed = (await office.ask("GET", "keys?tenant=acme")).json()["data"]
    assert {each["id"]: each["state"] for each in listed}[new["id"]] == "revoked"
    assert not any("key" in each for each in listed)
    assert (await office.ask("GET", "keys?tenant=nobody")).json()["data"] == []


async def test_what_was_used_is_told(office: Office) -> None:
    answer = await office.house.chat()
    await office.house.counted('haif_gateway_tokens_out_total{model="tiny"} 2.0')
    await office.house.front._treasury.write()
    (used,) = (await office.ask("GET", "usage?tenant=acme")).json()["data"]
    assert used["prompt_tokens"] + used["completion_tokens"] == answer.usage.total_tokens
    assert (await office.ask("GET", "usage?month=2020-01")).json() == {"data": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "nothing", None, 404, "not_found"), ("GET", "tenants/nobody", None, 404, "not_found"),
        ("PUT", "tenants", {}, 405, "method_not_allowed"), ("POST", "tenants", {}, 400, "invalid_json"),
        ("POST", "tenants", {"name": "x", "more": 1}, 400, "invalid_json"),
        ("POST", "tenants", {"name": "a b"}, 400, "invalid_value"),
        ("POST", "tenants", {"name": "acme"}, 400, "invalid_value"),
        ("POST", "tenants", {"name": "x", "rpm": 0}, 400, "invalid_value"),
        ("GET", "tenants?limit=0", None, 400, "invalid_value"), ("GET", "tenants?limit=x", None, 400, "invalid_value"),
        ("GET", "tenants?page=2", None, 400, "invalid_value"), ("GET", "usage?month=2026", None, 400, "invalid_value"),
        ("POST", "keys", {"tenant": "nobody"}, 404, "not_found"),
        ("POST", "keys", {"tenant": "acme", "endpoints": ["admin"]}, 400, "invalid_value"),
        ("POST", "keys/key-nothing/rotate", {}, 404, "not_found"), ("DELETE", "keys/acme", None, 404, "not_found"),
        ("DELETE", "keys/key-nothing", None, 404, "not_found"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_a_problem_with_its_code(
    office: Office, method: str, path: str, body: Any, status: int, code: str
) -> None:
    told = await office.ask(method, path, body)
    assert (told.status_code, told.headers["content-type"]) == (status, "application/problem+json")
    problem = told.json()
    assert (problem["status"], problem["code"], problem["instance"][:4]) == (status, code, "adm_")
    assert problem["detail"]


async def test_nobody_is_let_in_without_an_admin_key_and_tenants_keys_are_none(office: Office) -> None:
    revoked = await office.admins.create("ben", read_only=False)
    await office.admins.revoke("ben")
    old = await office.admins.create("old", read_only=False, expires=WallTime(1))
    for key, code in (
        (office.house.key, "invalid_api_key"), ("nothing", "invalid_api_key"), (revoked, "revoked_api_key"),
        (old, "expired_api_key"), (new_admin_key(entropy), "invalid_api_key"),
    ):  # fmt: skip
        told = await office.ask("GET", "tenants", key=key)
        assert (told.status_code, told.json()["code"]) == (401, code)
    asked = await office.house.http.get("/v1/models", headers={"authorization": f"Bearer {office.key}"})
    assert asked.status_code == 401  # nor is an admin's key a tenant's


async def test_who_may_only_look_changes_nothing(office: Office) -> None:
    looks = await office.admins.create("eve", read_only=True)
    assert (await office.ask("GET", "tenants", key=looks)).status_code == 200
    told = await office.ask("POST", "tenants", {"name": "x"}, key=looks)
    assert (told.status_code, told.json()["code"]) == (403, "read_only")
    told = await office.ask("POST", "tenants", {"name": "x"}, idempotency_key="k")
    assert (told.status_code, told.json()["param"]) == (400, "Idempotency-Key")


async def test_the_two_listeners_know_nothing_of_each_other(office: Office) -> None:
    sent = {"authorization": f"Bearer {office.key}"}
    assert (await office.house.http.get("/admin/v1/tenants", headers=sent)).status_code == 404
    assert (await office.http.get("/v1/models", headers=sent)).status_code == 404
    host, port = office.house.front.admin_address or ("", 0)
    with pytest.raises(InvalidStatus):
        async with connect(f"ws://{host}:{port}/haif/v1/socket"):
            pass


async def test_a_gateway_has_no_admin_api_unless_it_was_asked_for(house: House) -> None:
    assert house.front.admin_address is None


# --- the keys ---------------------------------------------------------------------------------------------------------


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_admin_keys_are_kept_as_hashes_and_a_name_may_be_given_again_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Database(tmp_path / "tenants.sqlite", TENANTS_SCHEMA) as database:
        store = AdminStore(database, clock=SystemClock(), entropy=entropy)
        text = await store.create("ann", read_only=True)
        assert (await store.whose(text)).read_only
        for refused in (store.create("ann", read_only=False), store.create("a b", read_only=False)):
            with pytest.raises(InvalidRequest):
                await refused
        await store.revoke("ann")
        with pytest.raises(KeyRevoked):
            await store.whose(text)
        await store.create("ann", read_only=False)
        with pytest.raises(Unauthenticated):
            await store.whose(text)
        with pytest.raises(Absent):
            await store.revoke("nobody")
        with pytest.raises(KeyExpired):
            await store.whose(await store.create("old", read_only=False, expires=WallTime(1)))
        monkeypatch.setattr(limits, "ADMINS_MAX", 2)
        with pytest.raises(Overloaded) as caught:
            await store.create("ben", read_only=False)
        assert caught.value.reason is Reason.OVERLOADED
    assert text.encode() not in everything_in(tmp_path)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer haif-" + "a" * 43, "Basic haif-admin-" + "a" * 43])
def test_a_header_without_an_admin_key_is_refused(header: str) -> None:
    with pytest.raises(Unauthenticated):
        admin_bearer(header)
