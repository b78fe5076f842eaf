"""The models of a gallery as a request takes them: each an encoder and an index of one version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from resight.bundle.calibration import Calibration
from service.catalog.records import GalleryRecord
from service.domain.ports import Embedder, GalleryIndex

__all__ = ["UNREADY", "LoadedEncoder", "Models", "Serving"]

# The generation of no gallery: vectors that lack a model are refused by the catalog.
UNREADY = -1


@dataclass(frozen=True, slots=True, eq=False)
class LoadedEncoder:
    """An encoder that runs in this process, and the calibration of its bundle; ``close`` ends it
    where it is not the process's own.
    """

    embedder: Embedder
    calibration: Calibration | None = None
    close: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """One model of a gallery: vectors of ``encoder`` are compared with those of ``index``.

    Args:
        record: The gallery with this model.
        encoder: Of the record's version.
        index: Vectors of that version alone.
    """

    record: GalleryRecord
    encoder: LoadedEncoder
    index: GalleryIndex

    @property
    def version(self) -> str:
        """Version of encoder and index."""
        return self.record.model_version


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """What a gallery searches and feeds, replaced whole: a request that takes this once never
    compares vectors of two models.

    Args:
        generation: Of the gallery's models in the catalog; UNREADY when one of them does not run
            here, so that no crop is stored without its vector.
        live: The one that answers.
        warm: Others that get a vector of every crop: one about to be promoted, one to go back to.
        beside: The one of them that older crops are searched with, as they have no vector of the
            live one.
        outlived: The live one was retired while its successor did not run here: it gets no new
            crops, so it answers no more.
    """

    generation: int
    live: Serving
    warm: tuple[Serving, ...] = ()
    beside: Serving | None = None
    outlived: bool = False

    @property
    def fed(self) -> tuple[Serving, ...]:
        """Every model that a crop must have a vector of."""
        return (self.live, *self.warm)
