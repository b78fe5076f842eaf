"""The application: every use case over one catalog, one blob store and one encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Self

from resight.bundle.calibration import Calibration
from service.access.key_ring import KeyRing
from service.access.revocations import Revocations
from service.application.adaptation import Adaptation
from service.application.api_keys import ApiKeys
from service.application.auditing import Auditing
from service.application.blob_sweep import BlobsInFlight
from service.application.camera_retention import CameraRetention
from service.application.cameras import Cameras
from service.application.crop_stream import CropStream
from service.application.crops import Crops
from service.application.encoders import EncoderLoader, nothing_loads
from service.application.erasure.keeping import ErasureKeeping
from service.application.foundation import Foundation, open_foundation
from service.application.gallery import GalleryGauges
from service.application.image_removal import ImageRemoval
from service.application.ingest import Ingest
from service.application.landing import Landing
from service.application.model_keeping import ModelKeeping
from service.application.registry import Registry
from service.application.run_records import RunRecords
from service.application.searching import Searching
from service.application.sweeping import Sweeping
from service.application.unbroken import Unbroken
from service.application.watching import Watching
from service.audit.opening import Audit
from service.clock import SystemClock
from service.context_threads import ContextThreads
from service.domain.ports import Clock, Embedder
from service.settings import ServiceSettings
from service.verification.running import Verification

__all__ = ["Application"]


class Application:
    """Opened once at start (``await Application.open(...)``), closed once at the end."""

    def __init__(self, settings: ServiceSettings, foundation: Foundation) -> None:
        catalog, galleries, blobs = foundation.catalog, foundation.galleries, foundation.blobs
        clock, replication = foundation.clock, foundation.replication
        limits, images_stored = settings.limits, settings.privacy.store_images
        self._foundation = foundation
        self._catalog = catalog
        self._galleries = galleries
        self.index_files = foundation.index_files
        self.retention = foundation.retention
        self.replication = replication
        self._blobs = blobs
        self._in_flight = BlobsInFlight(replication.fence, long=settings.replicas.sweep_seconds / 2)
        self._unbroken = Unbroken()
        self._blob_threads = ContextThreads(settings.blobs.threads, thread_name_prefix="blob")
        self.sweeping = Sweeping(
            catalog=catalog,
            blobs=blobs,
            in_flight=self._in_flight,
            replication=replication,
            seconds=settings.replicas.sweep_seconds,
        )
        self.image_removal = ImageRemoval(
            catalog=catalog, blobs=blobs, clock=clock, in_flight=self._in_flight
        )
        self._keeping: list[asyncio.Task[None]] = []
        self._audit: Audit | None = None
        self.cameras = Cameras(
            catalog=catalog,
            galleries=galleries,
            embedder=foundation.embedder,
            clock=clock,
            limits=limits,
        )
        self.crops = Crops(
            catalog=catalog,
            galleries=galleries,
            blobs=blobs,
            blob_threads=self._blob_threads,
            unbroken=self._unbroken,
            clock=clock,
            ledger=foundation.ledger,
            replication=replication,
            limits=limits,
            images_stored=images_stored,
        )
        self.models = ModelKeeping(
            settings,
            loop=foundation.loop,
            catalog=catalog,
            galleries=galleries,
            archives=foundation.archives,
            encoders=foundation.encoders,
            index_files=foundation.index_files,
            blobs=blobs,
            blob_threads=self._blob_threads,
            unbroken=self._unbroken,
            clock=clock,
        )
        self.ingest = Ingest(
            catalog=catalog,
            galleries=galleries,
            lineup=self.models.lineup,
            landing=Landing(
                catalog=catalog,
                blobs=blobs,
                blob_threads=self._blob_threads,
                lanes=settings.blobs.threads,
                in_flight=self._in_flight,
                unbroken=self._unbroken,
                images_stored=images_stored,
            ),
            clock=clock,
            limits=limits,
        )
        self.searching = Searching(settings, foundation, mirror=self.models.mirror)
        self.embed, self.search = self.searching.embed, self.searching.search
        self.travel_times = self.searching.travel_times
        self.track_person = self.searching.track_person
        self.search_batch = self.searching.search_batch
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
        self.watching = Watching(
            catalog,
            galleries,
            data_dir=settings.data_dir,
            settings=settings.metrics,
            nights=settings.nightly.expected,
        )
        self.verification = Verification(
            catalog=catalog,
            galleries=galleries,
            blobs=blobs,
            in_flight=self._in_flight,
            index_files=foundation.index_files,
            images_stored=images_stored,
            clock=clock,
            removed_after=timedelta(seconds=settings.replicas.sweep_seconds),
        )
        self.api_keys = ApiKeys(
            catalog=catalog,
            clock=clock,
            revocations=Revocations(settings.resolved_erasures_dir()),
            max_page_size=limits.max_page_size,
            token_key_days=settings.access.token_key_days,
        )
        self.key_ring = KeyRing(catalog, clock, refresh_seconds=settings.access.refresh_seconds)
        self.api_keys.changed = self.key_ring.changed
        self.camera_retention = CameraRetention(
            catalog=catalog, galleries=galleries, changed=foundation.retention.soon
        )
        self.erasing = ErasureKeeping(
            settings,
            foundation,
            search=self.search,
            blob_threads=self._blob_threads,
            unbroken=self._unbroken,
        )
        self.erasures = self.erasing.erasures
        self.auditing = Auditing(catalog=catalog, max_page_size=limits.max_page_size)
        self.registry = Registry(
            catalog=catalog,
            galleries=galleries,
            shelf=foundation.shelf,
            archives=foundation.archives,
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
        foundation = await asyncio.to_thread(
            open_foundation,
            settings,
            embedder=embedder,
            clock=clock or SystemClock(),
            calibrations=calibrations or {},
            load_encoder=load_encoder,
            loop=asyncio.get_running_loop(),
        )
        application = cls(settings, foundation)
        application.models.start()
        application.watching.start()
        application.sweeping.start()
        application.image_removal.start(
            application._blob_threads,
            interval=settings.retention.interval_seconds,
            refresh=settings.metrics.refresh_seconds,
            at_once=foundation.images_refused,
        )
        application._keeping = [
            asyncio.create_task(application.index_files.keep()),
            asyncio.create_task(application.retention.keep(application._blob_threads)),
            asyncio.create_task(application.erasing.keep()),
        ]
        return application

    async def open_audit(self, settings: ServiceSettings) -> Audit:
        """Begin this process's chain of the audit; it is closed with everything else.

        Raises:
            InvalidArgument: the signing key or the place of anchors cannot be used.
            Unavailable: the catalog cannot be written.
        """
        self._audit = await Audit.open(
            settings, self._catalog, self._foundation.clock, replica=self.replication.name
        )
        log = self._audit.log
        self.auditing.own_end = lambda: log.head
        own = self._audit.own
        self.retention.tell(lambda gallery, crops: own("retention", gallery, crops=crops))
        self.models.lifecycle.told = lambda gallery, what: own("model", gallery, change=what)
        return self._audit

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

    async def close(self) -> None:
        """Commit what was submitted, then close everything."""
        await self.watching.close()
        await self.image_removal.close()
        await self.models.close()
        self.sweeping.stop()
        self.erasing.stop()
        await self._unbroken.drain()
        await self.travel_times.close()
        await self.sweeping.finished()
        for task in self._keeping:
            task.cancel()
        await asyncio.wait(self._keeping)
        await self.index_files.write_all()
        if self._audit is not None:
            await self._audit.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.searching.close()
        self._blob_threads.shutdown()
        self._foundation.close()
