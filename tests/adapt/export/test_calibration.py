"""Calibration against scikit-learn, and against worlds whose probabilities are known."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from adapt.export.calibration import (
    Form,
    _isotonic,
    _logistic,
    at_prior,
    calibrate,
    reliability,
)
from adapt.export.cluster_pairs import cluster_pairs, cluster_prior
from adapt.export.pairs import LabelFreePairs
from resight.bundle.calibration import Calibration
from resight.errors import FailedPrecondition
from resight.v1 import bundle_pb2

SAME, DIFFERENT, SPREAD = 0.7, 0.3, 0.12


def world(count: int, share: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Similarities whose log-odds are a line: two normals of one variance."""
    rng = np.random.default_rng(seed)
    same = rng.random(count) < share
    return rng.normal(np.where(same, SAME, DIFFERENT), SPREAD), same


def true_log_odds(s: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    ratio = norm.logpdf(s, SAME, SPREAD) - norm.logpdf(s, DIFFERENT, SPREAD)
    return np.asarray(ratio + np.log(prior / (1 - prior)))


def as_vectors(s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pairs of unit vectors with these cosines, one after the other."""
    s = np.clip(s, -1, 1)
    left = np.tile([1.0, 0.0], (len(s), 1))
    right = np.stack([s, np.sqrt(1 - s**2)], axis=1)
    return np.stack([left, right], axis=1).reshape(-1, 2)


def as_pairs(same: NDArray[np.bool_], held: NDArray[np.bool_]) -> LabelFreePairs:
    rows = np.arange(len(same)) * 2
    return LabelFreePairs(rows, rows + 1, same, held)


def weights(same: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(np.where(same, 0.5 / same.mean(), 0.5 / (~same).mean()), np.float64)


def test_logistic_is_scikit_learns() -> None:
    s, same = world(3000, 0.2, 0)
    slope, intercept = _logistic(s, same)
    positives, negatives = same.sum(), (~same).sum()
    # Platt's targets as two weighted copies of every pair.
    target = np.where(same, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(
        np.tile(s, 2)[:, None],
        np.repeat([1, 0], len(s)),
        sample_weight=np.concatenate([weights(same) * target, weights(same) * (1 - target)]),
    )
    assert slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert intercept == pytest.approx(model.intercept_[0], rel=1e-4)


def test_isotonic_is_scikit_learns() -> None:
    s, same = world(2000, 0.3, 1)
    s = np.round(s, 2)  # with ties
    knots, log_odds = _isotonic(s, same)
    model = IsotonicRegression(out_of_bounds="clip").fit(s, same, sample_weight=weights(same))
    edge = 1 / (len(s) + 2)
    expected = model.predict(knots).clip(edge, 1 - edge)
    assert np.allclose(1 / (1 + np.exp(-log_odds)), expected, atol=1e-9)
    assert set(knots) <= set(s)
    assert (np.diff(log_odds) >= 0).all()


@pytest.mark.parametrize(
    ("form", "prior", "margin"),
    [("logistic", 0.5, 0.02), ("logistic", 0.01, 0.02), ("isotonic", 0.5, 0.1)],
)
def test_probabilities_are_those_of_the_world(form: Form, prior: float, margin: float) -> None:
    s, same = world(12_000, 0.3, 2)
    held = np.arange(len(s)) % 3 == 0
    message = calibrate(as_vectors(s), as_pairs(same, held), form=form)
    calibration = Calibration.from_proto(message)
    grid = np.linspace(0.3, 0.7, 9)
    expected = 1 / (1 + np.exp(-true_log_odds(grid, prior)))
    found = calibration.probabilities(grid.tolist(), prior=prior)
    assert np.allclose(found, expected, atol=margin)
    assert message.expected_calibration_error < 0.02
    assert (message.positives + message.held_out_positives) == same.sum()
    assert (message.negatives + message.held_out_negatives) == (~same).sum()
    assert not calibration.from_labels_of_its_own


def test_the_reliability_figure_sees_a_wrong_calibration() -> None:
    """A world where held-out pairs of one person look like pairs of two."""
    s, same = world(6000, 0.5, 3)
    held = np.arange(len(s)) % 2 == 0
    s[held & same] -= 0.25
    message = calibrate(as_vectors(s), as_pairs(same, held))
    assert message.expected_calibration_error > 0.15


def test_reliability_is_its_equation() -> None:
    rng = np.random.default_rng(4)
    p, same = rng.random(500), rng.random(500) < 0.3
    share = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (p >= low) & (p < low + 0.1)
        expected += abs((share * (p - same))[inside].sum())
    ece, loss = reliability(p, same)
    assert ece == pytest.approx(expected, abs=1e-9)
    assert loss == pytest.approx(-(share * np.log(np.where(same, p, 1 - p))).sum())


def test_another_prior_is_the_same_map_shifted() -> None:
    s, same = world(6000, 0.5, 5)
    message = calibrate(as_vectors(s), as_pairs(same, np.zeros(len(s), bool)))
    original, moved = (
        Calibration.from_proto(entry) for entry in (message, at_prior(message, 0.003))
    )
    assert moved.prior == 0.003
    for value in (-0.2, 0.5, 0.9):
        assert moved.probability(value) == pytest.approx(original.probability(value, prior=0.003))
    assert any("held out" in note for note in message.notes)


def test_an_encoder_that_tells_nobody_apart_is_refused() -> None:
    s, same = world(2000, 0.5, 7)
    held = np.zeros(len(s), bool)
    with pytest.raises(FailedPrecondition, match="no more similar"):
        calibrate(as_vectors(-s), as_pairs(same, held))


def test_one_constant_similarity_gives_no_slope() -> None:
    same = np.arange(200) % 2 == 0
    s = np.full(200, 0.5)
    with pytest.raises(FailedPrecondition, match="no more similar"):
        calibrate(as_vectors(s), as_pairs(same, np.zeros(200, bool)))


def test_a_perfect_encoder_stays_finite() -> None:
    same = np.arange(400) % 2 == 0
    s = np.where(same, 0.9, 0.1) + np.random.default_rng(0).normal(0, 0.01, 400)
    for form in get_args(Form):
        pairs = as_pairs(same, np.zeros(400, bool))
        message = calibrate(as_vectors(s), pairs, form=form)
        calibration = Calibration.from_proto(message)
        assert 0.9 < calibration.probability(0.9) < 1
        assert 0 < calibration.probability(0.1) < 0.1


def people(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 80, count), rng.integers(0, 4, count)


def test_cluster_pairs_are_what_they_say() -> None:
    labels, cameras = people(1500, 2)
    labels[::5] = -1
    pairs = cluster_pairs(labels, cameras)
    together = labels[pairs.left] == labels[pairs.right]
    assert (together & (labels[pairs.left] >= 0))[pairs.same].all()
    assert not (together & (labels[pairs.left] >= 0))[~pairs.same].any()
    assert (labels[pairs.left[~pairs.same]] < 0).any()
    assert (cameras[pairs.left] != cameras[pairs.right]).all()
    assert not pairs.held_out.any()
    keys = {tuple(sorted(p)) for p in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)}
    assert len(keys) == len(pairs.left)
    assert cluster_pairs(labels, np.zeros(1500, int)).same.sum() >= 50
    assert cluster_pairs(labels).same.sum() >= 50
    for bad in (np.full(600, -1), np.arange(600), np.zeros(600, int)):
        with pytest.raises(FailedPrecondition, match="50 of each"):
            cluster_pairs(bad)


def test_clusters_give_a_marked_calibration() -> None:
    """Clusters that are right: the log-odds of the world, with nothing claimed of reliability."""
    rng = np.random.default_rng(3)
    labels, cameras = people(1500, 3)
    centres = rng.normal(size=(80, 6))
    vectors = centres[labels] + 0.8 * rng.normal(size=(1500, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    message = calibrate(vectors, cluster_pairs(labels, cameras), evidence="clusters")
    assert message.evidence == bundle_pb2.ScoreCalibration.EVIDENCE_CLUSTERS
    assert message.held_out_positives == message.expected_calibration_error == 0
    assert any("confirm it" in note for note in message.notes)
    calibration = Calibration.from_proto(message)
    assert calibration.from_labels_of_its_own
    left, right = rng.integers(0, 1500, (2, 40_000))
    s = np.einsum("ij,ij->i", vectors[left], vectors[right])
    same = labels[left] == labels[right]
    bins = np.digitize(s, [0.0, 0.25, 0.5, 0.75, 0.9])
    prior = float(same[left != right].mean())
    found = np.array(calibration.probabilities(s.tolist(), prior=prior))
    for place in range(1, 5):
        inside = (bins == place) & (left != right)
        assert found[inside].mean() == pytest.approx(same[inside].mean(), abs=0.05)


@pytest.mark.parametrize("with_cameras", [True, False])
def test_the_prior_is_the_share_of_pairs_of_one_cluster(with_cameras: bool) -> None:
    labels, cameras = people(300, 4)
    labels[::7] = -1
    cameras[::11] = -1
    one = every = 0
    for i in range(300):
        for j in range(300):
            if with_cameras and (cameras[i] == cameras[j] or -1 in (cameras[i], cameras[j])):
                continue
            if i != j:
                every += 1
                one += labels[i] == labels[j] >= 0
    found = cluster_prior(labels, cameras if with_cameras else None)
    assert found == pytest.approx(one / every)
    assert cluster_prior(np.full(9, -1)) is None
    assert cluster_prior(labels, np.zeros(300, int)) == cluster_prior(labels)
