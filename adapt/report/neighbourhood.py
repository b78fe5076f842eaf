"""How an encoder change moved the crops, without labels: by whom each is next to.

Features of two encoders live in different spaces, so crops are compared by their neighbourhoods.
With B(i) and A(i) the k nearest other crops of i before and after, and c(i) its camera::

    change(i) = 1 - |B(i) ∩ A(i)| / |B(i) ∪ A(i)|
    mixing(i) = (share of i's k neighbours from other cameras) / (share of such crops in all others)

A mixing of 1 means that the camera cannot be told from the neighbours; 0 that crops only meet
crops of their own camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.neighbours import nearest
from resight.errors import InvalidArgument

__all__ = [
    "CameraDrift",
    "camera_drift",
    "camera_mixing",
    "neighbour_lists",
    "neighbourhood_change",
]


@dataclass(frozen=True)
class CameraDrift:
    """One camera's part of the change; means over its crops.

    Attributes:
        camera: Its name.
        crops: How many.
        change: Mean neighbourhood change, 0..1.
        mixing_before: See the module; NaN where all crops are of one camera.
        mixing_after: The same after.
    """

    camera: str
    crops: int
    change: float
    mixing_before: float
    mixing_after: float


def neighbour_lists(features: NDArray[np.float32], k: int, *, threads: int) -> NDArray[np.int32]:
    """Rows nearest to each of unit ``features`` (N, D) but itself; (N, min(k, N - 1))."""
    return nearest(features, k + 1, threads=threads).indices[:, 1:]


def neighbourhood_change(
    before: NDArray[np.int32], after: NDArray[np.int32]
) -> NDArray[np.float64]:
    """change(i) of neighbour lists (N, k) of the same crops; (N,) in 0..1.

    Raises:
        InvalidArgument: The lists differ in shape.
    """
    if before.shape != after.shape:
        raise InvalidArgument(
            f"neighbour lists {before.shape} and {after.shape} are of different crops",
            field="after",
        )
    k = before.shape[1]
    if not k:
        return np.zeros(len(before))
    merged = np.sort(np.concatenate([before, after], axis=1), axis=1)
    shared = np.count_nonzero(merged[:, 1:] == merged[:, :-1], axis=1)
    change: NDArray[np.float64] = 1.0 - shared / (2 * k - shared)
    return change


def camera_mixing(lists: NDArray[np.int32], cameras: NDArray[np.int32]) -> NDArray[np.float64]:
    """mixing(i) of neighbour lists (N, k) and camera codes (N,); NaN with a single camera."""
    sizes = np.bincount(cameras)[cameras]
    elsewhere = (len(cameras) - sizes) / max(1, len(cameras) - 1)
    found = (cameras[lists] != cameras[:, None]).mean(axis=1)
    mixing = np.full(len(found), np.nan)
    np.divide(found, elsewhere, out=mixing, where=elsewhere > 0)
    return mixing


def camera_drift(
    before: NDArray[np.int32],
    after: NDArray[np.int32],
    cameras: NDArray[np.int32],
    names: Sequence[str],
) -> list[CameraDrift]:
    """Drift of each camera, in the order of ``names``, from neighbour lists (N, k)."""
    change = neighbourhood_change(before, after)
    mixing = camera_mixing(before, cameras), camera_mixing(after, cameras)
    return [
        CameraDrift(
            name,
            int(members.sum()),
            float(change[members].mean()),
            float(mixing[0][members].mean()),
            float(mixing[1][members].mean()),
        )
        for code, name in enumerate(names)
        if (members := cameras == code).any()
    ]
