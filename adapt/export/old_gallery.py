"""The old-to-new vector map between two bundles, fitted on a night's crops and attached."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapt.export.pairs import choose_crops
from adapt.export.rank_agreement import embed_in_batches
from adapt.export.sightings import sightings_of
from adapt.export.vector_map import MAP_BOUNDS, FittedMap, fit_vector_map
from resight.bundle.attachments import attach
from resight.bundle.bundle import Bundle
from resight.bundle.graph_session import GraphSession
from resight.bundle.rank_agreement import RankBounds
from resight.bundle.reader import open_bundle
from resight.crops import CropRef, Preprocessing, prepare, read_crop
from resight.errors import InvalidArgument

__all__ = ["attach_vector_map"]

_CROPS = 4000
_DECODED = 64


def attach_vector_map(
    new: Path,
    old: Path,
    crops: Sequence[CropRef],
    *,
    groups: NDArray[np.integer] | None = None,
    limit: int = _CROPS,
    bounds: RankBounds = MAP_BOUNDS,
    threads: int = 2,
    seed: int = 0,
) -> FittedMap:
    """Fits a map from the old bundle's embeddings to the new one's and attaches it to the new.

    Args:
        new: Bundle of the new encoder.
        old: Bundle of the old one; another input size or dimension does no harm.
        crops: N crops of the night; unreadable ones raise.
        groups: (N,) codes of what must not be split between fit and test, clusters say; by default
            the crops' tracks, where they have any.
        limit: Most crops to embed.
        bounds: What the map must reach on crops held out.
        threads: Of decoding.
        seed: Of the draw and the split.

    Returns:
        The map and its figures.

    Raises:
        Refused: The map ranks held-out crops otherwise than the new encoder; nothing is attached.
        InvalidArgument: Too few crops, or both bundles hold one model.
        BundleCorrupt: A bundle is not what its digests say.
    """
    before, after = open_bundle(old, golden=False), open_bundle(new, golden=False)
    if before.model_version == after.model_version:
        raise InvalidArgument(
            f"old: both bundles hold model {after.model_version}; no map is needed", field="old"
        )
    sightings = sightings_of(crops)
    chosen = choose_crops(sightings, limit, seed=seed)
    codes = sightings.groups() if groups is None else np.asarray(groups)
    picked = [crops[row] for row in chosen]
    fitted = fit_vector_map(
        _embed(before, picked, threads),
        _embed(after, picked, threads),
        groups=codes[chosen],
        seed=seed,
    )
    attach(new, fitted.attachment(before.model_version, bounds))
    return fitted


def _embed(bundle: Bundle, crops: Sequence[CropRef], threads: int) -> NDArray[np.float32]:
    session = GraphSession(bundle.encoder_path.read_bytes(), bundle.preprocessing)
    parts = []
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for start in range(0, len(crops), _DECODED):
            images = pool.map(
                lambda crop: _decoded(crop, bundle.preprocessing), crops[start : start + _DECODED]
            )
            parts.append(embed_in_batches(session.embed, np.stack(list(images))))
    return np.concatenate(parts) if parts else np.empty((0, bundle.dimension), np.float32)


def _decoded(crop: CropRef, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    return prepare(read_crop(crop.path), preprocessing)
