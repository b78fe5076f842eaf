"""The application: every use case over one catalog, one blob store and one encoder."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self

import faiss

from resight.bundle.calibration import Calibration
from service.application.adaptation import Adaptation, LeaseGauges
from service.application.archives import Archives
from service.application.blob_sweep import (
    BlobsInFlight,
    SweepReport,
    remove_deleted_images,
    sweep,
)
from service.application.cameras import Cameras
from service.application.crop_stream import CropStream
from service.application.crops import Crops
from service.application.data_directory import DataDirectory
from service.application.embed import Embed
from service.application.encoders import EncoderLoader, Encoders, nothing_loads
from service.application.erasure_replay import open_ledger
from service.application.galleries import Galleries
from service.application.gallery import GalleryGauges
from service.application.index_keeper import IndexKeeper
from service.application.ingest import Ingest
from service.application.model_keeping import ModelKeeping
from service.application.registry import Registry
from service.application.replication import Replication
from service.application.retention import Retention
from service.application.run_records import RunRecords
from service.application.search import Search
from service.application.search_batch import SearchBatch
from service.application.serving import LoadedEncoder
from service.application.track_person import TrackPerson
from service.application.travel_times import TravelTimes
from service.application.unbroken import Unbroken
from service.blobs import open_blob_store
from service.bundles import BundleShelf
from service.catalog import gallery_reads, gallery_writes, registry
from service.catalog.store import Catalog
from service.clock import SystemClock
from service.domain.names import DEFAULT_GALLERY
from service.domain.ports import BlobStore, Clock, Embedder
from service.erasure_ledger import ErasureLedger
from service.gallery.backend import index_factory
from service.gallery.search_threads import SearchThreads
from service.settings import ServiceSettings
from service.verification.running import Verification

__all__ = ["Application"]

logger = logging.getLogger(__name__)


class Application:
    """Opened once at start (``await Application.open(...)``), closed once at the end."""

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        directory: DataDirectory,
        catalog: Catalog,
        galleries: Galleries,
        index_files: IndexKeeper,
        blobs: BlobStore,
        ledger: ErasureLedger,
        retention: Retention,
        replication: Replication,
        shelf: BundleShelf,
        archives: Archives,
        encoders: Encoders,
        loop: asyncio.AbstractEventLoop,
        embedder: Embedder,
        clock: Clock,
    ) -> None:
        limits, images_stored = settings.limits, settings.privacy.store_images
        self._directory = directory
        self._catalog = catalog
        self._galleries = galleries
        self.index_files = index_files
        self.retention = retention
        self.replication = replication
        self._ledger = ledger
        self._blobs = blobs
        self._in_flight = BlobsInFlight(replication.fence, long=settings.replicas.sweep_seconds / 2)
        self._unbroken = Unbroken()
        self._blob_threads = ThreadPoolExecutor(settings.blobs.threads, thread_name_prefix="blob")
        # faiss keeps its thread count by calling thread.
        self._search_threads = ThreadPoolExecutor(
            1, "search", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self.sweep_report: SweepReport | None = None
        self._sweep_seconds = settings.replicas.sweep_seconds
        self._closing = threading.Event()
        self._sweeping: asyncio.Task[None] | None = None
        self._keeping: list[asyncio.Task[None]] = []
        self.cameras = Cameras(
            catalog=catalog, galleries=galleries, embedder=embedder, clock=clock, limits=limits
        )
        self.crops = Crops(
            catalog=catalog,
            galleries=galleries,
            blobs=blobs,
            blob_threads=self._blob_threads,
            unbroken=self._unbroken,
            clock=clock,
            ledger=ledger,
            replication=replication,
            limits=limits,
            images_stored=images_stored,
        )
        self.models = ModelKeeping(
            settings,
            loop=loop,
            catalog=catalog,
            galleries=galleries,
            archives=archives,
            encoders=encoders,
            index_files=index_files,
            blobs=blobs,
            blob_threads=self._blob_threads,
            unbroken=self._unbroken,
            clock=clock,
        )
        self.ingest = Ingest(
            catalog=catalog,
            galleries=galleries,
            lineup=self.models.lineup,
            blobs=blobs,
            blob_threads=self._blob_threads,
            in_flight=self._in_flight,
            unbroken=self._unbroken,
            clock=clock,
            limits=limits,
            images_stored=images_stored,
        )
        self.embed = Embed(galleries=galleries, limits=limits)
        self.search = Search(
            catalog=catalog,
            galleries=galleries,
            embed=self.embed,
            fence=replication.fence,
            search_threads=self._search_threads,
            limits=limits,
            mirror=self.models.mirror.offer,
        )
        self.travel_times = TravelTimes(
            catalog=catalog, galleries=galleries, clock=clock, settings=settings.travel_times
        )
        self.track_person = TrackPerson(
            search=self.search, galleries=galleries, travel_times=self.travel_times, limits=limits
        )
        self.search_batch = SearchBatch(search=self.search, limits=limits)
        self.adaptation = Adaptation(
            catalog=catalog,
            galleries=galleries,
            clock=clock,
            settings=settings.nightly,
            images_stored=images_stored,
        )
        self.runs = RunRecords(
            catalog=catalog, galleries=galleries, max_page_size=limits.max_page_size
        )
        self.crop_stream = CropStream(
            catalog=catalog,
            galleries=galleries,
            blobs=blobs,
            blob_threads=self._blob_threads,
            fence=replication.fence,
            images_stored=images_stored,
            readers=settings.nightly.stream_readers,
            max_cameras=limits.max_filter_cameras,
        )
        self.verification = Verification(
            catalog=catalog,
            galleries=galleries,
            blobs=blobs,
            in_flight=self._in_flight,
            index_files=index_files,
            images_stored=images_stored,
        )
        self.registry = Registry(
            catalog=catalog,
            galleries=galleries,
            shelf=shelf,
            archives=archives,
            unbroken=self._unbroken,
            clock=clock,
            settings=settings.models,
            max_page_size=limits.max_page_size,
        )

    @classmethod
    async def open(
        cls,
        settings: ServiceSettings,
        *,
        embedder: Embedder,
        clock: Clock | None = None,
        calibrations: Mapping[str, Calibration] | None = None,
        load_encoder: EncoderLoader = nothing_loads,
    ) -> Self:
        """Open catalog and blob store, load every index, then sweep images in the background.

        ``calibrations`` are those of the bundles that have one, by model version; ``load_encoder``
        makes encoders of archives, for models besides the one that ``embedder`` runs.

        Raises:
            FailedPrecondition: the data directory is in use, the schema does not fit, or the
                catalog holds vectors of another model.
            InvalidArgument, Unavailable: catalog or blob store cannot be used.
        """
        application = await asyncio.to_thread(
            cls._open,
            settings,
            embedder,
            clock or SystemClock(),
            calibrations or {},
            load_encoder,
            asyncio.get_running_loop(),
        )
        application.models.start()
        application._sweeping = asyncio.create_task(application._sweep())
        application._keeping = [
            asyncio.create_task(application.index_files.keep()),
            asyncio.create_task(application.retention.keep(application._blob_threads)),
        ]
        return application

    @property
    def crop_count(self) -> int:
        """Vectors that a search can return, over all galleries."""
        return sum(gauges.vectors for gauges in self._galleries.gauges().values())

    @property
    def pending_writes(self) -> int:
        """Writes waiting for the catalog."""
        return self._catalog.writer.pending

    @property
    def commits(self) -> int:
        """Transactions the catalog has committed."""
        return self._catalog.writer.commits

    def gauges(self) -> dict[str, GalleryGauges]:
        """What the metrics show, by gallery."""
        return self._galleries.gauges()

    def lease_gauges(self) -> dict[str, LeaseGauges]:
        """What the metrics show of adaptation, by gallery."""
        return self.adaptation.gauges()

    async def close(self) -> None:
        """Commit what was submitted, then close everything."""
        await self.models.close()
        self._closing.set()
        await self._unbroken.drain()
        await self.travel_times.close()
        if self._sweeping is not None:
            await asyncio.wait([self._sweeping])
        for task in self._keeping:
            task.cancel()
        await asyncio.wait(self._keeping)
        await self.index_files.write_all()
        await asyncio.to_thread(self._close)

    @classmethod
    def _open(
        cls,
        settings: ServiceSettings,
        embedder: Embedder,
        clock: Clock,
        calibrations: Mapping[str, Calibration],
        load_encoder: EncoderLoader,
        loop: asyncio.AbstractEventLoop,
    ) -> Self:
        directory = DataDirectory(settings.data_dir)
        version = embedder.model_version
        loaded = {version: LoadedEncoder(embedder, calibrations.get(version))}
        threads = SearchThreads(settings.search.threads or len(os.sched_getaffinity(0)))
        try:
            make_index = index_factory(
                settings.index.backend,
                gather_rows=settings.search.gather_rows,
                segment_rows=settings.index.segment_rows,
                threads=threads,
                milvus=settings.milvus,
                gpu=settings.gpu,
            )
            galleries = Galleries(loaded, make_index=make_index, threads=threads)
            catalog = Catalog(
                settings.resolved_database_url(),
                clock=clock,
                inserted=galleries.inserted,
                read_threads=settings.catalog.read_threads,
                max_group=settings.catalog.max_group,
                max_pending=settings.catalog.max_pending_writes,
                auto_upgrade=settings.catalog.auto_upgrade,
            )
        except BaseException:
            threads.close()
            directory.close()
            raise
        ledger: ErasureLedger | None = None
        replication: Replication | None = None
        try:
            blobs = open_blob_store(settings.resolved_blob_url())
            ledger = open_ledger(settings, catalog, clock)
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
            shelf = BundleShelf(settings.data_dir / "bundles")
            if orphans := shelf.sweep(catalog.read_now(registry.shelved)):
                logger.warning("bundles: removed %d archives of no model", orphans)
            archives = Archives(shelf, blobs)
            encoders = Encoders(loaded, catalog=catalog, archives=archives, load=load_encoder)
            asyncio.run_coroutine_threadsafe(encoders.load_all(), loop).result()
            galleries.load(catalog, index_files.fill)
            remove_deleted_images(catalog, blobs)
            # After the indexes were filled, which may take long: who is known is waited for.
            replication = Replication(
                catalog,
                galleries,
                settings.replicas,
                database_url=settings.resolved_database_url(),
                data_dir=settings.data_dir,
            )
            replication.start()
            return cls(
                settings,
                directory=directory,
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
                loop=loop,
                embedder=embedder,
                clock=clock,
            )
        except BaseException:
            if replication is not None:
                replication.close()
            catalog.close()
            if ledger is not None:
                ledger.close()
            directory.close()
            raise

    async def _sweep(self) -> None:
        try:
            self.sweep_report = await asyncio.to_thread(
                partial(
                    sweep,
                    self._catalog,
                    self._blobs,
                    self._in_flight,
                    is_alone=self.replication.is_alone,
                    settle=lambda: not self._closing.wait(self._sweep_seconds),
                )
            )
        except Exception:
            logger.exception("the blob store could not be swept; it is tried at the next start")

    def _close(self) -> None:
        self.replication.close()
        self.search.close()
        self._search_threads.shutdown()
        self._galleries.close()
        self.index_files.close()
        self._blob_threads.shutdown()
        self._catalog.close()
        self._ledger.close()
        self._directory.close()


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
