"""The contacts a node keeps in a file for its next life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from haif.base import limits
from haif.base.errors import Dropped, PeerFault
from haif.dht.contact import Contact, pack_contacts, unpack_contacts
from haif.runtime import disk


class ContactsFile:
    """A file of contacts, or none: then nothing is kept."""

    def __init__(self, path: Path | None, on_dropped: Callable[[Dropped], None]) -> None:
        self._path, self._on_dropped = path, on_dropped

    async def read(self) -> list[Contact]:
        """What was kept; a file that does not parse is reported and left alone, for it can only save us a bootstrap."""
        return [] if self._path is None else await asyncio.to_thread(self._read, self._path)

    async def write(self, contacts: Sequence[Contact]) -> None:
        """Keep these; nobody is no reason to forget those that were kept."""
        if self._path is not None and contacts:
            data = pack_contacts(contacts, limits.DHT_CONTACTS_KEPT_BYTES_MAX)
            with suppress(OSError):  # a full disk is no reason to leave the network, or to fail while leaving it
                await asyncio.to_thread(disk.write_private, self._path, data)

    def _read(self, path: Path) -> list[Contact]:
        try:
            with path.open("rb") as file:
                data = file.read(limits.DHT_CONTACTS_KEPT_BYTES_MAX + 1)
            return unpack_contacts(data, limits.DHT_CONTACTS_KEPT_MAX)
        except FileNotFoundError:
            return []
        except PeerFault as fault:
            self._on_dropped(Dropped(fault.reason, None, f"{path}: {fault.message}"))
            return []
