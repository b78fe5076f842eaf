"""A threshold on probabilities as one on scores.

A calibration never falls, so the rows of at least a probability are those of at least a score. The
score that the calibration names is found in floating point; so the index is asked from a little
below it, and what it finds is judged by the probability itself.
"""

from __future__ import annotations

from resight.bundle.calibration import Calibration
from resight.errors import FailedPrecondition, InvalidArgument

__all__ = ["checked_probability", "lowest_score", "needed"]

# More than float32 rounds a cosine by, and the solution of the calibration's line.
SLACK = 1e-5


def checked_probability(value: float | None) -> float | None:
    """Lowest probability wanted.

    Raises:
        InvalidArgument: NaN, or not between 0 and 1.
    """
    if value is not None and not 0.0 < value < 1.0:
        raise InvalidArgument(
            f"min_probability {value} does not lie between 0 and 1; send such a number, or leave "
            "it unset",
            field="min_probability",
        )
    return value


def needed(calibration: Calibration | None, model_version: str) -> Calibration:
    """The calibration, where probabilities are asked for.

    Raises:
        FailedPrecondition: there is none.
    """
    if calibration is None:
        raise FailedPrecondition(
            f"min_probability: the bundle of model {model_version!r} has no calibration, so scores "
            "have no probabilities; use min_score, or serve a bundle made by `resight adapt`",
            field="min_probability",
            reason="NO_CALIBRATION",
        )
    return calibration


def lowest_score(calibration: Calibration, probability: float) -> float:
    """A score below which no row has the probability; beyond -1 or 1 where all or none have."""
    return min(max(calibration.similarity(probability) - SLACK, -2.0), 2.0)
