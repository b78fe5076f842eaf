"""A made-up site: people, cameras and encoders as nothing but vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from adapt.export.sightings import Sightings
from adapt.gate.observation import Observation
from adapt.gate.sample import Sample
from adapt.gate.view import View

PEOPLE, CAMERAS, SHOTS, DIMENSION = 40, 4, 3, 48


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class Site:
    """Crops of ``PEOPLE`` at ``CAMERAS``, ``SHOTS`` of each; all noise is drawn once.

    Attributes:
        people, sample: Who is on each crop, for the test alone; what the gate knows.
    """

    def __init__(self, seed: int = 0, *, cameras: bool = True) -> None:
        random = np.random.default_rng(seed)
        count = PEOPLE * CAMERAS * SHOTS
        order = random.permutation(count)
        self.people = np.repeat(np.arange(PEOPLE), CAMERAS * SHOTS)[order]
        self.cameras = np.tile(np.repeat(np.arange(CAMERAS), SHOTS), PEOPLE)[order]
        self._looks = random.standard_normal((PEOPLE, DIMENSION))
        self._casts = random.standard_normal((CAMERAS, DIMENSION))
        self._noise = random.standard_normal((count, DIMENSION))
        self._worse = random.standard_normal((count, DIMENSION))
        self._moved = random.standard_normal((count, DIMENSION))
        tracks = (self.people * CAMERAS + self.cameras).astype(np.int64)
        sightings = Sightings(self.cameras.astype(np.int64), tracks, np.full(count, np.nan))
        self.sample = Sample(
            sightings,
            self.cameras.astype(np.int32) if cameras else None,
            tuple(f"c{code}" for code in range(CAMERAS)),
            (),
        )

    def encoder(self, *, spoilt: float = 0.0, noise: float = 1.0, cast: float = 0.3) -> Observation:
        """Features of an encoder; ``spoilt`` adds what it did not see before."""
        rows = self._looks[self.people] + cast * self._casts[self.cameras]
        rows = rows + noise * self._noise + spoilt * self._worse
        return Observation(unit(rows), unit(rows + 0.4 * (1 + spoilt) * self._moved))

    def view(self, observation: Observation) -> View:
        """What the signals take."""
        return View(observation, self.sample, threads=1)

    def precision(self, observation: Observation) -> float:
        """mAP across cameras, by the labels that the gate never sees: a literal loop."""
        found = []
        for row in range(0, len(self.people), 7):
            others = self.cameras != self.cameras[row]
            scores = (observation.features @ observation.features[row])[others]
            right = (self.people == self.people[row])[others][np.argsort(-scores)]
            ranks = np.flatnonzero(right) + 1
            found.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
        return float(np.mean(found))


@pytest.fixture(scope="session")
def site() -> Site:
    """With cameras."""
    return Site()


@pytest.fixture(scope="session")
def blind_site() -> Site:
    """The same without cameras."""
    return Site(cameras=False)


@pytest.fixture(scope="session")
def random_view() -> Callable[..., View]:
    """Views of random vectors, for comparison with literal loops."""

    def make(rows: int = 60, cameras: int = 3, *, seed: int = 0, dimension: int = 8) -> View:
        random = np.random.default_rng(seed)
        features = unit(random.standard_normal((rows, dimension)) + 0.5)
        codes = random.integers(0, cameras, rows)
        sightings = Sightings(codes, np.full(rows, -1), np.full(rows, np.nan))
        known = codes.astype(np.int32) if cameras > 1 else None
        sample = Sample(sightings, known, tuple("abc"[:cameras]), ())
        copies = unit(features[:20] + 0.3 * random.standard_normal((20, dimension)))
        return View(Observation(features, copies), sample, threads=1)

    return make
