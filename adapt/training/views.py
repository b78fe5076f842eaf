"""What one training step sees: crops sampled, gathered and augmented for this rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

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

__all__ = ["Views", "Workload", "training_views"]


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
    """

    cache: CropCache
    cameras: NDArray[np.int32] | None
    normalise: Normalisation
    extractor: Extractor
    iterations: int
    device: torch.device


@dataclass(frozen=True)
class Views:
    """One step's images, of this rank, and which crops they and the other ranks' are.

    Attributes:
        inputs: (B / K, 3, H, W) float32, normalised: the share of one of K ranks.
        rows: (B,) int64 index of each crop of the whole batch.
        classes: (B,) int64 class of each.
        again: As ``inputs``, augmented a second time for the teacher; None when not wanted.
    """

    inputs: Tensor
    rows: Tensor
    classes: Tensor
    again: Tensor | None = None


def training_views(
    config: RunConfig, work: Workload, labels: EpochLabels, epoch: int
) -> Iterator[Views]:
    """The steps of ``epoch``, a function of settings, labels and ranks alone."""
    augment = Augmentation(
        flip=config.flip, pad=config.pad, erasing=config.erasing, erasing_fill=config.erasing_fill
    )
    size = config.p * config.k
    share = current().share(size)
    indices = batches(
        labels.classes if labels.draw is None else labels.draw,
        work.cameras,
        p=config.p,
        k=config.k,
        seed=config.seed,
        epoch=epoch,
    )
    loaded = load(
        work.cache,
        islice(indices, work.iterations),
        device=work.device,
        prefetch=config.prefetch,
        share=share,
    )
    classes = torch.from_numpy(labels.classes).to(work.device)
    first, second = (randomness.epoch_generator(config.seed, epoch, stream) for stream in (1, 2))
    twice = config.teacher.weight > 0 and config.teacher.second_augmentation
    for images, chosen in loaded:
        rows = torch.from_numpy(chosen).to(work.device)
        again = None
        if twice:
            again = augment(images, work.normalise, second, share=share, total=size)
        inputs = augment(images, work.normalise, first, share=share, total=size)
        yield Views(inputs, rows, classes[rows], again)
