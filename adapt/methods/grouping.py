"""Pseudo-labels from features: what every method that clusters asks of ``adapt.clustering``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapt.clustering.cluster import ClusterResult, cluster
from adapt.clustering.constraints import Constraints
from adapt.clustering.neighbours import CameraNeighbours, Neighbours
from adapt.clustering.radius import LARGEST
from adapt.clustering.settings import ClusterSettings
from adapt.training.config import RunConfig
from adapt.training.device import select_device
from adapt.training.distributed import current
from adapt.training.torch_search import torch_search
from resight.errors import FailedPrecondition

__all__ = [
    "Grouping",
    "centre_by_camera",
    "group",
    "repetition",
    "require_cameras",
    "require_contrast",
    "tighter",
]

# Nearly identical everywhere, a feature less its camera's mean is rounding noise.
_NO_DIRECTION = 1e-6
# Crops from which on a camera's own mean is trusted; see ``centre_by_camera``.
_ENOUGH_CROPS = 10
# Rows centred at a time: one copy of the features is enough.
_CHUNK = 4096


@dataclass(frozen=True)
class Grouping:
    """Pseudo-labels, the same on every rank.

    Attributes:
        labels: (N,) int32 at ``eps``, clusters from 0, -1 for outliers.
        eps: The radius, chosen or set.
        tight, loose: The same at ``eps - gap`` and ``eps + gap``; None without a gap.
        settings: As clustered.
        seconds: Wall seconds by step.
        notes: Degradations, in words.
        figures: What was decided on the way, for the summary: of ``eps: auto`` the radius and why.
        result: Graph and neighbours, on the first rank alone: what is made of them belongs in
            ``adapt.training.distributed.current().once``.
    """

    labels: NDArray[np.int32]
    eps: float
    tight: NDArray[np.int32] | None
    loose: NDArray[np.int32] | None
    settings: ClusterSettings
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
    figures: Mapping[str, float]
    result: ClusterResult | None

    @property
    def neighbours(self) -> Neighbours | CameraNeighbours | None:
        """The neighbour lists, on the first rank alone."""
        return None if self.result is None else self.result.neighbours

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def outliers(self) -> int:
        """Number of crops in no cluster."""
        return int(np.count_nonzero(self.labels < 0))


def group(
    features: NDArray[np.float32],
    config: RunConfig,
    cameras: NDArray[np.int32] | None,
    *,
    gap: float = 0.0,
    constraints: Constraints | None = None,
) -> Grouping:
    """Clusters ``features`` (N, D), unit rows, at ``eps`` and, with a ``gap``, on both sides of it.

    At every radius labels keep to ``constraints``.

    Of several ranks the first does it for all.

    Raises:
        FailedPrecondition: The distance needs cameras and the run has none.
    """
    require_cameras(config, cameras)
    if config.camera_centering and cameras is not None:
        features = centre_by_camera(features, cameras)
    settings = ClusterSettings(
        distance=config.distance,
        k1=config.k1,
        k2=config.k2,
        k1_intra=config.k1_intra,
        k1_inter=config.k1_inter,
        k2_intra=config.k2_intra,
        k2_inter=config.k2_inter,
        eps=config.eps,
        min_samples=config.min_samples,
        gap=gap,
        neighbours=config.neighbours,
        approximate_above=config.approximate_above,
        neighbour_recall=config.neighbour_recall,
    )
    found: list[ClusterResult] = []

    def label() -> dict[str, Any]:
        result = cluster(
            features,
            settings,
            cameras=cameras,
            constraints=constraints,
            threads=config.threads or None,
            search=torch_search(select_device(config.device)),
        )
        found.append(result)
        near = [result.labels_at(eps) for eps in (result.eps - gap, result.eps + gap) if gap]
        return {
            "labels": torch.from_numpy(np.stack([result.labels, *near])),
            "eps": result.eps,
            "seconds": result.seconds,
            "notes": list(result.notes),
            "figures": result.figures,
        }

    given = current().once(label)
    labels, *near = given["labels"].numpy()
    tight, loose = near or (None, None)
    return Grouping(
        labels=labels,
        eps=given["eps"],
        tight=tight,
        loose=loose,
        settings=settings,
        seconds=given["seconds"],
        notes=tuple(given["notes"]),
        figures=given["figures"],
        result=next(iter(found), None),
    )


def centre_by_camera(
    features: NDArray[np.float32], cameras: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Unit rows after taking each camera's mean off its crops, which removes part of its style.

    Of the n crops of a camera c, mu_c is their mean and mu that of all crops. Taken off is ::

        mu_c' = mu + share (mu_c - mu),    share = min(1, (n - 1) / (n0 - 1)),    n0 = 10

    A camera of n0 crops or more loses its mean whole: from ImageNet weights, what sets a camera
    apart is so much larger than what sets people apart that even a twentieth of it, left in, makes
    clusters of cameras (the demo's mAP then falls instead of doubling). A smaller one mostly loses
    mu: mu_c alone would leave two crops of a camera exactly opposite, and of a single one nothing.

    Args:
        features: (N, D) unit rows.
        cameras: (N,) camera codes.
    """
    centred = features.copy()
    whole = _mean(features, np.arange(len(features)))
    for camera in np.unique(cameras):
        members = np.flatnonzero(cameras == camera)
        share = min(1.0, (members.size - 1) / (_ENOUGH_CROPS - 1))
        taken = (whole + share * (_mean(features, members) - whole)).astype(np.float32)
        for rows in _chunks(members):
            part = features[rows] - taken
            norms = np.linalg.norm(part, axis=1, keepdims=True)
            # A crop equal to what is taken off has no direction left: it keeps its own.
            directed = norms > _NO_DIRECTION
            centred[rows] = np.where(
                directed, part / np.maximum(norms, _NO_DIRECTION), features[rows]
            )
    return centred


