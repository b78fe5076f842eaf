"""From similarity to the probability of one identity, by maximum likelihood without labels.

Pairs (s_i, c_i), c_i = 1 for two crops of one track and 0 for two people seen at one time, with
weights w_i that give both kinds the same sum. The log-odds f, at a prior of 1/2, maximise

    L(f) = sum_i w_i [ t_i log p_i + (1 - t_i) log(1 - p_i) ],    p_i = 1 / (1 + exp(-f(s_i)))

over lines f(s) = a s + b, a > 0, by Newton's method with Platt's targets t = (n_1 + 1)/(n_1 + 2)
and 1/(n_0 + 2) in place of 1 and 0 (Platt 1999), or over functions that do not fall, by pooling
adjacent violators (Ayer et al. 1955), t_i = c_i, with p kept within 1/(n + 2) of 0 and 1.

Reliability, on pairs held out, in ten bins B of equal width, weights summing to 1:

    ECE = sum_B | sum_{i in B} w_i (p_i - c_i) |

Intended deviations: pairs of one track are easier than pairs of one person across cameras, so true
matches between cameras get too low a probability rather than too high (docs/bundle.md has figures);
the manifest says so.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adapt.export.pairs import LabelFreePairs
from resight.bundle.calibration import Calibration
from resight.errors import FailedPrecondition
from resight.v1 import bundle_pb2

__all__ = ["Evidence", "Form", "at_prior", "calibrate", "reliability"]

Form = Literal["logistic", "isotonic"]
Evidence = Literal["tracklets", "clusters"]

_BINS = 10
_NEWTON_STEPS = 100
_LOWEST_SLOPE = 1e-3
ACROSS_CAMERAS = (
    "fitted within cameras: between cameras people look less alike, so a true match there gets"
    " too low a probability rather than too high"
)


def calibrate(
    vectors: NDArray[np.floating],
    pairs: LabelFreePairs,
    *,
    form: Form = "logistic",
    evidence: Evidence = "tracklets",
) -> bundle_pb2.ScoreCalibration:
    """Fits on the pairs to fit on, measures on the pairs held out.

    Args:
        vectors: float (N, D), unit length.
        pairs: Of the same N crops.
        form: Of the map.
        evidence: Where the pairs come from.

    Returns:
        The calibration at a prior of 1/2; see ``at_prior``.

    Raises:
        FailedPrecondition: Pairs of one person are no more similar than pairs of two.
    """
    similarity = pairs.similarities(vectors)
    fit, held = ~pairs.held_out, pairs.held_out
    same = pairs.same
    kinds = bundle_pb2.ScoreCalibration
    tracked = evidence == "tracklets"
    message = bundle_pb2.ScoreCalibration(
        evidence=kinds.EVIDENCE_TRACKLETS if tracked else kinds.EVIDENCE_CLUSTERS,
        prior=0.5,
        positives=int((fit & same).sum()),
        negatives=int((fit & ~same).sum()),
        held_out_positives=int((held & same).sum()),
        held_out_negatives=int((held & ~same).sum()),
        notes=[ACROSS_CAMERAS, *pairs.notes] if tracked else pairs.notes,
    )
    slope, intercept = _logistic(similarity[fit], same[fit])
    if not slope > _LOWEST_SLOPE:
        raise FailedPrecondition(
            "calibration: pairs of one person are no more similar than pairs of two: the encoder or"
            f" the {evidence} are wrong",
            field="calibration",
            reason="NOT_SEPARATED",
        )
    if form == "logistic":
        message.form = kinds.FORM_LOGISTIC
        message.slope, message.intercept = slope, intercept
    else:
        message.form = kinds.FORM_ISOTONIC
        knots, log_odds = _isotonic(similarity[fit], same[fit])
        message.knot_similarities.extend(knots.tolist())
        message.knot_log_odds.extend(log_odds.tolist())
    if same[held].any() and not same[held].all():
        found = np.array(Calibration.from_proto(message).probabilities(similarity[held].tolist()))
        ece, loss = reliability(found, same[held])
        message.expected_calibration_error, message.log_loss = ece, loss
    elif tracked:
        message.notes.append("no pairs of both kinds were held out: its reliability is not known")
    return message


def at_prior(message: bundle_pb2.ScoreCalibration, prior: float) -> bundle_pb2.ScoreCalibration:
    """The same calibration for another share of pairs of one person."""
    shifted = bundle_pb2.ScoreCalibration()
    shifted.CopyFrom(message)
    shift = float(np.log(prior / (1 - prior)) - np.log(message.prior / (1 - message.prior)))
    shifted.prior = prior
    shifted.intercept += shift
    del shifted.knot_log_odds[:]
    shifted.knot_log_odds.extend(value + shift for value in message.knot_log_odds)
    return shifted


def reliability(
    probabilities: NDArray[np.floating], same: NDArray[np.bool_]
) -> tuple[float, float]:
    """Expected calibration error and log loss in nats, both kinds of pairs weighing the same."""
    weights = _weights(same)
    weights = weights / weights.sum()
    place = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(place, weights * (probabilities - same), minlength=_BINS)
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    loss = -(weights * np.where(same, np.log(p), np.log1p(-p))).sum()
    return float(np.abs(gaps).sum()), float(loss)


def _weights(same: NDArray[np.bool_]) -> NDArray[np.float64]:
    positives, negatives = int(same.sum()), int((~same).sum())
    return np.where(same, 0.5 / max(positives, 1), 0.5 / max(negatives, 1)) * len(same)


def _logistic(s: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept; Newton's steps are halved until the likelihood does not fall."""
    weights = _weights(same)
    positives, negatives = int(same.sum()), int((~same).sum())
    target = np.where(same, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([s, np.ones_like(s)], axis=1)

    def loss(theta: NDArray[np.float64]) -> float:
        f = design @ theta
        return float((weights * (np.logaddexp(0, f) - target * f)).sum())

    theta = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -500, 500)))
        gradient = design.T @ (weights * (p - target))
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        scale = 1.0
        while scale > 1e-10 and loss(theta - scale * step) > loss(theta):
            scale /= 2
        theta = theta - scale * step
        if np.abs(step).max() < 1e-10 * (1 + np.abs(theta).max()):
            break
    return float(theta[0]), float(theta[1])


def _isotonic(
    s: NDArray[np.float64], same: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Similarities where the fitted log-odds change, and these: both ends of every block."""
    values, place = np.unique(s, return_inverse=True)
    weights = _weights(same)
    mass = np.bincount(place, weights)
    hits = np.bincount(place, weights * same)
    blocks: list[list[float]] = []  # mass, hits, first, last
    for index in range(len(values)):
        blocks.append([mass[index], hits[index], index, index])
        while len(blocks) > 1 and _share(blocks[-2]) >= _share(blocks[-1]):
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + last[0], blocks[-1][1] + last[1], blocks[-1][2], last[3]]
    edge = 1 / (len(s) + 2)
    knots, log_odds = [], []
    for block in blocks:
        p = min(max(_share(block), edge), 1 - edge)
        for end in dict.fromkeys((int(block[2]), int(block[3]))):
            knots.append(values[end])
            log_odds.append(np.log(p / (1 - p)))
    return np.array(knots), np.array(log_odds)


def _share(block: list[float]) -> float:
    return block[1] / block[0]
