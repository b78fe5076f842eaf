"""Reading a calibration: against its equations, numpy's interpolation and its own inverse."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resight.bundle import Bundle, open_bundle
from resight.bundle.attachments import Attachments, attach
from resight.bundle.calibration import Calibration, load_calibration
from resight.errors import BundleCorrupt, InvalidArgument
from resight.v1 import bundle_pb2

KINDS = bundle_pb2.ScoreCalibration


def logistic(**changes: Any) -> bundle_pb2.ScoreCalibration:
    values: dict[str, Any] = {
        "evidence": KINDS.EVIDENCE_TRACKLETS, "form": KINDS.FORM_LOGISTIC,
        "slope": 20.0, "intercept": -10.0, "prior": 0.1,
    }  # fmt: skip
    return bundle_pb2.ScoreCalibration(**(values | changes))


def isotonic(**changes: Any) -> bundle_pb2.ScoreCalibration:
    values: dict[str, Any] = {
        "form": KINDS.FORM_ISOTONIC, "prior": 0.5,
        "knot_similarities": [0.1, 0.4, 0.6, 0.9], "knot_log_odds": [-5.0, -1.0, -1.0, 4.0],
    }  # fmt: skip
    return bundle_pb2.ScoreCalibration(**(values | changes))


def test_a_line_is_a_sigmoid_and_the_prior_shifts_it() -> None:
    calibration = Calibration.from_proto(logistic())
    assert calibration.prior == 0.1
    for s in (-1.0, 0.3, 0.5, 0.7, 1.0):
        assert calibration.probability(s) == pytest.approx(1 / (1 + math.exp(10 - 20 * s)))
        odds = calibration.probability(s) / (1 - calibration.probability(s))
        # Bayes: odds by the ratio of the priors' odds.
        moved = odds * (0.02 / 0.98) / (0.1 / 0.9)
        assert calibration.probability(s, prior=0.02) == pytest.approx(moved / (1 + moved))


def test_knots_are_interpolated_as_numpy_does() -> None:
    calibration = Calibration.from_proto(isotonic())
    message = isotonic()
    grid = np.linspace(-1, 1, 201)
    expected = np.interp(grid, message.knot_similarities, message.knot_log_odds)
    assert np.allclose([calibration.log_odds(s) for s in grid], expected)
    assert np.allclose(calibration.probabilities(grid.tolist()), 1 / (1 + np.exp(-expected)))


@pytest.mark.parametrize("message", [logistic(), isotonic()])
def test_probabilities_never_fall_and_thresholds_turn_back(
    message: bundle_pb2.ScoreCalibration,
) -> None:
    calibration = Calibration.from_proto(message)
    found = calibration.probabilities(np.linspace(-1, 1, 101).tolist())
    assert all(a <= b for a, b in pairwise(found))
    for prior in (None, 0.01, 0.3):
        for probability in (0.05, 0.2, 0.6):
            s = calibration.similarity(probability, prior=prior)
            if math.isfinite(s):
                assert calibration.probability(s, prior=prior) == pytest.approx(probability)
                assert calibration.probability(s - 1e-6, prior=prior) <= probability
    extreme = Calibration.from_proto(isotonic())
    assert extreme.similarity(0.999) == math.inf
    assert extreme.similarity(0.001) == -math.inf


def test_nonsense_is_refused() -> None:
    calibration = Calibration.from_proto(logistic())
    with pytest.raises(InvalidArgument, match="similarity"):
        calibration.probability(math.nan)
    for prior in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(InvalidArgument, match="prior"):
            calibration.probability(0.5, prior=prior)
    with pytest.raises(InvalidArgument, match="probability"):
        calibration.similarity(1.0)
    assert calibration.probability(1e9) == 1.0
    assert calibration.probability(-1e9) == 0.0


@pytest.mark.parametrize(
    "message",
    [
        logistic(slope=0.0),
        logistic(slope=-1.0),
        logistic(slope=math.inf),
        logistic(prior=0.0),
        logistic(form=KINDS.FORM_UNSPECIFIED),
        isotonic(knot_similarities=[], knot_log_odds=[]),
        isotonic(knot_similarities=[0.1, 0.1], knot_log_odds=[0.0, 1.0]),
        isotonic(knot_similarities=[0.1, 0.2], knot_log_odds=[1.0, 0.0]),
        isotonic(knot_similarities=[0.1, 0.2], knot_log_odds=[1.0]),
        isotonic(knot_similarities=[0.1, 0.2], knot_log_odds=[1.0, math.nan]),
    ],
)
def test_what_is_no_calibration_is_refused(message: bundle_pb2.ScoreCalibration) -> None:
    with pytest.raises(BundleCorrupt, match="calibration"):
        Calibration.from_proto(message)


def test_a_bundle_gives_its_calibration(write: Callable[..., Bundle], tmp_path: Path) -> None:
    assert load_calibration(write(tmp_path / "b")) is None
    message = logistic(evidence=KINDS.EVIDENCE_CLUSTERS)
    attach(tmp_path / "b", Attachments(calibration=message))
    found = load_calibration(open_bundle(tmp_path / "b"))
    assert found == Calibration.from_proto(message)
    assert found is not None
    assert found.from_labels_of_its_own
