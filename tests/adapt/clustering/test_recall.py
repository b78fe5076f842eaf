"""The recall that is reported, against the recall of all rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from adapt.clustering import cell_search
from adapt.clustering.cell_search import CellSearch
from adapt.clustering.layout import Layout
from adapt.clustering.neighbours import nearest, nearest_by_camera
from adapt.clustering.recall import MEASURED_ROWS, measured_recall

ROWS = 5000


def people(noise: float) -> np.ndarray:
    rng = np.random.default_rng(6)
    features = rng.standard_normal((300, 40))[rng.integers(0, 300, ROWS)]
    features += noise * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32)


def shares(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Of each row that has neighbours, the share that was found."""
    counted = []
    for i, (some, true) in enumerate(zip(found, exact, strict=True)):
        wanted = set(true[true >= 0]) - {i}
        if wanted:
            counted.append(len(wanted & set(some)) / len(wanted))
    return np.array(counted)


def test_it_counts_every_row_where_there_are_few(
    data_set: Callable[[str], np.ndarray],
) -> None:
    features = data_set("clustered")
    exact = nearest(features, 10).indices
    spoilt = exact.copy()
    spoilt[::2, -3:] = -1  # three of nine neighbours of every other row
    layout = Layout.plain(len(features))
    assert measured_recall(features, layout, exact, "all") == 1.0
    assert measured_recall(features, layout, spoilt, "all") == pytest.approx(1 - 3 / 9 / 2)


@pytest.mark.parametrize("asked", [0.7, 0.9, 0.98])
def test_what_is_reported_is_true_within_the_error_of_a_sample(
    asked: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_search, "_FEW_ROWS", 0)
    features = people(0.9)
    cameras = np.random.default_rng(7).choice([1, 2, 8], ROWS, p=[0.5, 0.4, 0.1])
    search = CellSearch(recall=asked)
    plain = nearest(features, 20, search=search)
    apart = nearest_by_camera(features, cameras, same=8, other=15, search=CellSearch(recall=asked))
    exact = nearest_by_camera(features, cameras, same=8, other=15)
    assert not search.exact
    for found, true in (
        (plain, nearest(features, 20)),
        (apart.same, exact.same),
        (apart.other, exact.other),
    ):
        by_row = shares(found.indices, true.indices)
        # Rows are what is sampled: the neighbours of one are met or missed together.
        error = by_row.std() / np.sqrt(MEASURED_ROWS)
        assert abs(found.recall - by_row.mean()) < 4 * error
        assert by_row.mean() > asked - 0.02
        assert by_row.mean() < 1
