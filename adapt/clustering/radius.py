"""The DBSCAN radius chosen from the data, without labels, from one graph.

The graph reaches to J = 0.9: pairs beyond share next to nothing of their neighbourhoods. For each
radius on a grid, with the labels that DBSCAN gives there and t = 0.9::

    linked(e)   = pairs within clusters with J <= t
    unlinked(e) = pairs within clusters with J > t
    found(e)    = sum of 1 - J over linked pairs / sum of 1 - J over all pairs with J <= t
    score(e)    = 1 / (1 / found(e) + 5 unlinked(e) / linked(e)), 0 with fewer than two clusters

and the radius with the largest score is taken, the smaller of equals. ``found`` is a recall: it
grows with the radius. Chaining shows as unlinked pairs: two crops in one cluster that have no
neighbourhood in common are there because of what lies between them, and once clusters percolate
they soon outnumber the linked pairs. The score is an F-measure with 1 / (1 + 5 u) for the precision
(u = unlinked / linked) and a recall of ``found``, up to a constant. The two constants were chosen
on features of known identities (docs/decisions/0013-radius-from-the-data.md, with the cases where
the choice is poor). Under constraints the labels scored are those that keep to them.

Where k1 is above the crops of a person, strangers share neighbours too. Once most of all pairs of
the set have J <= 0.9, that bound tells nobody apart, and t is where the values of J part best into
two groups: the threshold of Otsu, "A threshold selection method from gray-level histograms" (1979),
on a histogram of steps of 0.01, pairs beyond 0.9 taken at 1; of equals the middle.

Time is some passes over the pairs for each of the 31 radii; memory is one copy of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads, map_blocks
from adapt.clustering.graph import DistanceGraph, SparseDistances, UpperBlock
from adapt.clustering.kernel import kernel

__all__ = ["FALLBACK", "LARGEST", "RADII", "REACH", "Labelling", "RadiusChoice", "choose_radius"]

Labelling = Callable[[DistanceGraph, float], NDArray[np.int32]]

RADII: tuple[float, ...] = tuple(step / 100 for step in range(20, 81, 2))
LARGEST = RADII[-1]
REACH = 0.9
FALLBACK = 0.6
_PENALTY = 5.0


@dataclass(frozen=True)
class RadiusChoice:
    """A radius and what it was chosen by.

    Attributes:
        eps: the radius.
        labels: int32 (N,): DBSCAN's labels there; None after a fallback.
        radii, scores, found, unlinked: float64 (R,): the grid, and of each radius the score, the
            recall and the share of pairs within clusters that are unlinked; empty after a
            fallback.
        clusters: int64 (R,).
        reach: t, the largest J that counts as close.
        caution: why the choice is none, or a poor one; "" where there is nothing to say.
    """

    eps: float
    labels: NDArray[np.int32] | None
    radii: NDArray[np.float64]
    scores: NDArray[np.float64]
    found: NDArray[np.float64]
    unlinked: NDArray[np.float64]
    clusters: NDArray[np.int64]
    reach: float
    caution: str

    @cached_property
    def _at(self) -> int:
        return int(np.argmax(self.scores))

    @property
    def reason(self) -> str:
        """The choice in one line for people."""
        if self.labels is None:
            return f"eps {self.eps:.2f}: {self.caution}"
        loose = "have no neighbourhood in common"
        if self.reach < REACH:
            loose = f"share less than others do, J above {self.reach:.2f}"
        return (
            f"eps {self.eps:.2f} of {self.radii[0]:.2f} to {self.radii[-1]:.2f}: clusters hold "
            f"{self.found[self._at]:.0%} of what is close, and {self.unlinked[self._at]:.1%} of "
            f"their pairs {loose}"
        )

    @property
    def figures(self) -> dict[str, float]:
        """The choice in numbers."""
        if self.labels is None:
            return {"eps": self.eps}
        return {
            "eps": self.eps,
            "eps_score": float(self.scores[self._at]),
            "eps_found": float(self.found[self._at]),
            "eps_unlinked": float(self.unlinked[self._at]),
        }


@dataclass(frozen=True)
class _Pairs:
    """A graph whose pairs are at hand."""

    rows: int
    max_distance: float
    block: UpperBlock

    def upper_blocks(self) -> Iterator[UpperBlock]:
        yield self.block


def choose_radius(
    graph: DistanceGraph, label: Labelling, *, threads: int | None = None
) -> RadiusChoice:
    """The radius of ``RADII`` with the largest score.

    Without two clusters at any radius, and for a graph with too many pairs to hold, the choice is
    ``FALLBACK``, and ``caution`` says so.

    Args:
        graph: complete up to ``REACH`` at least.
        label: labels of a graph at a radius, DBSCAN's or under constraints.
        threads: default every core; each works on radii of its own.
    """
    if not isinstance(graph, SparseDistances):
        return _fallback("more pairs are close than can be held, as with thousands of equal crops")
    pairs = _Pairs(graph.rows, graph.max_distance, next(graph.upper_blocks()))
    reach = _reach(graph.rows, pairs.block[3])
    total = _close(*pairs.block, np.float32(reach), np.full(graph.rows, 0, dtype=np.int32))[1]
    radii = np.array(RADII)
    scores, found, unlinked = (np.zeros(radii.size) for _ in range(3))
    clusters = np.zeros(radii.size, dtype=np.int64)

    def measure(start: int, stop: int) -> None:
        for r in range(start, stop):
            labels = label(pairs, RADII[r])
            sizes = np.bincount(labels[labels >= 0]).astype(np.float64)
            within = float((sizes * (sizes - 1.0) / 2.0).sum())
            linked, weight = _close(*pairs.block, np.float32(reach), labels)
            clusters[r] = sizes.size
            if linked and weight > 0.0:
                found[r] = weight / total
                unlinked[r] = 1.0 - linked / within
                if sizes.size > 1:
                    scores[r] = 1.0 / (1.0 / found[r] + _PENALTY * (within - linked) / linked)

    every = [(r, r + 1) for r in range(radii.size)]
    for _ in map_blocks(measure, every, threads=threads or available_threads()):
        pass
    if not scores.any():
        most = int(clusters.max())
        return _fallback(f"no radius gives {'more than one' if most else 'a'} cluster")
    best = int(np.argmax(scores))
    eps = RADII[best]
    labels = label(pairs, eps)
    cautions = []
    if best in (0, radii.size - 1):
        cautions.append(
            f"eps {eps:.2f} is the {'small' if best == 0 else 'larg'}est that was tried"
        )
    if reach < REACH:
        cautions.append(
            f"eps {eps:.2f} is less sure: most pairs of crops share neighbours, as with few people"
            " or fewer crops of each than k1; lower k1, or set eps by hand"
        )
    caution = "; ".join(cautions)
    return RadiusChoice(eps, labels, radii, scores, found, unlinked, clusters, reach, caution)


def _reach(rows: int, distances: NDArray[np.float32]) -> float:
    """The largest J that counts as close, of the pairs of a graph."""
    close = distances[distances <= np.float32(REACH)]
    pairs = rows * (rows - 1) // 2
    if 2 * close.size <= pairs:
        return REACH
    steps = round(REACH * 100)
    counts, edges = np.histogram(close, bins=steps, range=(0.0, REACH))
    below = np.cumsum(counts) / pairs
    moment = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2.0) / pairs
    mean = moment[-1] + 1.0 - below[-1]
    spread = below * (1.0 - below)
    between = np.divide(
        (mean * below - moment) ** 2, spread, out=np.zeros(steps), where=spread > 0.0
    )
    # An empty gap between the groups is a range of equals: its middle.
    best = np.flatnonzero(between >= between.max() * (1.0 - 1e-9))
    return float(edges[1:][(best[0] + best[-1]) // 2])


def _fallback(why: str) -> RadiusChoice:
    none = np.empty(0)
    return RadiusChoice(
        FALLBACK, None, none, none, none, none, np.empty(0, dtype=np.int64), REACH,
        f"eps could not be chosen ({why}); {FALLBACK} is the published one",
    )  # fmt: skip


@kernel
def _close(
    first: int,
    counts: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    reach: np.float32,
    labels: NDArray[np.int32],
) -> tuple[int, float]:
    """Pairs within ``reach`` whose rows share a cluster, and their sum of 1 - J."""
    pairs = 0
    weight = 0.0
    at = 0
    for r in range(counts.shape[0]):
        label = labels[first + r]
        for _ in range(counts[r]):
            if label >= 0 and labels[indices[at]] == label and distances[at] <= reach:
                pairs += 1
                weight += 1.0 - np.float64(distances[at])
            at += 1
    return pairs, weight
