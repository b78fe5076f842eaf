"""A snapshot restored: into nothing, whole or not at all.

Everything is verified before anything is written. Then a marker is left in the data directory, at
which every start refuses, until images, bundles and catalog are there and the erasure ledger has
been replayed. A restore that was killed is begun again.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from resight.durable import flush_folder
from resight.errors import FailedPrecondition, Unavailable
from service.application.data_directory import UNFINISHED_RESTORE, DataDirectory
from service.blobs import open_blob_store
from service.catalog import schema
from service.catalog.engine import unavailable
from service.domain.identifier import archive_key
from service.domain.ports import BlobStore
from service.erasure_ledger import erased_blobs
from service.settings import ServiceSettings
from service.snapshot import catalog_copy
from service.snapshot.container import SnapshotReader, opened
from service.snapshot.encoders import RestoredEncoders, restored_encoders
from service.snapshot.image_packs import check_list, unpack_images
from service.snapshot.manifest import CATALOG, IMAGE_LIST, Manifest, Told, damaged
from service.snapshot.target_database import fill_database, filled_part, not_empty, sqlite_file

__all__ = ["Restored", "restore"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored.

    Args:
        manifest: Of the snapshot.
        schema: What the catalog has now.
        images: Written to the blob store.
        erased: Crops that were erased after the snapshot was taken, and are erased again.
        encoders: Those that its galleries are served with.
    """

    manifest: Manifest
    schema: str
    images: int
    erased: int
    encoders: RestoredEncoders


def restore(
    settings: ServiceSettings,
    source: Path,
    *,
    told: Told = lambda *_: None,
    step: Callable[[str], None] = lambda _: None,
    written: Callable[[], None] = lambda: None,
) -> Restored:
    """Make the empty data directory, database and blob store hold what a snapshot holds.

    Args:
        settings: Those of the service that will serve it.
        source: A snapshot.
        told: Progress.
        step: Called between any two steps.
        written: Called when everything is there, while no start is let in yet; again by a restore
            that was killed after that.

    Raises:
        NotFound: there is no snapshot.
        DataLoss: it is damaged or incomplete.
        FailedPrecondition: it is newer than this code, the target is not empty or in use, or the
            erasure ledger is damaged.
        Unavailable: database or disk cannot be written.
    """
    with opened(source) as snapshot:
        _refuse_newer(snapshot)
        directory = DataDirectory(settings.data_dir, restoring=True)
        try:
            with _scratch(settings) as scratch:
                catalog = scratch / CATALOG
                _verify(snapshot, catalog, told)
                step("verified")
                return _restore(settings, snapshot, catalog, told, step, written)
        except OSError as error:
            raise Unavailable(
                f"the restore cannot go on ({error}); make room or mend the disk and begin again",
                field="data_dir",
                reason="RESTORE_UNWRITABLE",
            ) from error
        except SQLAlchemyError as error:
            raise unavailable(error) from error
        finally:
            directory.close()


def _restore(
    settings: ServiceSettings,
    snapshot: SnapshotReader,
    catalog: Path,
    told: Told,
    step: Callable[[str], None],
    written: Callable[[], None],
) -> Restored:
    erasures = settings.resolved_erasures_dir()
    erased = {blob for block in erased_blobs(erasures) for blob in block}
    token = _unfinished(settings.data_dir)
    if token is None:
        _refuse_filled(settings, images=snapshot.manifest.images is not None)
        blobs = open_blob_store(settings.resolved_blob_url())
        token = secrets.token_hex(16)
        _mark(settings.data_dir, token, str(snapshot.path))
    else:
        blobs = open_blob_store(settings.resolved_blob_url())
    step("marked")
    # Those of another catalog; in them lie the vectors of what was erased from it.
    shutil.rmtree(settings.data_dir / "index", ignore_errors=True)
    images = 0
    if snapshot.manifest.images is not None:
        images = unpack_images(snapshot, blobs, erased, told)
    step("images written")
    _write_bundles(settings.data_dir, snapshot, blobs, told)
    step("bundles written")
    again = fill_database(
        settings.resolved_database_url(),
        catalog,
        erasures=erasures,
        token=token,
        told=told,
        step=step,
    )
    step("catalog written")
    encoders = restored_encoders(settings.resolved_database_url(), snapshot.manifest.files)
    written()
    (settings.data_dir / UNFINISHED_RESTORE).unlink()
    flush_folder(settings.data_dir)
    return Restored(snapshot.manifest, schema.head_revision(), images, again, encoders)


