"""The same crops, and changed copies of some, as several encoders see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads, map_blocks, row_blocks
from adapt.gate.perturbation import perturb
from resight.bundle.bundle import Bundle
from resight.bundle.graph_session import GraphSession
from resight.crops import CropRef, Preprocessing, SkippedCrop, fault_of, prepare, read_crop
from resight.errors import ImageTooLarge, InvalidArgument, UndecodableImage

__all__ = ["Observation", "Observations", "observe"]

_BATCH = 64


@dataclass(frozen=True)
class Observation:
    """Crops as one encoder sees them.

    Attributes:
        features: (N, D) float32, unit rows.
        copies: (M, D) float32, unit rows: changed copies of the first M crops.
        fault: Why there is nothing to judge: the encoder fails or gives no unit vectors. Empty
            where all is well; features are all zero otherwise.
    """

    features: NDArray[np.float32]
    copies: NDArray[np.float32]
    fault: str = ""


@dataclass(frozen=True)
class Observations:
    """What each encoder sees of the crops that could be decoded.

    Attributes:
        of: One for each encoder, in the order asked.
        kept: The N crops.
        skipped: Crops that could not be decoded, and why.
    """

    of: tuple[Observation, ...]
    kept: tuple[CropRef, ...]
    skipped: tuple[SkippedCrop, ...]


_Images = dict[Preprocessing, tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def observe(
    bundles: Sequence[Bundle],
    refs: Sequence[CropRef],
    *,
    copies: int,
    seed: int,
    advance: Callable[[int], object] = lambda _count: None,
) -> Observations:
    """Embeds crops with every bundle; each crop is read once.

    Args:
        bundles: The encoders; their input sizes may differ.
        refs: Crops; one that cannot be decoded is left out for all.
        copies: How many crops, from the first, are embedded once more as changed copies.
        seed: Of the changes.
        advance: Called with the number of crops finished since its last call.
    """
    sizes = tuple(dict.fromkeys(bundle.preprocessing for bundle in bundles))
    encoders = [_Encoder(bundle, len(refs), copies) for bundle in bundles]
    skipped: list[SkippedCrop] = []
    kept: list[CropRef] = []

    def decode(start: int, stop: int) -> tuple[_Images, list[CropRef], list[SkippedCrop]]:
        return _decode(refs[start:stop], start, sizes, copies=copies, seed=seed)

    for images, found, faults in map_blocks(
        decode, row_blocks(len(refs), _BATCH), threads=available_threads()
    ):
        kept += found
        skipped += faults
        if found:
            for encoder in encoders:
                encoder.take(*images[encoder.preprocessing])
        advance(len(found) + len(faults))
    return Observations(tuple(e.observation() for e in encoders), tuple(kept), tuple(skipped))


def _decode(
    refs: Sequence[CropRef],
    first: int,
    sizes: Sequence[Preprocessing],
    *,
    copies: int,
    seed: int,
) -> tuple[_Images, list[CropRef], list[SkippedCrop]]:
    plain: list[list[NDArray[np.uint8]]] = [[] for _ in sizes]
    changed: list[list[NDArray[np.uint8]]] = [[] for _ in sizes]
    kept: list[CropRef] = []
    skipped: list[SkippedCrop] = []
    for number, ref in enumerate(refs, start=first):
        try:
            data = read_crop(ref.path)
            pictures = [prepare(data, size) for size in sizes]
        except (UndecodableImage, ImageTooLarge) as error:
            skipped.append(SkippedCrop(ref.path, fault_of(error), error.message))
            continue
        kept.append(ref)
        for at, picture in enumerate(pictures):
            plain[at].append(picture)
            if number < copies:
                changed[at].append(perturb(picture, seed=seed, crop=number))
    images = {
        size: (_stacked(plain[at], size), _stacked(changed[at], size))
        for at, size in enumerate(sizes)
    }
    return images, kept, skipped


def _stacked(pictures: list[NDArray[np.uint8]], size: Preprocessing) -> NDArray[np.uint8]:
    if not pictures:
        return np.empty((0, size.height, size.width, 3), dtype=np.uint8)
    return np.stack(pictures)


class _Encoder:
    """Collects what one bundle gives; stops asking it after its first failure."""

    def __init__(self, bundle: Bundle, crops: int, copies: int) -> None:
        self.preprocessing = bundle.preprocessing
        self._features = np.zeros((crops, bundle.dimension), dtype=np.float32)
        self._copies = np.zeros((min(copies, crops), bundle.dimension), dtype=np.float32)
        self._seen = self._changed = 0
        self._fault = ""
        self._session: GraphSession | None = None
        try:
            self._session = GraphSession(bundle.encoder_path.read_bytes(), self.preprocessing)
        except InvalidArgument as error:
            self._fault = error.message

    def take(self, plain: NDArray[np.uint8], changed: NDArray[np.uint8]) -> None:
        self._write(self._features, self._seen, plain)
        self._write(self._copies, self._changed, changed)
        self._seen += len(plain)
        self._changed += len(changed)

    def _write(self, into: NDArray[np.float32], at: int, images: NDArray[np.uint8]) -> None:
        if self._session is None or not len(images):
            return
        try:
            into[at : at + len(images)] = self._session.embed(images)
        except InvalidArgument as error:
            self._fault, self._session = error.message, None

    def observation(self) -> Observation:
        features, copies = self._features[: self._seen], self._copies[: self._changed]
        if self._fault:
            return Observation(np.zeros_like(features), np.zeros_like(copies), self._fault)
        return Observation(features, copies)
