"""What a run attaches to its bundle, each admitted by its own check or left out with a note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adapt.data.cache import CropCache
from adapt.export.calibration import Evidence, at_prior, calibrate
from adapt.export.cluster_pairs import choose_clustered, cluster_pairs, cluster_prior
from adapt.export.int8 import INT8_ENCODER, int8_attachment
from adapt.export.pairs import LabelFreePairs, PairSettings, choose_crops, tracklet_pairs
from adapt.export.rank_agreement import compare_ranking, embed_in_batches
from adapt.export.settings import ExportSettings
from adapt.export.sightings import UNKNOWN, Sightings, sightings_of
from resight.bundle.attachments import Attachments
from resight.bundle.graph_session import GraphSession
from resight.bundle.half_check import check_half
from resight.bundle.half_precision import HALF_ENCODER, to_half
from resight.bundle.rank_agreement import RankBounds
from resight.crops.preprocessing import Preprocessing
from resight.errors import FailedPrecondition, ResightError

__all__ = ["RunCrops", "make_attachments"]

# The rounding simulation costs several times a plain run, and means settle early.
_RANKED = 128
_FEWEST_RANKED = 24
_DEFAULT_PRIOR = 0.01


@dataclass(frozen=True)
class RunCrops:
    """The crops of a run and what it made of them.

    Attributes:
        cache: The N decoded crops.
        labels: (N,) clusters of the last epoch, -1 in none; None or empty without any.
        seed: Of all draws.
        ignore_cameras: Whether the run was told to know of no cameras.
    """

    cache: CropCache
    labels: NDArray[np.integer] | None = None
    seed: int = 0
    ignore_cameras: bool = False

    @property
    def sightings(self) -> Sightings:
        """What is known of the crops."""
        known = sightings_of(self.cache.crops)
        if self.ignore_cameras:
            return replace(known, cameras=np.full_like(known.cameras, UNKNOWN))
        return known

    @property
    def clusters(self) -> NDArray[np.int64] | None:
        """The labels, where there is one for every crop and any cluster."""
        if self.labels is None or len(self.labels) != len(self.cache):
            return None
        return np.asarray(self.labels, np.int64) if (self.labels >= 0).any() else None


def make_attachments(
    encoder: bytes, preprocessing: Preprocessing, run: RunCrops, settings: ExportSettings
) -> Attachments:
    """fp16 and INT8 graphs and the score calibration, as far as asked for and as far as they hold.

    Args:
        encoder: ``encoder.onnx``.
        preprocessing: Input size, that of ``run.cache``.
        run: Its crops.
        settings: What is wanted.

    Returns:
        What passed; ``notes`` name what did not, and why.
    """
    sightings = run.sightings
    ranked = _random_crops(run, settings)
    pixels = run.cache.gather(ranked)
    attached = Attachments()
    bounds = RankBounds(settings.min_overlap, settings.min_correlation)
    if settings.fp16:
        _keep(attached, HALF_ENCODER, lambda: _half(encoder, preprocessing, pixels, bounds))
    if settings.int8:
        others = _random_crops(run, settings, without=ranked)
        _keep(
            attached,
            INT8_ENCODER,
            lambda: int8_attachment(
                encoder, preprocessing, run.cache.gather(others), pixels, bounds=bounds
            ),
        )
    if settings.calibration != "off" and settings.crops:
        _keep(
            attached,
            "score calibration",
            lambda: _calibration(encoder, preprocessing, run, sightings, settings),
        )
    return attached


def _keep(attached: Attachments, what: str, make: Callable[[], Attachments]) -> None:
    try:
        attached.add(make())
    except ResightError as error:
        attached.notes.append(f"{what} left out: {error.message}")


def _random_crops(
    run: RunCrops, settings: ExportSettings, *, without: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    order = np.random.default_rng(run.seed).permutation(len(run.cache))
    if without is None:
        return np.sort(order[: min(_RANKED, settings.crops)])
    others = order[~np.isin(order, without)]
    return np.sort(others[: settings.crops])


def _half(
    encoder: bytes, preprocessing: Preprocessing, crops: NDArray[np.uint8], bounds: RankBounds
) -> Attachments:
    half = to_half(encoder)
    checked = check_half(encoder, half, preprocessing, crops)
    attached = Attachments(files={HALF_ENCODER: half}, parity=list(checked.parity))
    if len(crops) < _FEWEST_RANKED:
        attached.notes.append(
            f"{HALF_ENCODER} was not compared by ranking: {len(crops)} crops, {_FEWEST_RANKED} are"
            " needed"
        )
        return attached
    agreement = compare_ranking(checked.whole, checked.half).admit(HALF_ENCODER, bounds)
    attached.rank_agreement.append(agreement)
    return attached


def _calibration(
    encoder: bytes,
    preprocessing: Preprocessing,
    run: RunCrops,
    sightings: Sightings,
    settings: ExportSettings,
) -> Attachments:
    chosen, pairs, evidence, notes = _evidence(run, sightings, settings)
    vectors = embed_in_batches(GraphSession(encoder, preprocessing).embed, run.cache.gather(chosen))
    fitted = calibrate(vectors, pairs, form=settings.calibration_form, evidence=evidence)
    prior, assumed = _prior(run, sightings, settings)
    fitted.notes.extend([*notes, *assumed])
    return Attachments(calibration=at_prior(fitted, prior))


def _evidence(
    run: RunCrops, sightings: Sightings, settings: ExportSettings
) -> tuple[NDArray[np.int64], LabelFreePairs, Evidence, list[str]]:
    """The crops to look at, their pairs, what these rest on, and why not on something better."""
    notes: list[str] = []
    if settings.calibration != "clusters":
        chosen = choose_crops(sightings, settings.crops, seed=run.seed)
        wanted = PairSettings(
            simultaneous=settings.simultaneous, views_overlap=settings.views_overlap
        )
        try:
            pairs = tracklet_pairs(sightings.take(chosen), wanted, seed=run.seed)
        except FailedPrecondition as error:
            if settings.calibration == "tracklets" or run.clusters is None:
                raise
            notes.append(error.message)
        else:
            return chosen, pairs, "tracklets", notes
    if run.clusters is None:
        raise FailedPrecondition(
            "calibration: the run has neither tracks nor clusters to fit it on", field="crops"
        )
    chosen = choose_clustered(run.clusters, settings.crops, seed=run.seed)
    pairs = cluster_pairs(run.clusters[chosen], sightings.cameras[chosen], seed=run.seed)
    return chosen, pairs, "clusters", notes


def _prior(
    run: RunCrops, sightings: Sightings, settings: ExportSettings
) -> tuple[float, list[str]]:
    if settings.prior is not None:
        return settings.prior, []
    if run.clusters is not None:
        share = cluster_prior(run.clusters, sightings.cameras)
        if share is not None:
            return min(share, 0.5), [
                f"the prior, {share:.2g}, is the share of pairs of one cluster among all pairs"
            ]
    return _DEFAULT_PRIOR, [
        f"the prior, {_DEFAULT_PRIOR}, is a default: no clusters to take it from"
    ]
