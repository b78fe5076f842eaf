"""What one training step sees: crops sampled, gathered and augmented for this rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.data.augmentation import Augmentation, Normalisation
from adapt.data.cache import CropCache
from adapt.data.loader import load
from adapt.data.sampler import batches
from adapt.methods.method import EpochLabels
from adapt.training import randomness
from adapt.training.config import RunConfig
from adapt.training.distributed import current
from adapt.training.extraction import Extractor
from adapt.training.source_set import SourceSet

__all__ = ["Views", "Workload", "training_views"]

# Numbers of an epoch's random streams.
_SAMPLER, _AUGMENT, _TEACHER, _SOURCE_SAMPLER, _SOURCE = range(5)


@dataclass(frozen=True)
class Workload:
    """What an engine works on.

    Attributes:
        cache: The decoded crops.
        cameras: (N,) codes for the sampler, or None for a camera-free one.
        normalise: uint8 batches to network input.
        extractor: Encoder to features of all crops.
        iterations: Optimiser steps an epoch.
        device: Where the model is.
        source: Labelled crops to learn from beside these, or None.
        source_extractor: As ``extractor``, of the source's crops.
    """

    cache: CropCache
    cameras: NDArray[np.int32] | None
    normalise: Normalisation
    extractor: Extractor
    iterations: int
    device: torch.device
    source: SourceSet | None = None
    source_extractor: Extractor | None = None


@dataclass(frozen=True)
class Views:
    """One step's images, of this rank, and which crops they and the other ranks' are.

    Attributes:
        inputs: (B / K, 3, H, W) float32, normalised: the share of one of K ranks.
        rows: (B,) int64 index of each crop of the whole batch.
        classes: (B,) int64 class of each.
        again: As ``inputs``, augmented a second time for the teacher; None when not wanted.
        source: As ``inputs``, of the source's batch; None without a source.
        identities: (B,) int64 of the source's whole batch.
    """

    inputs: Tensor
    rows: Tensor
    classes: Tensor
    again: Tensor | None = None
    source: Tensor | None = None
    identities: Tensor | None = None


def training_views(
    config: RunConfig, work: Workload, labels: EpochLabels, epoch: int
) -> Iterator[Views]:
    """The steps of ``epoch``, a function of settings, labels and ranks alone."""
    drawn = labels.classes if labels.draw is None else labels.draw
    target = _Sampled(config, work, work.cache, drawn, work.cameras)
    classes = torch.from_numpy(labels.classes).to(work.device)
    first, second = (
        randomness.epoch_generator(config.seed, epoch, stream) for stream in (_AUGMENT, _TEACHER)
    )
    twice = config.teacher.weight > 0 and config.teacher.second_augmentation
    steps = zip(target.batches(epoch, _SAMPLER), _source_views(config, work, epoch), strict=False)
    for (images, rows), (source, identities) in steps:
        again = target.augment(images, second) if twice else None
        inputs = target.augment(images, first)
        yield Views(inputs, rows, classes[rows], again, source, identities)


def _source_views(
    config: RunConfig, work: Workload, epoch: int
) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    if work.source is None:
        yield from repeat((None, None))
        return
    held = work.source
    sampled = _Sampled(config, work, held.cache, held.identities, held.cameras)
    identities = torch.from_numpy(held.identities).to(work.device)
    random = randomness.epoch_generator(config.seed, epoch, _SOURCE)
    for images, rows in sampled.batches(epoch, _SOURCE_SAMPLER):
        yield sampled.augment(images, random), identities[rows]


class _Sampled:
    """This rank's share of batches of one set of crops."""

    def __init__(
        self,
        config: RunConfig,
        work: Workload,
        cache: CropCache,
        classes: NDArray[np.int64],
        cameras: NDArray[np.int32] | None,
    ) -> None:
        self._config = config
        self._work = work
        self._cache = cache
        self._classes = classes
        self._cameras = cameras
        self._size = config.p * config.k
        self._share = current().share(self._size)
        self._augment = Augmentation(
            flip=config.flip,
            pad=config.pad,
            erasing=config.erasing,
            erasing_fill=config.erasing_fill,
        )

    def batches(self, epoch: int, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images of the share, (B / K, H, W, 3) uint8, and rows of the whole batch, (B,)."""
        config, work = self._config, self._work
        indices = batches(
            self._classes,
            self._cameras,
            p=config.p,
            k=config.k,
            seed=config.seed,
            epoch=epoch,
            number=number,
        )
        for images, chosen in load(
            self._cache,
            islice(indices, work.iterations),
            device=work.device,
            prefetch=config.prefetch,
            share=self._share,
        ):
            yield images, torch.from_numpy(chosen).to(work.device)

    def augment(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Augmented as this share of the whole batch, and normalised."""
        return self._augment(
            images, self._work.normalise, random, share=self._share, total=self._size
        )