def _mean(features: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    total = np.zeros(features.shape[1])
    for part in _chunks(rows):
        total += features[part].sum(axis=0, dtype=np.float64)
    return total / max(rows.size, 1)


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, rows.size, _CHUNK):
        yield rows[start : start + _CHUNK]


def require_cameras(config: RunConfig, cameras: NDArray[np.int32] | None) -> None:
    """Refuses a distance between cameras where none are known.

    Raises:
        FailedPrecondition: The distance needs cameras and the run has none.
    """
    if config.distance == "ca-jaccard" and cameras is None:
        raise FailedPrecondition(
            "distance: ca-jaccard needs the camera of every crop, and this run is camera-free; name"
            " a source with cameras or use distance=jaccard",
            field="distance",
            reason="NO_CAMERAS",
        )


def require_contrast(clusters: int, crops: int, epoch: int, config: RunConfig) -> None:
    """Refuses what a method that leaves outliers out cannot learn from.

    Raises:
        FailedPrecondition: Fewer than two clusters.
    """
    if clusters >= 2:
        return
    where = f"epoch {epoch + 1}: of {crops} crops"
    if clusters == 0:
        raise FailedPrecondition(
            f"{where} all are outliers (eps={config.eps}, min_samples={config.min_samples}): give"
            f" more crops of each person, {_looser(config)}, lower min_samples, or start from an"
            " encoder trained on persons (--init)",
            field="eps",
            reason="NO_CLUSTERS",
        )
    raise FailedPrecondition(
        f"{where} the clustered ones form a single cluster, so there is nothing to contrast: the"
        f" crops may all be alike; otherwise {tighter(config)} or start from another encoder"
        " (--init)",
        field="eps",
        reason="ONE_CLUSTER",
    )


def tighter(config: RunConfig) -> str:
    """What to do where everything hangs together: a radius that is chosen cannot be lowered."""
    if config.eps == "auto":
        return f"set eps by hand (eps=0.4), lower {_neighbourhood(config)}"
    return "lower eps"


def _looser(config: RunConfig) -> str:
    # What eps=auto has tried up to LARGEST without a cluster, no eps set by hand below it mends.
    if config.eps == "auto":
        return f"lower {_neighbourhood(config)}, set eps by hand above {LARGEST}"
    return "raise eps"


def _neighbourhood(config: RunConfig) -> str:
    if config.distance == "ca-jaccard":
        return f"k1_inter ({config.k1_inter})"
    return f"k1 ({config.k1})"


def repetition(drawn: int, config: RunConfig, of: str = "clusters") -> list[str]:
    """A note where there are fewer groups ``drawn`` from than a batch has; none otherwise."""
    if drawn >= config.p:
        return []
    return [f"{drawn} {of} are fewer than p={config.p}: batches repeat {of}"]
