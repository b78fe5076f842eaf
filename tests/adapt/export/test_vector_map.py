"""The map against numpy's and scipy's solutions, and against encoders whose map is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize

from adapt.export.vector_map import MAP_BOUNDS, FittedMap, _solutions, fit_vector_map
from resight.bundle.rank_agreement import RankBounds
from resight.errors import InvalidArgument, Refused

Array = NDArray[np.float64]


def unit(values: Array) -> Array:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def crops(
    seed: int, people: int = 150, each: int = 8, width: int = 24, rank: int = 12
) -> tuple[Array, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(people), each)
    hidden = rng.normal(size=(people, rank))[codes] + 0.6 * rng.normal(size=(len(codes), rank))
    return unit(hidden @ rng.normal(size=(rank, width)) + 0.3), codes


def rotation(seed: int, width: int) -> Array:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0])


def solutions(x: Array, y: Array) -> dict[float, tuple[Array, Array]]:
    return {
        pull: (found.matrix.astype(np.float64), found.offset.astype(np.float64))
        for pull, found in _solutions(x, y)
    }


def test_the_ends_of_the_family_are_procrustes_and_least_squares() -> None:
    x, _ = crops(0, rank=24)
    y, _ = crops(1, rank=24)
    found = solutions(x, y)
    centred_x, centred_y = x - x.mean(axis=0), y - y.mean(axis=0)
    turn, scale = orthogonal_procrustes(centred_x, centred_y)
    expected = turn * scale / (centred_x**2).sum()
    assert np.allclose(found[float("inf")][0], expected, atol=1e-5)
    least = np.linalg.lstsq(np.hstack([x, np.ones((len(x), 1))]), y, rcond=None)[0]
    # The smallest pull that is tried is a thousandth; near enough to see the way to least squares.
    gap = {pull: np.abs(matrix - least[:-1]).max() for pull, (matrix, _) in found.items()}
    assert gap[0.001] < 0.05 < gap[1.0] < gap[float("inf")]


@pytest.mark.parametrize("pull", [0.1, 10.0])
def test_each_is_the_minimum_of_its_penalised_squares(pull: float) -> None:
    rng = np.random.default_rng(2)
    x, y = unit(rng.normal(size=(40, 4))), unit(rng.normal(size=(40, 3)))
    found = solutions(x, y)
    anchor = found[float("inf")][0]
    cx, cy = x - x.mean(axis=0), y - y.mean(axis=0)
    weight = pull * (cx**2).sum() / 4

    def loss(flat: Array) -> float:
        matrix = flat.reshape(4, 3)
        return float(((cx @ matrix - cy) ** 2).sum() + weight * ((matrix - anchor) ** 2).sum())

    best = minimize(loss, np.zeros(12), tol=1e-12).x.reshape(4, 3)
    assert np.allclose(found[pull][0], best, atol=1e-4)
    assert np.allclose(found[pull][1], y.mean(axis=0) - x.mean(axis=0) @ best, atol=1e-4)


def test_a_rotated_encoder_is_mapped_back_exactly() -> None:
    new, codes = crops(3)
    old = new @ rotation(4, 24)
    fitted = fit_vector_map(old, new, groups=codes)
    assert fitted.figures.overlap > 0.99
    assert fitted.figures.correlation > 0.999
    assert (fitted.map.apply(old) * new).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("width", [16, 40])
def test_dimensions_may_differ(width: int) -> None:
    rng = np.random.default_rng(5)
    new, codes = crops(3)
    old = unit(new @ rng.normal(size=(24, width)))
    fitted = fit_vector_map(old, new, groups=codes)
    assert fitted.map.matrix.shape == (width, 24)
    assert fitted.map.apply(old).shape == new.shape
    assert fitted.figures.overlap > 0.8


def test_groups_are_never_split() -> None:
    """Vectors that tell nothing but the group: a map that saw the group would look perfect."""
    rng = np.random.default_rng(6)
    codes = np.repeat(np.arange(100), 10)
    old = unit(rng.normal(size=(100, 400))[codes] + 0.01 * rng.normal(size=(1000, 400)))
    new = unit(rng.normal(size=(100, 24))[codes] + 0.01 * rng.normal(size=(1000, 24)))
    honest = fit_vector_map(old, new, groups=codes)
    flattered = fit_vector_map(old, new)
    assert honest.figures.overlap < 0.25
    assert flattered.figures.overlap > 0.8
    with pytest.raises(Refused, match=r"maps/aa\.f32 ranks \d+ crops otherwise"):
        honest.attachment("aa")


def test_an_unrelated_encoder_is_refused() -> None:
    new, codes = crops(3)
    old, _ = crops(7)
    shuffled = unit(np.random.default_rng(8).permutation(old))
    with pytest.raises(Refused, match=r"below 0\.4"):
        fit_vector_map(shuffled, new, groups=codes).attachment("aa", MAP_BOUNDS)


def test_the_attachment_says_what_it_is() -> None:
    new, codes = crops(3)
    old = unit(new[:, :20] + 0.02 * np.random.default_rng(9).normal(size=(len(new), 20)))
    fitted = fit_vector_map(old, new, groups=codes, seed=5)
    attached = fitted.attachment("0123456789abcdef", RankBounds(0.1, 0.1))
    (path,) = attached.files
    assert path == "maps/0123456789abcdef.f32"
    (entry,) = attached.vector_maps
    assert (entry.from_version, entry.from_dimension) == ("0123456789abcdef", 20)
    assert entry.pairs == fitted.pairs
    assert attached.rank_agreement[0].path == path
    assert attached.files[path] == fitted.map.to_bytes()
    assert len(attached.files[path]) == 4 * 24 * 21
    again = fit_vector_map(old, new, groups=codes, seed=5)
    assert again.map.to_bytes() == fitted.map.to_bytes()


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda old, new, codes: (old[:-1], new, codes), "do not fit"),
        (lambda old, new, codes: (old * np.nan, new, codes), "not finite"),
        (lambda old, new, codes: (old, new, codes // 10), "at least 30"),
        (lambda old, new, codes: (old[:32], new[:32], np.arange(len(codes))[:32]), "fewer than 10"),
    ],
)
def test_too_little_or_broken_is_said(
    break_: Callable[..., tuple[Array, Array, NDArray[np.int64]]], message: str
) -> None:
    new, codes = crops(3)
    old, fresh, groups = break_(new.copy(), new, codes)
    with pytest.raises(InvalidArgument, match=message):
        fit_vector_map(old, fresh, groups=groups)


def test_a_fitted_map_knows_its_pairs(tmp_path: Path) -> None:
    new, codes = crops(3)
    fitted = fit_vector_map(new, new, groups=codes)
    assert isinstance(fitted, FittedMap)
    assert 0.6 < fitted.pairs / len(new) < 0.8
    assert fitted.figures.queries <= fitted.figures.gallery < 0.3 * len(new)
