"""What SpCL's batches are made of."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from adapt.data.sampler import batches
from adapt.methods.method import Features
from adapt.methods.spcl import Spcl
from adapt.training.config import RunConfig, SpclSettings


def drawn(draw: Literal["every", "clusters"]) -> tuple[set[int], set[int], int]:
    """Crops in clusters, crops of an epoch's batches, and classes contrasted."""
    random = np.random.default_rng(0)
    people = np.repeat(random.normal(size=(6, 16)), 8, axis=0)
    people += 0.02 * random.normal(size=people.shape)
    vectors = np.concatenate([people, random.normal(size=(30, 16))]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    config = RunConfig(
        method="spcl", p=6, k=4, k1=8, k2=3, spcl=SpclSettings(draw=draw, self_paced=False)
    )
    labels = Spcl(config, None, torch.device("cpu")).prepare_epoch(Features(vectors), 0)
    stream = batches(
        labels.classes if labels.draw is None else labels.draw, None, p=6, k=4, seed=1, epoch=0
    )
    seen = {int(row) for _ in range(30) for row in next(stream)}
    sizes = np.bincount(labels.classes)
    clustered = set(np.flatnonzero(sizes[labels.classes] > 1).tolist())
    return clustered, seen, labels.count


def test_every_class_is_drawn_or_clusters_alone() -> None:
    clustered, every, contrasted = drawn("every")
    assert 48 <= len(clustered) < 78
    assert every == set(range(78))
    again, alone, same = drawn("clusters")
    assert again == clustered
    assert alone == clustered
    assert same == contrasted
