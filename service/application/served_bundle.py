"""The bundle that a service was started with, kept like a registered one.

Once another model is promoted, the first one must be had without ``--bundle``: to go back to after
a restart, and on every replica.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from sqlalchemy import Connection

from resight.bundle import Bundle, open_bundle
from resight.bundle.archive import pack
from service.application.archives import Archives
from service.catalog import lifecycle_reads, registry
from service.catalog.records import GalleryRecord
from service.catalog.registry import Registration
from service.catalog.store import Catalog
from service.domain.model import GateVerdict

__all__ = ["ServedBundle"]

logger = logging.getLogger(__name__)


class ServedBundle:
    """Stores the served bundle beside a model that has no archive.

    Args:
        path: Folder or ``.tar``; None when the service was started without one.
        catalog: Names archives.
        archives: Where they go.
    """

    def __init__(self, path: Path | None, *, catalog: Catalog, archives: Archives) -> None:
        self._path = path
        self._catalog = catalog
        self._archives = archives

    async def keep(self, record: GalleryRecord) -> None:
        """Store it for this model of a gallery, unless it is another one or has its archive.

        Raises:
            BundleCorrupt, OSError: it cannot be read any more, or the archive not be written.
        """
        path = self._path
        stored = await self._catalog.read(lifecycle_reads.archive_digest, record.model_row)
        if path is None or stored is not None:
            return
        bundle = await asyncio.to_thread(open_bundle, path, golden=False)
        if bundle.model_version != record.model_version:
            return
        sha256, size = await asyncio.to_thread(self._shelved, path, record.name)
        await self._archives.share(record.name, sha256)
        item = _registration(bundle, sha256, size)

        def apply(connection: Connection) -> None:
            if lifecycle_reads.archive_digest(connection, record.model_row) is None:
                registry.store_bundle(connection, record.model_row, item, run_row=None)

        await self._catalog.change(apply)
        logger.info("gallery %s: the served bundle is kept for model %s", record.name, item.version)

    def _shelved(self, path: Path, gallery: str) -> tuple[bytes, int]:
        with tempfile.TemporaryDirectory() as folder:
            archive = path
            if path.is_dir():
                archive = Path(folder) / "bundle.tar"
                pack(path, archive)
            return self._archives.shelve(gallery, archive)


def _registration(bundle: Bundle, sha256: bytes, size: int) -> Registration:
    provenance = bundle.manifest.provenance
    return Registration(
        version=bundle.model_version,
        dimension=bundle.dimension,
        sha256=sha256,
        size_bytes=size,
        manifest=bundle.manifest.SerializeToString(deterministic=True),
        parent_version=provenance.parent_version[:128],
        method=provenance.method[:64],
        gate=GateVerdict(),
    )
