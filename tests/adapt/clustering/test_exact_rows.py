"""The exact lists of some rows, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.clustering import exact_rows as exact_rows_module
from adapt.clustering.exact_rows import exact_lists
from adapt.clustering.layout import Layout, Scope

ROWS = 300


@pytest.mark.parametrize("chosen", [[0], [7, 150, 299], [290, 293], range(0, ROWS, 3)])
@pytest.mark.parametrize("scope", ["all", "same", "other"])
def test_lists_are_those_of_a_sort(
    scope: Scope, chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_rows_module, "_BLOCK", 64)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features = vectors.astype(np.float32)
    cameras = rng.choice(3, ROWS, p=[0.9, 0.07, 0.03])
    layout = Layout.plain(ROWS) if scope == "all" else Layout.by_camera(cameras)
    positions = np.array(chosen, dtype=np.int64)
    found = exact_lists(features, layout, scope, positions, 12)
    np.testing.assert_array_equal(found.rows, layout.order[positions])
    for i, listed, similar in zip(found.rows, found.indices, found.similarities, strict=True):
        products = features.astype(np.float64) @ features[i].astype(np.float64)
        others = [
            j
            for j in np.argsort(-products, kind="stable")
            if j != i and (scope == "all" or (cameras[j] == cameras[i]) == (scope == "same"))
        ]
        expected = ([] if scope == "other" else [i]) + others
        expected = expected[:12] + [-1] * (12 - len(expected))
        assert listed.tolist() == [int(j) for j in expected]
        held = listed >= 0
        np.testing.assert_allclose(similar[held], products[listed[held]], atol=2e-12)


def test_no_rows_give_no_lists() -> None:
    features = np.eye(4, dtype=np.float32)
    layout = Layout.by_camera(np.zeros(4, dtype=np.int64))
    assert exact_lists(features, layout, "same", np.empty(0, np.int64), 3).indices.shape == (0, 3)
