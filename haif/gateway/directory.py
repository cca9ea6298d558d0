"""The keys that are known, what each is good for, and each tenant's allowance, ready for the next request."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from haif.base.clock import Instant, WallTime
from haif.base.errors import Forbidden, Unauthenticated
from haif.base.ids import Digest
from haif.gateway.allowance import Allowance
from haif.gateway.errors import AddressRefused, EndpointDenied, KeyExpired, KeyRevoked
from haif.gateway.tenants import SCOPED_ENDPOINTS, WRONG_KEY, Key, Tenant, hash_of


@dataclass(frozen=True, slots=True)
class Grant:
    """What whoever shows a key may do; None: everything of that kind. `key_id` is empty for a tenant without one."""

    tenant: Tenant
    key_id: str = ""
    models: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    expires: WallTime | None = None
    limited: bool = False  # whether `check` has anything to look at

    def check(self, endpoint: str, source: str | None, now: WallTime) -> None:
        """Return if it may be used now, for that, and from there.

        Raises `KeyExpired`, `AddressRefused` or `EndpointDenied`.
        """
        if self.expires is not None and now >= self.expires:
            raise KeyExpired("this API key has expired; ask the operator for a new one")
        if self.networks is not None and not (source and self._comes_from(source)):
            raise AddressRefused(f"this API key may not be used from {source}; ask the operator to add that address")
        if self.endpoints is not None and endpoint in SCOPED_ENDPOINTS and endpoint not in self.endpoints:
            raise EndpointDenied(f"this API key is for {', '.join(sorted(self.endpoints))} only, not for {endpoint}")

    def check_model(self, model: str) -> None:
        """Return if this model may be used. Raises `Forbidden`."""
        if not self.allows(model):
            whose = "API key" if self.key_id and model in (self.tenant.models or (model,)) else "tenant"
            raise Forbidden(f"this {whose} may not use the model {model!r}; /v1/models lists those it may",
                            param="model")  # fmt: skip

    def allows(self, model: str) -> bool:
        """Whether this model may be used."""
        return self.models is None or model in self.models

    def _comes_from(self, source: str) -> bool:
        address = ip_address(source.partition("%")[0])
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks or ())


def grant_of(key: Key) -> Grant:
    """What a key is good for."""
    scope = key.scope
    return Grant(
        key.tenant, key.id, _models(key.tenant.models, scope.models), frozenset(scope.endpoints) or None,
        tuple(map(ip_network, scope.networks)) or None, key.expires,
        limited=bool(scope.endpoints or scope.networks or key.expires is not None),
    )  # fmt: skip


def _models(*allowed: tuple[str, ...]) -> frozenset[str] | None:
    named = [frozenset(each) for each in allowed if each]
    return frozenset.intersection(*named) if named else None


class Directory:
    """Bounded by `limits.TENANT_KEYS_MAX`."""

    def __init__(self) -> None:
        self._keys: dict[bytes, tuple[Key, Grant]] = {}
        self._tenants: dict[str, Grant] = {}  # of those with a key that works
        self.allowances: dict[str, Allowance] = {}

    def load(self, keys: Iterable[Key]) -> None:
        """From now on these are the keys. Allowances of tenants that stay keep their level."""
        self._keys = {bytes(key.hash): (key, grant_of(key)) for key in keys}
        known = {key.tenant.name: key.tenant for key, _ in self._keys.values()}
        self._tenants = {
            key.tenant.name: Grant(key.tenant, models=_models(key.tenant.models))
            for key, _ in self._keys.values()
            if not key.revoked
        }
        self.allowances = {
            name: each for name, each in self.allowances.items() if name in known or each.purse or each.open
        }

    def grant_of(self, key: str) -> Grant:
        """What this key is good for. Raises `Unauthenticated`, or `KeyRevoked` for a key that was good once.

        The time this takes tells nothing about the keys: what is looked up is a hash that the sender cannot steer
        towards another, and the comparison is constant-time.
        """
        wanted = hash_of(key)
        found = self._keys.get(bytes(wanted))
        if not hmac.compare_digest(wanted, found[0].hash if found else bytes(Digest.size)) or found is None:
            raise Unauthenticated(WRONG_KEY)
        if found[0].revoked:
            raise KeyRevoked("this API key was revoked; ask the operator for a new one")
        return found[1]

    def named(self, name: str) -> Grant:
        """What the tenant of this name may do, while it has a key that works. Raises `Unauthenticated`."""
        grant = self._tenants.get(name)
        if grant is None:
            raise Unauthenticated(f"no key of {name} works any more")
        return grant

    def allowance(self, tenant: Tenant, now: Instant) -> Allowance:
        """What this tenant may still ask for."""
        found = self.allowances.get(tenant.name)
        if found is None:
            found = self.allowances[tenant.name] = Allowance(tenant, now)
        elif found.tenant is not tenant:
            found.adapt(tenant, now)
        return found

    def __len__(self) -> int:
        return len(self._keys)
