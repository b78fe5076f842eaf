"""How little the embedding tells of the camera.

    mixing   = share of a crop's k nearest that are of other cameras, as a multiple of what chance
               gives; mean over the crops                              0 apart, 1 as if by chance
    leakage  = sum over cameras c of n_c |m_c - m|^2 / sum over crops |f - m|^2      in [0, 1]

m_c being the mean of camera c's n_c crops and m that of all: the share of the variance that the
camera explains. Cameras see different people, so a good encoder's leakage is not 0.
"""

from __future__ import annotations

import numpy as np

from adapt.gate.view import View
from adapt.report.neighbourhood import camera_mixing

__all__ = ["leakage", "mixing"]


def mixing(view: View) -> float | None:
    """Mean camera mixing of the 20 nearest; None without cameras."""
    if view.cameras is None:
        return None
    return float(camera_mixing(view.plain.indices, view.cameras).mean())


def leakage(view: View) -> float | None:
    """Share of the variance between cameras; None without cameras, 1 without variance."""
    if view.cameras is None:
        return None
    rows = view.features.astype(np.float64)
    rows -= rows.mean(axis=0)
    total = float((rows * rows).sum())
    if not total:
        return 1.0
    between = 0.0
    for camera in np.unique(view.cameras):
        own = rows[view.cameras == camera]
        between += len(own) * float((own.mean(axis=0) ** 2).sum())
    return between / total
