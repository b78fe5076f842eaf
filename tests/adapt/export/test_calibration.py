"""Calibration against scikit-learn, and against worlds whose probabilities are known."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from adapt.export.calibration import (
    Form,
    _isotonic,
    _logistic,
    at_prior,
    calibrate,
    estimate_prior,
    reliability,
)
from adapt.export.mixture import calibrate_on_clusters, cluster_pairs
from adapt.export.pairs import LabelFreePairs
from resight.bundle.calibration import Calibration
from resight.errors import FailedPrecondition
from resight.v1 import bundle_pb2

SAME, DIFFERENT, SPREAD = 0.7, 0.3, 0.12
TRUE_SLOPE = (SAME - DIFFERENT) / SPREAD**2


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


@pytest.mark.parametrize("prior", [0.002, 0.05, 0.4])
def test_the_prior_of_unlabelled_pairs_is_found(prior: float) -> None:
    s, same = world(6000, 0.5, 5)
    message = calibrate(as_vectors(s), as_pairs(same, np.zeros(len(s), bool)))
    unlabelled, truth = world(60_000, prior, 6)
    found = estimate_prior(message, unlabelled)
    assert found == pytest.approx(truth.mean(), rel=0.25)
    moved = Calibration.from_proto(at_prior(message, found))
    assert moved.prior == found
    original = Calibration.from_proto(message)
    for value in (-0.2, 0.5, 0.9):
        expected = original.probability(value, prior=found)
        assert moved.probability(value) == pytest.approx(expected)
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


def test_clusters_that_are_right_give_the_discriminants_line() -> None:
    """With witnesses that never err the mixture is linear discriminant analysis."""
    s, same = world(8000, 0.5, 8)
    message = calibrate_on_clusters(s, same)
    model = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(s[:, None], same)
    assert message.slope == pytest.approx(model.coef_[0, 0], rel=0.03)
    assert message.intercept == pytest.approx(model.intercept_[0], rel=0.03)
    assert message.evidence == bundle_pb2.ScoreCalibration.EVIDENCE_CLUSTERS
    assert Calibration.from_proto(message).from_labels_of_its_own
    assert "ranking" in message.notes[0]


def test_clusters_that_err_are_seen_through() -> None:
    """Two fifths of the clusters' words are wrong, regardless of the similarity."""
    s, same = world(20_000, 0.5, 9)
    lies = np.random.default_rng(1).random(len(s)) < np.where(same, 0.3, 0.1)
    message = calibrate_on_clusters(s, same ^ lies)
    assert message.slope == pytest.approx(TRUE_SLOPE, rel=0.1)
    threshold = -message.intercept / message.slope
    assert threshold == pytest.approx((SAME + DIFFERENT) / 2, abs=0.01)
    naive = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(s[:, None], same ^ lies)
    assert abs(naive.coef_[0, 0] - TRUE_SLOPE) > 3 * abs(message.slope - TRUE_SLOPE)


def test_cluster_pairs_are_what_they_say() -> None:
    rng = np.random.default_rng(2)
    labels, cameras = rng.integers(-1, 40, 600), rng.integers(-1, 3, 600)
    pairs, together = cluster_pairs(labels, cameras)
    assert together.sum() * 2 == len(together)
    assert np.array_equal(labels[pairs[:, 0]] == labels[pairs[:, 1]], together)
    assert (labels[pairs] >= 0).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (cameras[pairs[:, 0]] != cameras[pairs[:, 1]]).all()
    assert (cameras[pairs] >= 0).all()
    one_camera, _ = cluster_pairs(labels, np.zeros(600, int))
    assert len(one_camera)
    for bad in (np.full(600, -1), np.arange(600), np.zeros(600, int)):
        with pytest.raises(FailedPrecondition, match="50 of each"):
            cluster_pairs(bad)
