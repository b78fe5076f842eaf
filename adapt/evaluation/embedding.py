"""Features of crops by a bundle's encoder, through ONNX Runtime on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads
from resight.bundle.bundle import Bundle
from resight.bundle.graph_session import GraphSession
from resight.crops.crop import CropRef, SkippedCrop
from resight.crops.decode import prepare
from resight.crops.faults import fault_of
from resight.crops.limits import DEFAULT_LIMITS, ImageLimits
from resight.crops.source import read_crop
from resight.errors import ImageTooLarge, InvalidArgument, UndecodableImage

__all__ = ["EmbeddedCrops", "embed_refs"]

_BATCHES_AHEAD = 3


class EmbeddedCrops(NamedTuple):
    """Features and the crops they are of.

    Attributes:
        features: float32 (N, D), unit rows.
        kept: the N crops, in the order asked.
        skipped: crops that could not be decoded, and why.
    """

    features: NDArray[np.float32]
    kept: list[CropRef]
    skipped: list[SkippedCrop]


def embed_refs(
    bundle: Bundle,
    refs: Sequence[CropRef],
    *,
    batch: int = 64,
    limits: ImageLimits = DEFAULT_LIMITS,
    advance: Callable[[int], object] | None = None,
) -> EmbeddedCrops:
    """Embed crops: decoded on several threads ahead of the encoder, which uses every core.

    Args:
        bundle: encoder and preprocessing.
        refs: crops; one that cannot be decoded is skipped and listed.
        batch: crops a run.
        limits: bounds on images.
        advance: called with the number of crops finished since its last call.

    Raises:
        InvalidArgument: ``batch`` below 1, or an encoder that does not run.
    """
    if batch < 1:
        raise InvalidArgument(f"batch: is {batch}; it must be at least 1", field="batch")
    session = GraphSession(bundle.encoder_path.read_bytes(), bundle.preprocessing)
    features = np.empty((len(refs), bundle.dimension), dtype=np.float32)
    kept: list[CropRef] = []
    skipped: list[SkippedCrop] = []

    def pixels(ref: CropRef) -> NDArray[np.uint8] | SkippedCrop:
        try:
            data = read_crop(ref.path, limits=limits)
            return prepare(data, bundle.preprocessing, limits=limits)
        except (UndecodableImage, ImageTooLarge) as error:
            return SkippedCrop(ref.path, fault_of(error), error.message)

    for group, results in _ahead(pixels, refs, batch):
        images = [result for result in results if not isinstance(result, SkippedCrop)]
        skipped += [result for result in results if isinstance(result, SkippedCrop)]
        if images:
            features[len(kept) : len(kept) + len(images)] = session.embed(np.stack(images))
        kept += [
            ref
            for ref, result in zip(group, results, strict=True)
            if not isinstance(result, SkippedCrop)
        ]
        if advance is not None:
            advance(len(group))
    return EmbeddedCrops(features[: len(kept)], kept, skipped)


_Pixels = NDArray[np.uint8] | SkippedCrop


def _ahead(
    pixels: Callable[[CropRef], _Pixels], refs: Sequence[CropRef], batch: int
) -> Iterator[tuple[list[CropRef], list[_Pixels]]]:
    """Batches in order, a few of them decoding while one is used."""
    source = iter(refs)
    waiting: deque[tuple[list[CropRef], list[Future[_Pixels]]]] = deque()
    with ThreadPoolExecutor(max_workers=available_threads()) as pool:
        while True:
            while len(waiting) < _BATCHES_AHEAD and (group := list(islice(source, batch))):
                waiting.append((group, [pool.submit(pixels, ref) for ref in group]))
            if not waiting:
                return
            group, futures = waiting.popleft()
            yield group, [future.result() for future in futures]
