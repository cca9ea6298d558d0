"""TLS 1.3 in front of tenants: certificate, key and client authorities from files, read again when they change.

A context is never changed, only replaced: a handshake that has begun ends under the one it began with, an open
connection goes on, and a new one gets the newest that could be made. So a broken file costs a warning, and no tenant.
Authorities that were taken out of the file let nobody in any more: neither certificates nor resumed sessions of theirs
fit the new context.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from haif.base import limits
from haif.base.errors import Misuse

_log = logging.getLogger(__name__)
_HTTP: Final = ["http/1.1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files. With `client_ca`, only who has a certificate of an authority in it is answered (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def all(self) -> tuple[Path, ...]:
        """Those that are there to be read."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)


class Tls:
    """What connections are encrypted with from now on: `context`, and until when it is good: `not_after`, in Unix time.

    Raises `Misuse` for files that will not do.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = _marks(files)
        self.context, self.not_after = make_context(files), _not_after(files)

    def look(self) -> bool:
        """Read the files again if one of them is another than the last that was looked at. Whether they were taken."""
        marks = _marks(self._files)
        return marks != self._seen and self.reload()

    def reload(self) -> bool:
        """Read the files again. Whether they were taken; if not, what there was stays, and the log says why."""
        self._seen = _marks(self._files)  # before they are read: what changes meanwhile is looked at again
        try:
            self.context, self.not_after = make_context(self._files), _not_after(self._files)
        except Misuse as error:
            _log.warning("the certificate in use stays: %s", error)
            return False
        _log.info("the certificate %s was read again and is used from now on", self._files.certificate)
        return True

    async def watch(self) -> None:
        """Look every `limits.TLS_LOOK_SECONDS`, until cancelled."""
        while True:
            await asyncio.sleep(limits.TLS_LOOK_SECONDS)
            self.look()


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3 and nothing older, with what is in these files now. Raises `Misuse` naming the file."""
    _check_private(files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(_HTTP)
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")  # never ask the terminal
    except (OSError, ValueError) as error:
        raise Misuse(
            f"{files.certificate} and {files.key} are no certificate and its unencrypted key, in PEM: {_said(error)}"
        ) from None
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.client_ca)
        except (OSError, ValueError) as error:
            raise Misuse(f"{files.client_ca} holds no certificate of an authority, in PEM: {_said(error)}") from None
    return context


def expires(certificate: Path) -> datetime:
    """Until when the first certificate of a PEM file holds. Raises `Misuse` if there is none."""
    try:
        return x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc
    except (OSError, ValueError) as error:
        raise Misuse(f"{certificate} holds no certificate, in PEM: {_said(error)}") from None


def _not_after(files: TlsFiles) -> float:
    """Until when all that is shown, and whom it is shown to, holds."""
    shown = (path for path in (files.certificate, files.client_ca) if path is not None)
    return min(expires(path).timestamp() for path in shown)


def _check_private(key: Path) -> None:
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
    except OSError as error:
        raise Misuse(f"{key} cannot be read: {_said(error)}") from None
    if mode & 0o007:
        raise Misuse(f"{key} can be read by every user of this machine (mode {mode:04o}); run: chmod 600 {key}")


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _marks(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """What tells one state of the files from another; None for one that is not there."""
    return tuple(map(_mark, files.all()))


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
