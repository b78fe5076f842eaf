"""How long the encoder will take: ``seconds(n) = fixed + each * n`` for a batch of n images.

Fitted by least squares over recent batches with exponential forgetting, so that it follows a
machine whose speed changes. When every recent batch had the same size the slope cannot be told
from the intercept; all time is then put on the images, which overestimates only batches larger
than those seen.
"""

from __future__ import annotations

from math import ceil

__all__ = ["LatencyModel"]

_MIN_SPREAD = 0.25  # variance of batch size below which the two parameters cannot be told apart


class LatencyModel:
    """The fit; knows nothing until the first observation and then predicts from it.

    Args:
        memory: Number of batches after which an observation's weight has fallen to 1/e.
    """

    def __init__(self, *, memory: float = 50.0) -> None:
        self._keep = 1.0 - 1.0 / memory
        self._weight = self._n = self._t = self._nn = self._nt = 0.0

    def observe(self, size: int, seconds: float) -> None:
        """Learn from one batch."""
        keep = self._keep
        self._weight = self._weight * keep + 1.0
        self._n = self._n * keep + size
        self._t = self._t * keep + seconds
        self._nn = self._nn * keep + size * size
        self._nt = self._nt * keep + size * seconds

    def coefficients(self) -> tuple[float, float]:
        """``(fixed, each)`` in seconds, neither negative; zeros before the first observation."""
        if not self._weight:
            return 0.0, 0.0
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        if variance < _MIN_SPREAD:
            return 0.0, mean_t / mean_n
        each = (self._nt / self._weight - mean_n * mean_t) / variance
        each = min(max(each, 0.0), mean_t / mean_n)
        return mean_t - each * mean_n, each

    def seconds(self, images: int, *, max_batch: int) -> float:
        """Predicted time of ``images`` one after another in batches of at most ``max_batch``."""
        fixed, each = self.coefficients()
        return fixed * ceil(images / max_batch) + each * images
