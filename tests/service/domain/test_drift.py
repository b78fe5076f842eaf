"""Drift of a camera against literal loops of its equations, and a camera of the simulator that gets
darker.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from resight.simulate.camera import cameras
from resight.simulate.render import Studio
from resight.simulate.schedule import Shot, schedule
from resight.simulate.settings import SimulationSettings
from service.domain.drift import LOW, drift, over_cameras

Vectors = NDArray[np.float32]


def unit(values: NDArray[np.float64]) -> Vectors:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def around(
    centre: int, count: int, seed: int, *, dimension: int = 24, noise: float = 1.0
) -> Vectors:
    """Unit vectors spread around one of the axes."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((count, dimension)) * noise
    values[:, centre] += 3.0
    return unit(values)


def by_the_letter(first: Vectors, newest: Vectors) -> tuple[float, float]:
    """Both equations, one number after the other."""
    x = [[float(v) for v in row] for row in first]
    y = [[float(v) for v in row] for row in newest]
    size = range(len(x[0]))

    def dot(a: list[float], b: list[float]) -> float:
        return sum(a[i] * b[i] for i in size)

    m = [sum(row[i] for row in x) / len(x) for i in size]
    n = [sum(row[i] for row in y) / len(y) for i in size]
    s2 = len(x) / (len(x) - 1) * (1 - dot(m, m))
    t2 = len(y) / (len(y) - 1) * (1 - dot(n, n))
    squared = sum((m[i] - n[i]) ** 2 for i in size)
    shift = math.sqrt(max(0.0, squared - s2 / len(x) - t2 / len(y)) / s2)
    early, late = x[: len(x) // 2], x[len(x) // 2 :]
    usual = sorted(max(dot(a, b) for a in early) for b in late)
    place = LOW * (len(usual) - 1)
    below = math.floor(place)
    tau = usual[below] + (place - below) * (usual[min(below + 1, len(usual) - 1)] - usual[below])
    low = sum(max(dot(a, row) for a in early) < tau for row in y)
    return shift, low / len(y)


@pytest.mark.parametrize(
    ("first", "newest"),
    [
        (around(0, 16, 1), around(0, 20, 2)),
        (around(0, 16, 1), around(1, 20, 2)),
        (around(0, 9, 3), around(0, 5, 4, noise=3.0)),
        (around(0, 4, 5), around(2, 2, 6)),
    ],
)
def test_both_figures_are_those_of_the_equations(first: Vectors, newest: Vectors) -> None:
    found = drift(first, newest)
    shift, low = by_the_letter(first, newest)
    assert found.shift == pytest.approx(shift, abs=1e-9)
    assert found.low_match_share == low


def test_a_camera_that_sees_as_before_has_none_and_one_that_does_not_has_much() -> None:
    same = [drift(around(0, 64, 2 * n), around(0, 64, 2 * n + 1)) for n in range(40)]
    assert np.median([one.shift for one in same]) < 0.1
    assert np.mean([one.low_match_share for one in same]) == pytest.approx(LOW, abs=0.04)
    moved = drift(around(0, 64, 1), around(1, 64, 2))
    assert moved.shift > 0.5
    assert moved.low_match_share > 0.7


def test_crops_that_got_worse_without_moving_show_in_low_matches() -> None:
    """Noise around the same mean direction, as of a dirty lens."""
    found = drift(around(0, 64, 1), around(0, 64, 2, noise=3.0))
    assert found.low_match_share > 0.5


def test_vectors_that_are_all_the_same_are_no_drift() -> None:
    one = np.tile(unit(np.ones((1, 8))), (8, 1))
    assert drift(one, one).shift == 0.0


def test_quantiles_over_cameras() -> None:
    assert over_cameras([]) == {}
    assert over_cameras([0.3, 0.1, 0.2]) == pytest.approx({0.5: 0.2, 0.9: 0.28, 1.0: 0.3})


def blocks(picture: bytes, darker: float) -> NDArray[np.float64]:
    """Mean colours of 8 x 4 blocks: as much of an encoder as this needs."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = ImageEnhance.Brightness(image).enhance(darker)
    small = np.asarray(image.resize((4, 8), Image.Resampling.BOX), np.float64) / 255
    return small.ravel() - 0.5


def test_a_simulated_camera_that_gets_darker_stands_out_alone() -> None:
    settings = SimulationSettings(identities=60, cameras=3, crops=1200, seed=11)
    studio = Studio(settings)
    tracks: dict[int, dict[str, Shot]] = defaultdict(dict)
    shots = schedule(settings, cameras(settings.seed, settings.cameras, spread=1.0))
    for shot in sorted(shots, key=lambda shot: shot.frame):
        tracks[shot.camera].setdefault(shot.track, shot)
    found = {}
    for camera, by_track in tracks.items():
        chosen = list(by_track.values())
        ends = chosen[:24], chosen[-24:]
        assert not {s.number for s in ends[0]} & {s.number for s in ends[1]}
        vectors = [
            unit(np.stack([blocks(studio.picture(s), 0.6 if dark else 1.0) for s in end]))
            for end, dark in zip(ends, (False, camera == 2), strict=True)
        ]
        found[camera] = drift(*vectors)
    assert found[2].shift > 0.5
    assert found[2].low_match_share > 0.4
    for camera in (1, 3):
        assert found[camera].shift < 0.4 * found[2].shift, found
        assert found[camera].low_match_share < 0.2, found
