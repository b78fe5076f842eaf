"""A snapshot taken, beside a running service or without one."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from resight.bundle import open_bundle
from resight.errors import FailedPrecondition, Unavailable
from service.blobs import open_blob_store
from service.catalog import schema
from service.catalog.engine import open_engine, unavailable
from service.domain.identifier import archive_key
from service.settings import ServiceSettings
from service.snapshot import catalog_copy
from service.snapshot.container import SnapshotWriter, writing
from service.snapshot.image_packs import pack_images
from service.snapshot.manifest import CATALOG, Manifest, Told
from service.snapshot.target_database import sqlite_file

__all__ = ["take"]


def take(
    settings: ServiceSettings,
    target: Path,
    *,
    images: bool,
    told: Told = lambda *_: None,
    step: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write everything that a service stores, as of one moment, to a folder or .tar.

    Nothing of the settings is in it, so no password is.

    Args:
        settings: Those of the service.
        target: Must not exist; a name that ends in ``.tar`` makes one file.
        images: Whether the crops' images are wanted, too.
        told: Progress.
        step: Called between any two steps.

    Raises:
        FailedPrecondition: the target exists, there is no catalog, or it is newer than this code.
        DataLoss: the catalog is damaged.
        Unavailable: the target cannot be written, or the database or blob store does not answer.
    """
    with writing(target, step=step) as writer:
        database = _copy_catalog(settings, writer.path(CATALOG), told)
        step("catalog copied")
        copied = create_engine(f"sqlite:///{writer.path(CATALOG)}")
        try:
            with copied.connect() as catalog:
                manifest = _described(catalog, database)
                bundles = _registered(catalog)
                counts = pack_images(settings, catalog, writer, told) if images else None
        finally:
            copied.dispose()
        writer.add(CATALOG)
        missing = _add_bundles(settings, bundles, writer, told)
        _add_served_bundle(settings, manifest, writer)
        manifest = replace(
            manifest, files=dict(writer.files), missing_bundles=missing, images=counts
        )
        writer.finish(manifest)
    return manifest


def _copy_catalog(settings: ServiceSettings, target: Path, told: Told) -> str:
    url = settings.resolved_database_url()
    source = sqlite_file(url)
    if source is not None and not source.is_file():
        raise FailedPrecondition(
            f"there is no catalog at {source}; name the service's data directory with --data",
            field="data_dir",
            reason="CATALOG_MISSING",
        )
    engine = open_engine(url, pool_size=1, writer=False)
    try:
        with engine.connect() as connection:
            revision = schema.revision_of(connection)
            if revision is not None and not schema.is_known(revision):
                raise FailedPrecondition(
                    f"the catalog's schema {revision} is newer than this version of resight; take "
                    "the snapshot with the version that serves it",
                    field="database_url",
                    reason="CATALOG_SCHEMA_NEWER",
                )
            if source is None:
                catalog_copy.copy_from_postgresql(connection, target, told)
    except SQLAlchemyError as error:
        raise unavailable(error) from error
    finally:
        engine.dispose()
    if source is not None:
        try:
            catalog_copy.copy_from_sqlite(source, target)
        except sqlite3.OperationalError as error:
            raise Unavailable(
                f"the catalog cannot be copied ({error}); make room where the snapshot goes, or "
                "try again later",
                field="output",
                reason="SNAPSHOT_UNWRITABLE",
            ) from error
    return engine.dialect.name


def _described(catalog: Connection, database: str) -> Manifest:
    galleries: dict[str, Mapping[str, Any]] = {}
    tables = catalog_copy.tables_of(catalog)
    theirs, crops, models = tables["galleries"].c, tables["crops"].c, tables["models"].c
    for row in catalog.execute(select(theirs.gallery_row, theirs.name, theirs.position)).all():
        counted = select(func.count()).where(crops.gallery_row == row.gallery_row)
        live = select(models.version).where(
            models.gallery_row == row.gallery_row, models.state == "live"
        )
        galleries[row.name] = {
            "crops": catalog.execute(counted).scalar_one(),
            "position": row.position,
            "live_model": catalog.execute(live).scalar() or "",
        }
    return Manifest(
        schema=schema.revision_of(catalog) or "",
        create_time=Manifest.now(),
        database=database,
        tables=catalog_copy.row_counts(catalog),
        galleries=galleries,
    )


def _registered(catalog: Connection) -> list[tuple[str, bytes]]:
    """Gallery and digest of every archive that the catalog names."""
    tables = catalog_copy.tables_of(catalog)
    if "model_bundles" not in tables:
        return []
    galleries, models, bundles = tables["galleries"], tables["models"], tables["model_bundles"]
    statement = (
        select(galleries.c.name, bundles.c.sha256)
        .join(models, models.c.gallery_row == galleries.c.gallery_row)
        .join(bundles, bundles.c.model_row == models.c.model_row)
        # The archive of a retired model is stored no more.
        .where(bundles.c.size_bytes > 0)
    )
    found = {(row.name, bytes(row.sha256)) for row in catalog.execute(statement)}
    return sorted(found)


def _add_bundles(
    settings: ServiceSettings, bundles: list[tuple[str, bytes]], writer: SnapshotWriter, told: Told
) -> list[str]:
    """Copy the archives that are whole; returns the names of the others."""
    missing = []
    for gallery, sha256 in bundles:
        name = f"bundles/{gallery}/{sha256.hex()}.tar"
        data = _archive(settings, gallery, sha256)
        if data is None:
            missing.append(name)
            continue
        writer.path(name).write_bytes(data)
        writer.add(name)
        told("bundles", 1)
    return missing


def _archive(settings: ServiceSettings, gallery: str, sha256: bytes) -> bytes | None:
    """A registered archive from this data directory, else from the blob store, where every replica
    finds it; None when neither has it whole.
    """
    blobs = open_blob_store(settings.resolved_blob_url(), beside=True)
    shelved = settings.data_dir / "bundles" / gallery / f"{sha256.hex()}.tar"
    for read in (shelved.read_bytes, partial(blobs.get, archive_key(gallery, sha256))):
        try:
            data = read()
        except (FileNotFoundError, KeyError):
            continue
        if hashlib.sha256(data).digest() == sha256:
            return data
    return None


def _add_served_bundle(
    settings: ServiceSettings, manifest: Manifest, writer: SnapshotWriter
) -> None:
    """The bundle that the service was started with, when a gallery lives by it."""
    if settings.bundle is None:
        return
    version = open_bundle(settings.bundle).manifest.model_version
    if version not in {gallery["live_model"] for gallery in manifest.galleries.values()}:
        return
    path = writer.path("bundle.tar")
    if settings.bundle.is_dir():
        with tarfile.open(path, "w") as archive:
            for file in sorted(settings.bundle.rglob("*")):
                if file.is_file():
                    archive.add(file, file.relative_to(settings.bundle).as_posix())
    else:
        shutil.copyfile(settings.bundle, path)
    writer.add("bundle.tar")
