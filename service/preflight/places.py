"""The places that settings name: folders that can be written, stores that take and give back."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from resight.errors import FailedPrecondition, ResightError
from service.audit.anchors import open_anchors
from service.blobs import open_blob_store
from service.settings import ServiceSettings
from service.signing import open_signing_key

__all__ = [
    "refuse_full_disk",
    "refuse_locked_data_dir",
    "refuse_unusable_anchors",
    "refuse_unusable_blobs",
    "refuse_unusable_key",
    "refuse_unwritable_data_dir",
]

# With less not even the catalog's journal can be begun.
MIN_FREE_BYTES = 1024 * 1024


def refuse_full_disk(settings: ServiceSettings) -> None:
    """See that there is room where the data directory is, or will be.

    Raises:
        FailedPrecondition: there is none.
    """
    above = _existing(settings.data_dir.absolute())
    with suppress(OSError):
        found = os.statvfs(above)
        free = found.f_bavail * found.f_frsize
        if free < MIN_FREE_BYTES:
            raise FailedPrecondition(
                f"data_dir {settings.data_dir}: its disk is full ({free} bytes are left, "
                f"{MIN_FREE_BYTES} are needed to start); make room, or choose another with --data",
                field="data_dir",
                reason="DISK_FULL",
            )


def refuse_unwritable_data_dir(settings: ServiceSettings) -> None:
    """See that the data directory can be made and written; makes nothing.

    Raises:
        FailedPrecondition: it cannot.
    """
    path = settings.data_dir.absolute()
    if fault := _write_fault(path):
        raise FailedPrecondition(
            f"data_dir {path} cannot be written ({fault}); give this user the right to, or choose "
            "another with --data",
            field="data_dir",
        )


def refuse_locked_data_dir(settings: ServiceSettings) -> None:
    """See that no process uses the data directory.

    Raises:
        FailedPrecondition: one does.
    """
    path = settings.data_dir.absolute()
    lock = path / "lock"
    if not lock.exists():
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise FailedPrecondition(
                f"data_dir {path} is in use by process {file.read(20).decode().strip()}; stop it, "
                "or choose another directory with --data",
                field="data_dir",
                reason="DATA_DIRECTORY_IN_USE",
            ) from error


def refuse_unusable_blobs(settings: ServiceSettings) -> None:
    """Where images are kept elsewhere, store, read and remove a few bytes there.

    Raises:
        InvalidArgument: the scheme is unknown or its package is missing.
        FailedPrecondition: it does not do these.
    """
    url = settings.resolved_blob_url()
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        _refuse_unwritable(Path(unquote(parts.path)).absolute(), "blob_url")
        return
    key, data = f"start-{secrets.token_hex(8)}", b"can be removed"
    try:
        store = open_blob_store(url)
        store.put(key, data)
        same = store.get(key) == data
        store.delete(key)
    except ResightError:
        raise
    except Exception as error:  # whatever a driver raises
        raise _no_place("blob_url", url, _text(error)) from error
    if not same:
        raise _no_place("blob_url", url, "it gives back other bytes than it was given")


def refuse_unusable_anchors(settings: ServiceSettings, *, remote: bool) -> None:
    """See that checkpoints can be copied to ``audit.anchor_url``.

    Args:
        settings: Of the service.
        remote: Whether to ask a store that is not a folder. A start does not: copies are made
            later, and tried again.

    Raises:
        InvalidArgument: the URL names nothing that fsspec knows.
        FailedPrecondition: it cannot be used.
    """
    url = settings.audit.anchor_url
    if url is None:
        return
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        _refuse_unwritable(Path(unquote(parts.path)).absolute(), "audit.anchor_url")
        return
    try:
        store = open_anchors(url)
        if remote:
            next(iter(store.all()), None)
    except ResightError:
        raise
    except Exception as error:  # whatever a driver raises
        raise _no_place("audit.anchor_url", url, _text(error)) from error


def refuse_unusable_key(settings: ServiceSettings) -> None:
    """Read the signing key that is named; one in the data directory is made by the start.

    Raises:
        InvalidArgument: it is none.
    """
    if settings.audit.signing_key_file is not None:
        open_signing_key(settings.audit.signing_key_file, settings.data_dir)


def _existing(path: Path) -> Path:
    return next((each for each in (path, *path.parents) if each.exists()), path)


def _write_fault(folder: Path) -> str:
    """Why no file can be made there, or a folder where there is none; empty when one can."""
    above = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=above):
            return ""
    except OSError as error:
        return f"{above}: {error.strerror}"


def _refuse_unwritable(folder: Path, setting: str) -> None:
    if fault := _write_fault(folder):
        raise FailedPrecondition(
            f"{setting}: the folder {folder} cannot be written ({fault}); give this user the right "
            "to, or choose another folder",
            field=setting,
        )


def _no_place(setting: str, url: str, why: str) -> FailedPrecondition:
    place = urlsplit(url)
    return FailedPrecondition(
        f"{setting}: {place.scheme}://{place.hostname or ''}{place.path} cannot be used ({why}); "
        "see that it is there and that this service may write to it, or correct "
        f"RESIGHT_{setting.upper().replace('.', '__')}",
        field=setting,
    )


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
