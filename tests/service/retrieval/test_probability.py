"""Thresholds on probabilities, against the calibration applied to every score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.bundle.calibration import Calibration
from resight.errors import FailedPrecondition, InvalidArgument
from resight.v1 import bundle_pb2
from service.retrieval.probability import checked_probability, lowest_score, needed

KINDS = bundle_pb2.ScoreCalibration


def calibration(**fields: Any) -> Calibration:
    return Calibration.from_proto(bundle_pb2.ScoreCalibration(prior=0.1, **fields))


LINE = calibration(form=KINDS.FORM_LOGISTIC, slope=12.5, intercept=-6.0)
FLAT = calibration(form=KINDS.FORM_LOGISTIC, slope=1e-9, intercept=0.0)
STEPS = calibration(
    form=KINDS.FORM_ISOTONIC,
    knot_similarities=[0.2, 0.4, 0.6, 0.9],
    knot_log_odds=[-4.0, -1.0, -1.0, 3.0],
)


@given(
    st.sampled_from([LINE, FLAT, STEPS]),
    st.floats(min_value=1e-6, max_value=1 - 1e-6),
    st.lists(st.floats(-1, 1, width=32), max_size=20),
)
def test_no_row_that_has_the_probability_is_below_the_score(
    made: Calibration, wanted: float, scores: list[float]
) -> None:
    asked = np.float32(lowest_score(made, wanted))
    assert math.isfinite(asked)
    for score in scores:
        if made.probability(score) >= wanted:
            assert np.float32(score) >= asked


def test_the_score_is_close_below_the_first_that_has_it() -> None:
    for wanted in (0.1, 0.5, 0.9):
        score = lowest_score(LINE, wanted)
        assert LINE.probability(score) < wanted < LINE.probability(score + 3e-5)
    assert lowest_score(STEPS, 0.999) > 1, "no row is that likely"
    assert lowest_score(STEPS, 0.001) < -1, "every row is"


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 1.5, math.nan, math.inf])
def test_only_what_lies_between_is_a_probability(value: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_probability(value)
    assert caught.value.field == "min_probability"


def test_without_a_calibration_there_is_none() -> None:
    assert checked_probability(None) is None
    assert needed(LINE, "m") is LINE
    with pytest.raises(FailedPrecondition, match="'m' has no calibration") as caught:
        needed(None, "m")
    assert (caught.value.field, caught.value.reason) == ("min_probability", "NO_CALIBRATION")