def _refuse_newer(snapshot: SnapshotReader) -> None:
    manifest = snapshot.manifest
    if not schema.is_known(manifest.schema):
        raise FailedPrecondition(
            f"snapshot {snapshot.path} has schema {manifest.schema}, which this version of resight "
            "does not know; restore it with the version that made it, or a later one",
            field="snapshot",
            reason="SNAPSHOT_NEWER",
        )


def _verify(snapshot: SnapshotReader, catalog: Path, told: Told) -> None:
    """Compare every file with its digest and every table with its count."""
    manifest = snapshot.manifest
    needed = {CATALOG} if manifest.images is None else {CATALOG, IMAGE_LIST}
    for name in sorted(needed - manifest.files.keys()):
        raise damaged(snapshot.path, f"its manifest does not name {name}")
    for name in sorted(manifest.files):
        snapshot.verify(name, copy_to=catalog if name == CATALOG else None)
        told("files verified", 1)
    copied = create_engine(f"sqlite:///{catalog}")
    try:
        with copied.connect() as connection:
            answer = connection.execute(text("PRAGMA quick_check(1)")).scalar()
            if answer != "ok":
                raise damaged(snapshot.path, f"{CATALOG}: {answer}")
            found = schema.revision_of(connection), catalog_copy.row_counts(connection)
    except SQLAlchemyError as error:
        raise damaged(snapshot.path, f"{CATALOG} cannot be read") from error
    finally:
        copied.dispose()
    if found != (manifest.schema, dict(manifest.tables)):
        raise damaged(snapshot.path, f"{CATALOG} does not hold what the manifest says")
    if manifest.images is not None:
        check_list(snapshot, manifest.images)


def _unfinished(data: Path) -> str | None:
    """The token of a restore that was not finished, which may be begun again."""
    try:
        return str(json.loads((data / UNFINISHED_RESTORE).read_bytes())["token"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            f"{data / UNFINISHED_RESTORE} is damaged; empty the data directory (but for the "
            "erasure ledger) and the database, and begin again",
            field="data_dir",
            reason="RESTORE_NOT_FINISHED",
        ) from error


def _refuse_filled(settings: ServiceSettings, *, images: bool) -> None:
    """The target must be empty; nothing of it is made or changed by looking.

    A snapshot without images may be the catalog of a blob store that has survived.
    """
    data = settings.data_dir
    for path in (data / "bundle.tar", *sorted((data / "bundles").rglob("*.tar"))):
        if path.exists():
            raise not_empty(str(path))
    filled = filled_part(settings.resolved_database_url())
    if filled is not None:
        raise not_empty(filled)
    if images:
        blobs = open_blob_store(settings.resolved_blob_url(), beside=True)
        key = next(iter(blobs.keys()), None)
        if key is not None:
            raise not_empty(f"image {key} of the blob store")


def _mark(data: Path, token: str, source: str) -> None:
    half = data / f"{UNFINISHED_RESTORE}.writing"
    with half.open("w", encoding="utf-8") as file:
        json.dump({"token": token, "snapshot": source}, file)
        file.flush()
        os.fsync(file.fileno())
    half.rename(data / UNFINISHED_RESTORE)
    flush_folder(data)


def _write_bundles(data: Path, snapshot: SnapshotReader, blobs: BlobStore, told: Told) -> None:
    """Put the archives into the data directory, and registered ones where every replica looks."""
    for name in sorted(snapshot.manifest.files):
        if not name.endswith(".tar"):
            continue
        target = data / name
        _make_folder(target.parent)
        half = target.with_suffix(".restoring")
        snapshot.verify(name, copy_to=half)
        half.chmod(0o600)
        if name.startswith("bundles/"):
            archive = archive_key(target.parent.name, bytes.fromhex(target.stem))
            blobs.put(archive, half.read_bytes())
        half.rename(target)
        flush_folder(target.parent)
        told("bundles", 1)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700)
        flush_folder(folder.parent)


@contextmanager
def _scratch(settings: ServiceSettings) -> Iterator[Path]:
    """A folder on the disk that the catalog will be on, without what a killed restore left."""
    target = sqlite_file(settings.resolved_database_url())
    parent = settings.data_dir if target is None else target.absolute().parent
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left_behind in parent.glob(".restoring-*"):
        shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(prefix=".restoring-", dir=parent) as folder:
        yield Path(folder)
