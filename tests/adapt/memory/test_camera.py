"""CAP's memory against its equations, written out camera by camera and crop by crop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapt.memory.camera import CameraProxyMemory
from adapt.memory.cluster import ClusterMemory
from adapt.memory.proxies import CameraProxies

CLASSES = np.array([0, 0, 1, -1, 2, 2, 2, 1, -1, 0, 3, 3, 2, 1])
CAMERAS = np.array([0, 1, 0, 1, 0, 1, 2, 1, 0, 2, 2, 2, 0, 0], dtype=np.int32)
ROWS = torch.tensor([0, 1, 6, 13, 7, 0, 10, 5])


def unit(rows: int, dim: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(
        torch.randn(rows, dim, generator=random, dtype=torch.float64), dim=1
    )


def memory(cameras: np.ndarray | None = CAMERAS, hardest: int = 3) -> CameraProxyMemory:
    return CameraProxyMemory(
        unit(14, 6, 0),
        CameraProxies.find(CLASSES, cameras),
        temperature=0.07,
        momentum=0.2,
        hardest=hardest,
    )


def literal_proxies() -> dict[tuple[int, int], Tensor]:
    features = unit(14, 6, 0)
    found = {}
    for cluster in range(4):
        for camera in range(3):
            members = [i for i in range(14) if CLASSES[i] == cluster and CAMERAS[i] == camera]
            if members:
                mean = torch.stack([features[i] for i in members]).mean(dim=0)
                found[cluster, camera] = mean / mean.norm()
    return found


def literal_loss(batch: Tensor, *, inter_weight: float, hardest: int) -> float:
    proxies = literal_proxies()
    total = 0.0
    rows = ROWS.tolist()
    for camera in sorted({int(CAMERAS[r]) for r in rows}):
        chosen = [b for b, r in enumerate(rows) if CAMERAS[r] == camera]
        intra = inter = 0.0
        for b in chosen:
            cluster = int(CLASSES[rows[b]])
            scores = {a: float(batch[b] @ v) / 0.07 for a, v in proxies.items()}
            within = sum(math.exp(s) for a, s in scores.items() if a[1] == camera)
            intra -= math.log(math.exp(scores[cluster, camera]) / within)
            positives = [s for a, s in scores.items() if a[0] == cluster]
            rivals = sorted((s for a, s in scores.items() if a[0] != cluster), reverse=True)
            whole = sum(math.exp(s) for s in positives + rivals[:hardest])
            inter -= sum(math.log(math.exp(s) / whole) for s in positives) / len(positives)
        total += (intra + inter_weight * inter) / len(chosen)
    return total


@pytest.mark.parametrize(("inter_weight", "hardest"), [(0.0, 3), (0.5, 3), (0.5, 50)])
def test_loss_is_the_literal_loop(inter_weight: float, hardest: int) -> None:
    batch = unit(8, 6, 1)
    found = memory(hardest=hardest).loss(batch, ROWS, intra_weight=1.0, inter_weight=inter_weight)
    expected = literal_loss(batch, inter_weight=inter_weight, hardest=hardest)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_the_losses_add_up() -> None:
    batch, store = unit(8, 6, 1), memory()
    intra = store.loss(batch, ROWS, intra_weight=1.0, inter_weight=0.0)
    inter = store.loss(batch, ROWS, intra_weight=0.0, inter_weight=1.0)
    both = store.loss(batch, ROWS, intra_weight=2.0, inter_weight=0.5)
    assert float(both) == pytest.approx(2.0 * float(intra) + 0.5 * float(inter), rel=1e-12)


def test_update_is_the_literal_loop() -> None:
    store, batch, expected = memory(), unit(8, 6, 2), literal_proxies()
    store.update(batch, ROWS)
    for b, row in enumerate(ROWS.tolist()):
        key = int(CLASSES[row]), int(CAMERAS[row])
        mixed = 0.2 * expected[key] + 0.8 * batch[b]
        expected[key] = mixed / mixed.norm()
    torch.testing.assert_close(store.vectors, torch.stack([expected[k] for k in sorted(expected)]))


def test_logits_are_mean_scores_of_each_clusters_proxies() -> None:
    batch, proxies = unit(4, 6, 3), literal_proxies()
    found = memory().logits(batch)
    assert found.shape == (4, 4)
    for cluster in range(4):
        vectors = [v for (y, _), v in proxies.items() if y == cluster]
        expected = sum(batch @ v for v in vectors) / len(vectors) / 0.07
        torch.testing.assert_close(found[:, cluster], expected)


def test_without_cameras_the_intra_camera_loss_is_cluster_contrast() -> None:
    batch = unit(8, 6, 1)
    contrast = ClusterMemory(
        unit(14, 6, 0), torch.from_numpy(CLASSES), 4, temperature=0.07, momentum=0.2, update="mean"
    )
    expected = contrast.loss(batch, torch.from_numpy(CLASSES)[ROWS])
    for cameras in (None, np.zeros(14, dtype=np.int32)):
        found = memory(cameras).loss(batch, ROWS, intra_weight=1.0, inter_weight=0.0)
        assert float(found) == pytest.approx(float(expected), rel=1e-12)


def test_no_gradient_reaches_the_memory() -> None:
    store, batch = memory(), unit(8, 6, 1).requires_grad_()
    loss = store.loss(batch, ROWS, intra_weight=1.0, inter_weight=0.5)
    assert not store.vectors.requires_grad
    torch.autograd.backward(loss)
    assert batch.grad is not None
    assert bool(torch.isfinite(batch.grad).all())
