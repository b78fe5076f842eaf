"""Whether a model holds, of every crop, the vector that this very model gives it.

A filling that reports its end and has stored the wrong thing is found out here: crops drawn at
random are embedded anew and compared with what is stored, and with what the old model has stored.

Equation: agreement = cos(stored, made anew); another batch or processor rounds otherwise, hence
least agreement .999 where a bundle's own golden check asks for .9999.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition
from service.application.gallery import Gallery
from service.application.reembedding import Reembedding
from service.application.serving import Serving
from service.catalog import lifecycle_reads, model_vectors
from service.catalog.model_vectors import StoredCrop
from service.catalog.store import Catalog
from service.domain.filling import FillingSource

__all__ = ["Checked", "ModelCheck"]

LEAST_AGREEMENT = 0.999
LOOKS = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at.

    Args:
        sampled: Crops whose vector was made anew and agrees.
        skipped: Crops drawn that have no image any more.
        vectors: Vectors of the model, in the catalog and in the index.
    """

    sampled: int
    skipped: int
    vectors: int


class ModelCheck:
    """Looks at a model before it may answer."""

    def __init__(self, *, catalog: Catalog, reembedding: Reembedding, sample: int) -> None:
        self._catalog = catalog
        self._reembedding = reembedding
        self._sample = sample

    async def check(self, gallery: Gallery, serving: Serving, source: FillingSource) -> Checked:
        """Compare a sample.

        Raises:
            FailedPrecondition: a vector is not the model's (``VERIFICATION_FAILED``), none could be
                compared, or the index holds other vectors than the catalog.
            Unavailable, OSError: not now.
        """
        vectors = await self._catalog.run(lambda: self._counted(gallery, serving))
        span = await self._catalog.read(lifecycle_reads.row_span, gallery.row)
        if span is None:
            return Checked(0, 0, vectors)
        starts = [random.randint(*span) for _ in range(self._sample)]  # noqa: S311 -- a sample
        drawn = await self._catalog.read(
            model_vectors.sample, gallery.row, serving.record.model_row, starts
        )
        if source is not FillingSource.IMAGES:
            # Those that came after it was staged were embedded, and have no image either.
            until = await self._catalog.read(lifecycle_reads.filled_until, serving.record.model_row)
            drawn = [(crop, vector) for crop, vector in drawn if crop.crop_row <= until]
        if not drawn and source is not FillingSource.IMAGES:
            return Checked(0, 0, vectors)
        crops = [crop for crop, _ in drawn]
        live = gallery.record
        rows = [crop.crop_row for crop in crops]
        old = await self._catalog.read(model_vectors.vectors_of, live.model_row, rows)
        made = await self._reembedding.made(serving, crops, source=source, live=live)
        compared = 0
        for (crop, stored), item in zip(drawn, made, strict=True):
            if item.vector is None:
                continue
            if float(stored @ item.vector) < LEAST_AGREEMENT:
                raise _refused(serving, crop, stored, item.vector, old.get(crop.crop_row))
            compared += 1
        if not compared and (drawn or source is FillingSource.IMAGES):
            raise FailedPrecondition(
                f"no stored vector of model {serving.version} could be compared: no crop drawn has "
                "one and its image",
                field="model_version",
                reason="VERIFICATION_FAILED",
            )
        return Checked(compared, len(drawn) - compared, vectors)

    def _counted(self, gallery: Gallery, serving: Serving) -> int:
        """On the writer's thread: at one position of the log."""
        row = serving.record.model_row
        stored = held = -1
        for _ in range(LOOKS):
            gallery.follow()
            stored = self._catalog.read_now(lifecycle_reads.vector_count, gallery.row, row)
            held = len(serving.index)
            # Another replica may have written between the two looks.
            if stored == held:
                break
        if stored != held:
            raise FailedPrecondition(
                f"the index of model {serving.version} holds {held} vectors and the catalog "
                f"{stored}; try again, and if it stays so `resight gallery verify`",
                field="model_version",
                reason="INDEX_DIFFERS",
            )
        return stored


def _refused(
    serving: Serving,
    crop: StoredCrop,
    stored: NDArray[np.float32],
    made: NDArray[np.float32],
    old: NDArray[np.float32] | None,
) -> FailedPrecondition:
    if old is not None and old.shape == stored.shape and float(old @ stored) > LEAST_AGREEMENT:
        what = "is the live model's: it was copied, not embedded anew"
    else:
        what = f"agrees with the one made anew by {float(stored @ made):.4f} only"
    return FailedPrecondition(
        f"crop {crop.crop_id}: the stored vector of model {serving.version} {what}; retire the "
        "model and register a bundle made anew: a version that was retired does not come back",
        field="model_version",
        reason="VERIFICATION_FAILED",
    )
