"""The galleries this process serves."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy import Connection

from resight.errors import FailedPrecondition, NotFound
from service import call
from service.application.gallery import Gallery, GalleryGauges
from service.application.index_filling import Filled
from service.application.serving import UNREADY, LoadedEncoder, Models, Serving
from service.catalog import gallery_reads, lifecycle_reads, log_reads
from service.catalog.records import CameraRecord, CropInsert, GalleryRecord
from service.catalog.store import Catalog
from service.domain import names
from service.domain.model import ModelState
from service.gallery.backend import IndexFactory
from service.milvus.collections import MilvusIndexes
from service.milvus.index import MilvusIndex
from service.telemetry import gallery_begins

__all__ = ["Galleries"]

logger = logging.getLogger(__name__)

_FED = {ModelState.LIVE, ModelState.SHADOW, ModelState.PREVIOUS}

Fill = Callable[[Connection, Serving], Filled]


class Galleries:
    """Every gallery of the catalog, by name. Galleries come in on the writer's thread alone.

    Args:
        encoders: Those that run in this process, by version.
        make_index: Makes the index of a model, in the backend chosen.
    """

    def __init__(
        self,
        encoders: Mapping[str, LoadedEncoder],
        *,
        make_index: IndexFactory,
    ) -> None:
        self._encoders = encoders
        self._make_index = make_index
        self._by_name: dict[str, Gallery] = {}
        self._by_row: dict[int, Gallery] = {}
        self.models_changed: Callable[[Gallery], None] = lambda _: None
        self._catalog: Catalog
        self._fill: Fill

    def get(self, name: str) -> Gallery:
        """A gallery by its name as a caller wrote it; empty means ``default``.

        Every use case comes by here, so here the caller's galleries are enforced.

        Raises:
            InvalidArgument: not a name.
            PermissionDenied: not one of the caller's.
            NotFound: no such gallery.
        """
        checked = names.gallery_name(name)
        call.enter_gallery(checked)
        gallery = self._by_name.get(checked)
        if gallery is None:
            raise NotFound(
                f"gallery {checked!r} does not exist; it comes into being with its first camera",
                field="gallery",
                reason="GALLERY_NOT_FOUND",
            )
        call.found_gallery(checked)
        return gallery

    def all(self) -> list[Gallery]:
        """Every gallery, by name."""
        return [gallery for _, gallery in sorted(self._by_name.copy().items())]

    def load(self, catalog: Catalog, fill: Fill) -> None:
        """Open every gallery of the catalog and fill its indexes."""
        self._catalog, self._fill = catalog, fill
        self.discover()

    def discover(self) -> None:
        """Open galleries of the catalog that are not open yet, as other processes make them."""
        for record in self._catalog.read_now(gallery_reads.all_galleries):
            if record.gallery_row not in self._by_row:
                with self._catalog.connect() as connection:
                    cameras = gallery_reads.all_cameras(connection, record.gallery_row)
                    self._add(self._loaded(connection, record, cameras))

    def opened(self, record: GalleryRecord) -> Gallery:
        """A gallery that this process has just committed, or knows already."""
        known = self._by_row.get(record.gallery_row)
        if known is not None:
            return known
        gallery = self._gallery(Models(record.generation, self.serving(record)), applied=0)
        self._add(gallery)
        return gallery

    def serving(self, record: GalleryRecord) -> Serving:
        """A model of a gallery with an index that is yet to be filled.

        Raises:
            FailedPrecondition: its encoder does not run here.
        """
        encoder = self._encoders.get(record.model_version)
        if encoder is None:
            raise FailedPrecondition(
                f"gallery {record.name!r} is served with model {record.model_version}, which does "
                "not run in this process; serve its bundle",
                field="bundle",
                reason="MODEL_NOT_LOADED",
            )
        return Serving(record, encoder, self._make_index(record))

    def discard(self, record: GalleryRecord) -> None:
        """Remove the index of a retired model, where it lies outside this process."""
        index = self._make_index(record)
        if isinstance(index, MilvusIndex):
            index.discard()

    def drop_others(self, catalog: Catalog) -> None:
        """Remove the indexes of models that are fed no more, where they lie outside this process:
        one that was retired meanwhile has vectors which no erasure would reach.

        Raises:
            Unavailable: Milvus does not answer.
        """
        if not isinstance(self._make_index, MilvusIndexes):
            return
        known = catalog.read_now(lifecycle_reads.every_model)
        fed = [record for record, state in known if state in _FED]
        dropped = self._make_index.drop_others(fed, [record for record, _ in known])
        if dropped:
            logger.warning("Milvus: %d collections of models fed no more were dropped", dropped)

    def fill(self, connection: Connection, serving: Serving) -> Filled:
        """Fill the index of a model with what this connection sees."""
        return self._fill(connection, serving)

    def inserted(self, batch: Sequence[tuple[CropInsert, int]]) -> None:
        """The catalog has committed these crops; called by its writer thread."""
        in_galleries = itertools.groupby(
            sorted(batch, key=lambda entry: (entry[0].gallery_row, entry[1])),
            key=lambda entry: entry[0].gallery_row,
        )
        for gallery_row, entries in in_galleries:
            self._by_row[gallery_row].advance(list(entries))

    def gauges(self) -> dict[str, GalleryGauges]:
        """What the metrics show, by gallery."""
        return {gallery.name: gallery.gauges() for gallery in self.all()}

    def _loaded(
        self, connection: Connection, record: GalleryRecord, cameras: Iterable[CameraRecord]
    ) -> Gallery:
        began = time.perf_counter()
        fed = lifecycle_reads.fed_models(connection, record.gallery_row)
        serving = self.serving(record)
        filled = self._fill(connection, serving)
        warm: list[Serving] = []
        for other in fed.all[1:]:
            if other.model_version in self._encoders:
                warm.append(self.serving(other))
                self._fill(connection, warm[-1])
        ready = len(warm) == len(fed.all) - 1
        beside = warm[-1] if fed.dual and warm else None
        models = Models(fed.generation if ready else UNREADY, serving, tuple(warm), beside)
        applied = log_reads.newest_position(connection, record.gallery_row)
        gallery_begins(record.name)
        logger.info(
            "gallery %s: %d vectors of model %s loaded in %.2f s, %d of them from index files",
            record.name,
            len(serving.index),
            record.model_version,
            time.perf_counter() - began,
            filled.from_files,
        )
        return self._gallery(models, applied=applied, cameras=cameras)

    def _gallery(
        self, models: Models, *, applied: int, cameras: Iterable[CameraRecord] = ()
    ) -> Gallery:
        return Gallery(
            self._catalog,
            models,
            applied=applied,
            cameras=cameras,
            models_changed=lambda gallery: self.models_changed(gallery),
        )

    def _add(self, gallery: Gallery) -> None:
        self._by_row[gallery.row] = gallery
        self._by_name[gallery.name] = gallery
