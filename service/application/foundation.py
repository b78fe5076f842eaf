"""What every use case stands on: opened as one needs another, closed the other way round."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from resight.bundle.calibration import Calibration
from service.access.revocations import Revocations
from service.application.archives import Archives
from service.application.data_directory import DataDirectory
from service.application.encoders import EncoderLoader, Encoders
from service.application.erasure_replay import open_ledger
from service.application.galleries import Galleries
from service.application.image_removal import ImageRemoval
from service.application.index_keeper import IndexKeeper
from service.application.replication import Replication
from service.application.retention import Retention
from service.application.serving import LoadedEncoder
from service.blobs import open_blob_store
from service.bundles import BundleShelf
from service.catalog import gallery_reads, gallery_writes, registry
from service.catalog.store import Catalog
from service.domain.names import DEFAULT_GALLERY
from service.domain.ports import BlobStore, Clock, Embedder
from service.erasure_ledger import ErasureLedger
from service.gallery.backend import index_factory
from service.gallery.search_threads import SearchThreads
from service.preflight.clock import refuse_wrong_clock
from service.settings import ServiceSettings

__all__ = ["Foundation", "open_foundation"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Foundation:
    """Opened resources; ``encoders`` run on ``loop``, ``embedder`` is the one given at start.
    The blob store refused to remove an image (``images_refused``): the others were not tried.
    """

    catalog: Catalog
    galleries: Galleries
    index_files: IndexKeeper
    blobs: BlobStore
    ledger: ErasureLedger
    retention: Retention
    replication: Replication
    shelf: BundleShelf
    archives: Archives
    encoders: Encoders
    embedder: Embedder
    clock: Clock
    loop: asyncio.AbstractEventLoop
    images_refused: bool
    _opened: ExitStack

    def close(self) -> None:
        """Commit what was submitted, then let everything go. Blocking."""
        self._opened.close()


def open_foundation(
    settings: ServiceSettings,
    *,
    embedder: Embedder,
    clock: Clock,
    calibrations: Mapping[str, Calibration],
    load_encoder: EncoderLoader,
    loop: asyncio.AbstractEventLoop,
) -> Foundation:
    """Open catalog and blob store, erase and drop what must go, load every index. Blocking.

    Raises:
        FailedPrecondition: the data directory is in use, the schema does not fit, the clock is
            wrong, or the catalog holds vectors of another model.
        InvalidArgument, Unavailable: catalog or blob store cannot be used.
    """
    with ExitStack() as opening:
        directory = DataDirectory(settings.data_dir)
        opening.callback(directory.close)
        loaded = {
            embedder.model_version: LoadedEncoder(
                embedder, calibrations.get(embedder.model_version)
            )
        }
        galleries = _galleries(settings, loaded, opening)
        # The catalog's last writes may be deletions, so the ledger closes after it.
        until_written = opening.enter_context(ExitStack())
        catalog = Catalog(
            settings.resolved_database_url(),
            clock=clock,
            inserted=galleries.inserted,
            read_threads=settings.catalog.read_threads,
            max_group=settings.catalog.max_group,
            max_pending=settings.catalog.max_pending_writes,
            auto_upgrade=settings.catalog.auto_upgrade,
        )
        opening.callback(catalog.close)
        # Before anything acts on the time.
        catalog.read_now(refuse_wrong_clock, settings, clock.now())
        blobs = open_blob_store(settings.resolved_blob_url())
        ledger = open_ledger(settings, catalog, clock)
        until_written.callback(ledger.close)
        Revocations(settings.resolved_erasures_dir()).replay(catalog, clock)
        retention = Retention(
            catalog=catalog,
            galleries=galleries,
            blobs=blobs,
            clock=clock,
            settings=settings.retention,
        )
        retention.drop_expired()
        _adopt_model(catalog, settings, embedder, clock)
        index_files = IndexKeeper(
            settings.data_dir / "index",
            catalog=catalog,
            galleries=galleries,
            segment_rows=settings.index.segment_rows,
            changes=settings.index.changes_per_write,
        )
        opening.callback(index_files.close)
        shelf = BundleShelf(settings.data_dir / "bundles")
        if orphans := shelf.sweep(catalog.read_now(registry.shelved)):
            logger.warning("bundles: removed %d archives of no model", orphans)
        archives = Archives(shelf, blobs)
        encoders = Encoders(loaded, catalog=catalog, archives=archives, load=load_encoder)
        asyncio.run_coroutine_threadsafe(encoders.load_all(), loop).result()
        galleries.drop_others(catalog)
        galleries.load(catalog, index_files.fill)
        # What the store refuses is tried again while it serves.
        image_removal = ImageRemoval(catalog=catalog, blobs=blobs, clock=clock)
        image_removal.remove(patience=1)
        # After the indexes were filled, which may take long: who is known is waited for.
        replication = Replication(
            catalog,
            galleries,
            settings.replicas,
            database_url=settings.resolved_database_url(),
            data_dir=settings.data_dir,
        )
        opening.callback(replication.close)
        replication.start()
        return Foundation(
            catalog=catalog,
            galleries=galleries,
            index_files=index_files,
            blobs=blobs,
            ledger=ledger,
            retention=retention,
            replication=replication,
            shelf=shelf,
            archives=archives,
            encoders=encoders,
            embedder=embedder,
            clock=clock,
            loop=loop,
            images_refused=image_removal.was_refused,
            _opened=opening.pop_all(),
        )


def _galleries(
    settings: ServiceSettings, loaded: dict[str, LoadedEncoder], opening: ExitStack
) -> Galleries:
    threads = SearchThreads(settings.search.threads or len(os.sched_getaffinity(0)))
    opening.callback(threads.close)
    make_index = index_factory(
        settings.index.backend,
        gather_rows=settings.search.gather_rows,
        segment_rows=settings.index.segment_rows,
        threads=threads,
        milvus=settings.milvus,
        gpu=settings.gpu,
    )
    return Galleries(loaded, make_index=make_index)


def _adopt_model(
    catalog: Catalog, settings: ServiceSettings, embedder: Embedder, clock: Clock
) -> None:
    """Make the encoder's model the live one everywhere, and see that ``default`` exists."""
    names = {record.name for record in catalog.read_now(gallery_reads.all_galleries)}
    for name in sorted(names | {DEFAULT_GALLERY}):
        ensure = partial(
            gallery_writes.ensure_gallery,
            name=name,
            model_version=embedder.model_version,
            dimension=embedder.dimension,
            now=clock.now(),
            max_galleries=settings.limits.max_galleries,
        )
        catalog.writer.change(ensure).result()
