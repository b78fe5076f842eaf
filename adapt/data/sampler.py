"""Pseudo-identity sampling: the "random multiple gallery" of SpCL and its descendants.

Every class is visited once in random order. A random member is the anchor; its K - 1 partners come
from *other* cameras when the class has any, else from the other members; without replacement when
there are at least K candidates, else with replacement. A class of one image yields one image, so a
batch of P x K holds P classes only nominally. Passes follow one another without a gap.

Intended deviation: the released loader drops the last incomplete batch of a pass; here it is
completed from the next pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["batches", "class_members"]


def class_members(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices of each class 0..C-1 in ``labels`` (N,); negative labels belong to none."""
    order = np.argsort(labels, kind="stable")
    labelled = order[np.searchsorted(labels[order], 0) :]
    bounds = np.cumsum(np.bincount(labels[labelled]))[:-1]
    return [members.astype(np.int64) for members in np.split(labelled, bounds)]


def batches(
    labels: NDArray[np.int64],
    cameras: NDArray[np.int32] | None,
    *,
    p: int,
    k: int,
    seed: int,
    epoch: int,
    number: int = 0,
) -> Iterator[NDArray[np.int64]]:
    """Endless batches of p * k crop indices, a function of the seed, epoch and number alone.

    Args:
        labels: (N,) class of each crop, 0..C-1, or negative when it is not trained on.
        cameras: (N,) camera codes, or None for the camera-free variant.
        number: Of this among several samplers of a run.

    Yields:
        (p * k,) int64 indices into ``labels``.
    """
    members = [group for group in class_members(labels) if len(group)]
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch, number]))
    size = p * k
    pending: list[NDArray[np.int64]] = []
    held = 0
    while members:
        for position in random.permutation(len(members)):
            group = _group(members[position], cameras, k, random)
            pending.append(group)
            held += len(group)
            while held >= size:
                stream = np.concatenate(pending)
                yield stream[:size]
                pending = [stream[size:]]
                held -= size


def _group(
    members: NDArray[np.int64],
    cameras: NDArray[np.int32] | None,
    k: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    anchor = members[random.integers(len(members))]
    candidates = members[members != anchor]
    if cameras is not None:
        elsewhere = members[cameras[members] != cameras[anchor]]
        candidates = elsewhere if len(elsewhere) else candidates
    if not len(candidates) or k == 1:
        return np.array([anchor], dtype=np.int64)
    partners = random.choice(candidates, size=k - 1, replace=len(candidates) < k)
    return np.concatenate(([anchor], partners))
