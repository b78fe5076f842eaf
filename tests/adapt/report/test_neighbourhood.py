"""Neighbourhood change and camera mixing against literal sets."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from adapt.report.neighbourhood import (
    camera_drift,
    camera_mixing,
    neighbour_lists,
    neighbourhood_change,
)
from resight.errors import InvalidArgument


def unit(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@pytest.fixture
def lists() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return neighbour_lists(unit(60, 0), 7, threads=1), neighbour_lists(unit(60, 1), 7, threads=1)


def test_neighbour_lists_leave_the_crop_itself_out() -> None:
    features = unit(40, 2)
    found = neighbour_lists(features, 5, threads=1)
    similarity = features @ features.T
    np.fill_diagonal(similarity, -2)
    expected = np.argsort(-similarity, axis=1)[:, :5]
    assert [set(row) for row in found] == [set(row) for row in expected]


def test_change_is_one_less_the_overlap_of_sets(
    lists: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> None:
    before, after = lists
    expected = [
        1 - len({*b} & {*a}) / len({*b} | {*a})
        for b, a in zip(before.tolist(), after.tolist(), strict=True)
    ]
    assert neighbourhood_change(before, after) == pytest.approx(expected)
    assert 0 < neighbourhood_change(before, after).mean() < 1
    assert not neighbourhood_change(before, before).any()


def test_lists_of_other_crops_are_refused(
    lists: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> None:
    with pytest.raises(InvalidArgument, match="different crops"):
        neighbourhood_change(lists[0], lists[1][:-1])


def test_mixing_is_relative_to_chance(lists: tuple[NDArray[np.int32], NDArray[np.int32]]) -> None:
    cameras = np.random.default_rng(3).integers(0, 3, 60).astype(np.int32)
    found = camera_mixing(lists[0], cameras)
    for row, neighbours in enumerate(lists[0].tolist()):
        others = [cameras[j] != cameras[row] for j in range(60) if j != row]
        share = sum(cameras[j] != cameras[row] for j in neighbours) / len(neighbours)
        assert found[row] == pytest.approx(share / (sum(others) / len(others)))
    # Random features know nothing of cameras.
    assert found.mean() == pytest.approx(1, abs=0.15)


def test_one_camera_has_no_mixing(lists: tuple[NDArray[np.int32], NDArray[np.int32]]) -> None:
    assert np.isnan(camera_mixing(lists[0], np.zeros(60, np.int32))).all()


def test_drift_names_each_camera_with_crops(
    lists: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> None:
    cameras = np.repeat(np.array([0, 2], np.int32), [20, 40])
    drift = camera_drift(*lists, cameras, ["gate", "unused", "yard"])
    assert [(d.camera, d.crops) for d in drift] == [("gate", 20), ("yard", 40)]
    change = neighbourhood_change(*lists)
    assert drift[1].change == pytest.approx(change[20:].mean())
