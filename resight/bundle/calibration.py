"""From a cosine similarity to the probability that two crops show one person.

    logit P(same | s, prior) = f(s) + logit(prior) - logit(prior of the fit)

f is a line, or a line between knots and constant beyond them. It never falls, so that a threshold
on probabilities ranks as one on similarities does; unlike those, it means the same after a night
that changed the encoder. ``prior`` is the share of pairs of one person among the pairs compared:
about one in the number of people, for a query against everything.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from resight.bundle.bundle import Bundle
from resight.bundle.layout import MANIFEST
from resight.errors import BundleCorrupt, InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["Calibration", "load_calibration"]


@dataclass(frozen=True)
class Calibration:
    """A fitted map from similarity to probability.

    Attributes:
        prior: Share of pairs of one person that probabilities assume unless told otherwise.
        from_labels_of_its_own: Whether it was fitted on the encoder's own clusters, for want of
            tracks: then it confirms itself, and its probabilities are a guess.
    """

    prior: float
    from_labels_of_its_own: bool
    _slope: float = 0.0
    _intercept: float = 0.0
    _knots: tuple[float, ...] = ()
    _values: tuple[float, ...] = ()

    def log_odds(self, similarity: float, *, prior: float | None = None) -> float:
        """Log-odds that two crops of this similarity show one person.

        Raises:
            InvalidArgument: The similarity is not a number, or ``prior`` not in (0, 1).
        """
        if math.isnan(similarity):
            raise InvalidArgument("similarity is not a number", field="similarity")
        value = self._at(similarity)
        if prior is None:
            return value
        if not 0 < prior < 1:
            raise InvalidArgument(f"prior is {prior}; it must lie between 0 and 1", field="prior")
        return value + _logit(prior) - _logit(self.prior)

    def probability(self, similarity: float, *, prior: float | None = None) -> float:
        """Probability that two crops of this similarity show one person.

        Args:
            similarity: Cosine of the two embeddings.
            prior: Share of pairs of one person among those compared; default the fit's.

        Raises:
            InvalidArgument: As ``log_odds``.
        """
        value = self.log_odds(similarity, prior=prior)
        if value >= 0:
            return 1 / (1 + math.exp(-value))
        return math.exp(value) / (1 + math.exp(value))

    def probabilities(
        self, similarities: Iterable[float], *, prior: float | None = None
    ) -> list[float]:
        """``probability`` of each."""
        return [self.probability(value, prior=prior) for value in similarities]

    def similarity(self, probability: float, *, prior: float | None = None) -> float:
        """The lowest similarity that reaches a probability; infinite where none does.

        What turns a user's threshold into one for the index.

        Raises:
            InvalidArgument: ``probability`` or ``prior`` does not lie between 0 and 1.
        """
        if not 0 < probability < 1:
            raise InvalidArgument(
                f"probability is {probability}; it must lie between 0 and 1", field="probability"
            )
        wanted = _logit(probability) - (self.log_odds(0.0, prior=prior) - self.log_odds(0.0))
        if not self._knots:
            return (wanted - self._intercept) / self._slope
        if wanted <= self._values[0]:
            return -math.inf
        for index in range(1, len(self._knots)):
            low, high = self._values[index - 1], self._values[index]
            if high >= wanted:
                share = (wanted - low) / (high - low)
                return self._knots[index - 1] + share * (
                    self._knots[index] - self._knots[index - 1]
                )
        return math.inf

    def _at(self, similarity: float) -> float:
        if not self._knots:
            return self._slope * similarity + self._intercept
        place = bisect_right(self._knots, similarity)
        if place == 0:
            return self._values[0]
        if place == len(self._knots):
            return self._values[-1]
        left, right = self._knots[place - 1], self._knots[place]
        share = (similarity - left) / (right - left)
        return self._values[place - 1] + share * (self._values[place] - self._values[place - 1])

    @classmethod
    def from_proto(cls, message: bundle_pb2.ScoreCalibration) -> Calibration:
        """Reads a manifest's calibration.

        Raises:
            BundleCorrupt: It is of no known form, or would fall.
        """
        kinds = bundle_pb2.ScoreCalibration
        itself = message.evidence == kinds.EVIDENCE_CLUSTERS
        numbers = [message.slope, message.intercept, message.prior]
        knots, values = tuple(message.knot_similarities), tuple(message.knot_log_odds)
        if not all(map(math.isfinite, [*numbers, *knots, *values])) or not 0 < message.prior < 1:
            raise _corrupt("a number is not finite, or the prior not between 0 and 1")
        if message.form == kinds.FORM_LOGISTIC:
            if message.slope <= 0:
                raise _corrupt(f"slope is {message.slope}, not positive")
            return cls(message.prior, itself, message.slope, message.intercept)
        if message.form != kinds.FORM_ISOTONIC:
            raise _corrupt("its form is none this version knows")
        rising = all(a < b for a, b in pairwise(knots))
        never_falls = all(a <= b for a, b in pairwise(values))
        if not knots or len(knots) != len(values) or not rising or not never_falls:
            raise _corrupt("its knots do not rise, or its log-odds fall")
        return cls(message.prior, itself, _knots=knots, _values=values)


def load_calibration(bundle: Bundle) -> Calibration | None:
    """The bundle's calibration, or None when it has none.

    Raises:
        BundleCorrupt: What the manifest holds is no calibration.
    """
    if not bundle.manifest.HasField("calibration"):
        return None
    return Calibration.from_proto(bundle.manifest.calibration)


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)


def _corrupt(what: str) -> BundleCorrupt:
    return BundleCorrupt(f"{MANIFEST}: calibration: {what}; fit it again", field=MANIFEST)
