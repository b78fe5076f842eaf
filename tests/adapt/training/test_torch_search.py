"""The torch search against the CPU's own, block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adapt.clustering.cluster import cluster
from adapt.clustering.neighbours import nearest, nearest_by_camera
from adapt.clustering.settings import ClusterSettings
from adapt.training.torch_search import TorchSearch, torch_search

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def crops(rows: int, copies: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = max(1, rows // 12)
    features = rng.standard_normal((count, 24))[rng.integers(0, count, rows)]
    features += 0.5 * rng.standard_normal(features.shape)
    features = np.repeat(features, copies, axis=0)[rng.permutation(rows * copies)]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [1, 2, 9, 500])
def test_lists_equal_those_of_the_cpu(rows: int, device: str) -> None:
    search = TorchSearch(torch.device(device), queries=64, base=90)
    for copies in (1, 5):
        features = crops(rows, copies)
        cameras = np.random.default_rng(2).choice([0, 1, 5], len(features), p=[0.7, 0.25, 0.05])
        for k in (2, 15, 40):
            found = nearest(features, k, search=search)
            expected = nearest(features, k)
            np.testing.assert_array_equal(found.indices, expected.indices)
            np.testing.assert_array_equal(found.similarities, expected.similarities)
            assert found.note == ""
        by_camera = nearest_by_camera(features, cameras, same=6, other=21, search=search)
        expected_by_camera = nearest_by_camera(features, cameras, same=6, other=21)
        for name in ("same", "other"):
            np.testing.assert_array_equal(
                getattr(by_camera, name).indices, getattr(expected_by_camera, name).indices
            )


@pytest.mark.parametrize("device", DEVICES)
def test_labels_are_those_of_the_cpu_and_the_search_is_named(device: str, tmp_path: Path) -> None:
    features = crops(400)
    np.save(tmp_path / "F.npy", features)
    mapped = np.load(tmp_path / "F.npy", mmap_mode="r")
    result = cluster(mapped, ClusterSettings(), search=TorchSearch(torch.device(device)))
    np.testing.assert_array_equal(result.labels, cluster(features).labels)
    assert result.clusters > 5
    assert result.neighbours.searched == f"exact on {device}"


def test_progress_counts_the_blocks() -> None:
    done: list[tuple[int, int]] = []
    search = TorchSearch(torch.device("cpu"), queries=64, base=90)
    nearest(crops(200), 5, search=search, progress=lambda *step: done.append(step))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_products_are_in_full_float32_whatever_the_run_has_set() -> None:
    features = crops(300)
    expected = nearest(features, 12).indices
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = nearest(features, 12, search=TorchSearch(torch.device("cpu"), base=50))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found.indices, expected)
    assert found.note == ""


def test_a_cpu_keeps_its_own_search() -> None:
    assert torch_search(torch.device("cpu")) is None
    found = torch_search(torch.device("cuda", 1))
    assert found is not None
    assert found.name == "exact on cuda:1"
