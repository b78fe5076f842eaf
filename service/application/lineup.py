"""The models of each gallery, brought to what the catalog says of them.

A change of states between models that run here already takes effect on the writer's thread, at the
change's place in the log. A model that does not run here is loaded first, its index filled beside
the others, and then takes its place; until then the gallery goes on with what it has, and crops are
refused by the catalog for the generation they were embedded for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from resight.errors import ResightError
from service.application.encoders import Encoders
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.serving import UNREADY, Models, Serving
from service.catalog import lifecycle_reads, log_reads
from service.catalog.lifecycle_reads import FedModels
from service.catalog.records import GalleryRecord
from service.catalog.store import Catalog

__all__ = ["Lineup"]

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0


class Lineup:
    """Keeps galleries' models as the catalog says.

    Args:
        loop: The event loop.
        catalog: Says which models a gallery feeds.
        galleries: Those of this process.
        encoders: Those that run here.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        catalog: Catalog,
        galleries: Galleries,
        encoders: Encoders,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._encoders = encoders
        self._loop = loop
        self._locks: dict[int, asyncio.Lock] = {}
        # One task a gallery, by its key, and what tells it that there is more to do.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._wakes: dict[int, asyncio.Event] = {}
        self._closed = False
        galleries.models_changed = self._changed

    async def refresh(self, gallery: Gallery) -> None:
        """Return when the gallery feeds what the catalog says.

        Raises:
            ResightError, OSError: an encoder cannot be had or loaded; the gallery answers with what
                it has and takes no crops.
        """
        async with self._locks.setdefault(gallery.row, asyncio.Lock()):
            try:
                while not await self._refreshed(gallery):
                    pass
            except Exception:
                gallery.unrefreshed = True
                raise
            gallery.unrefreshed = False

    async def end_unused(self) -> None:
        """End the encoders that no gallery uses any more."""
        galleries = self._galleries.all()
        used = [serving.version for one in galleries for serving in one.models.fed]
        await self._encoders.end_unused(used)

    def refresh_unready(self) -> None:
        """Begin to load what did not run at start; what fails is logged, and tried again."""
        for gallery in self._galleries.all():
            if gallery.models.generation == UNREADY:
                self._soon(gallery)

    async def close(self) -> None:
        """Wait for what is under way."""
        self._closed = True
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _refreshed(self, gallery: Gallery) -> bool:
        fed = await self._catalog.read(lifecycle_reads.fed_models, gallery.row)
        if _up_to_date(gallery, fed):
            return True
        for record in fed.all:
            await self._encoders.obtain(record)
        known = {serving.record.model_row: serving for serving in gallery.models.fed}
        joined = [
            await asyncio.to_thread(self._filled, record)
            for record in fed.all
            if record.model_row not in known
        ]
        known |= {serving.record.model_row: serving for serving, _ in joined}
        models = _arranged(fed, known)
        if models is None:
            return False
        taken = await self._catalog.run(lambda: gallery.take(models, joined))
        if taken:
            _log(gallery)
        return taken

    def _filled(self, record: GalleryRecord) -> tuple[Serving, int]:
        serving = self._galleries.serving(record)
        with self._catalog.connect() as connection:
            self._galleries.fill(connection, serving)
            return serving, log_reads.newest_position(connection, record.gallery_row)

    def _changed(self, gallery: Gallery) -> None:
        """On the writer's thread."""
        fed = self._catalog.read_now(lifecycle_reads.fed_models, gallery.row)
        models = _arranged(fed, {one.record.model_row: one for one in gallery.models.fed})
        if models is not None:
            gallery.models = models
            _log(gallery)
        elif gallery.models.live.record.model_row not in {one.model_row for one in fed.all}:
            gallery.models = replace(gallery.models, generation=UNREADY, outlived=True)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._soon, gallery)

    def _soon(self, gallery: Gallery) -> None:
        if self._closed:
            return
        self._wakes.setdefault(gallery.row, asyncio.Event()).set()
        running = self._tasks.get(gallery.row)
        if running is None or running.done():
            self._tasks[gallery.row] = self._loop.create_task(self._tried(gallery))

    async def _tried(self, gallery: Gallery) -> None:
        """Refresh until nothing is left to do; a fault is told once, and tried again."""
        wake, told = self._wakes[gallery.row], ""
        while wake.is_set():
            wake.clear()
            try:
                await self.refresh(gallery)
            except Exception as error:
                if repr(error) != told:
                    told = repr(error)
                    _log_fault(gallery, error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), RETRY_SECONDS)
                wake.set()


def _up_to_date(gallery: Gallery, fed: FedModels) -> bool:
    held = [serving.record.model_row for serving in gallery.models.fed]
    return gallery.models.generation == fed.generation and held == [
        record.model_row for record in fed.all
    ]


def _arranged(fed: FedModels, known: dict[int, Serving]) -> Models | None:
    """The models in the catalog's order; None when one of them is not known here."""
    found: Sequence[Serving | None] = [known.get(record.model_row) for record in fed.all]
    servings = [serving for serving in found if serving is not None]
    if len(servings) < len(found):
        return None
    beside = servings[-1] if fed.dual else None
    return Models(fed.generation, servings[0], tuple(servings[1:]), beside)


def _log_fault(gallery: Gallery, error: Exception) -> None:
    logger.error(
        "gallery %s: its models cannot be brought up to date, and it takes no crops: %s; tried "
        "again every %.0f s",
        gallery.name,
        error,
        RETRY_SECONDS,
        exc_info=None if isinstance(error, (ResightError, OSError)) else error,
    )


def _log(gallery: Gallery) -> None:
    models = gallery.models
    logger.info(
        "gallery %s: model %s answers%s",
        gallery.name,
        models.live.version,
        "".join(f", {serving.version} is kept warm" for serving in models.warm),
    )
