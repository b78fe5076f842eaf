"""PPLR's camera loss against its equation, crop by crop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapt.memory.proxies import CameraProxies
from adapt.memory.static_proxies import StaticProxies

CLASSES = np.array([0, 0, 1, -1, 2, 2, 2, 1, -1, 0, 3, 3, 2, 1])
CAMERAS = np.array([0, 1, 0, 1, 0, 1, 2, 1, 0, 2, 2, 2, 0, 0], dtype=np.int32)
ROWS = [0, 1, 6, 13, 7, 0, 10, 5]


def unit(rows: int, dim: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(
        torch.randn(rows, dim, generator=random, dtype=torch.float64), dim=1
    )


@pytest.mark.parametrize("hardest", [2, 50])
@pytest.mark.parametrize("space", [0, 1])
def test_loss_is_the_literal_loop(hardest: int, space: int) -> None:
    spaces = [unit(14, 6, 0), unit(14, 4, 1)]
    static = StaticProxies(
        spaces, CameraProxies.find(CLASSES, CAMERAS), CAMERAS, temperature=0.07, hardest=hardest
    )
    batch = unit(8, spaces[space].shape[1], 2)
    proxies = {}
    for cluster in range(4):
        for camera in range(3):
            members = [i for i in range(14) if (CLASSES[i], CAMERAS[i]) == (cluster, camera)]
            if members:
                mean = spaces[space][members].mean(dim=0)
                proxies[cluster, camera] = mean / mean.norm()
    total, without = 0.0, 0
    for feature, row in zip(batch, ROWS, strict=True):
        scores = {key: float(feature @ v) / 0.07 for key, v in proxies.items()}
        cluster, camera = int(CLASSES[row]), int(CAMERAS[row])
        positives = [s for (y, c), s in scores.items() if y == cluster and c != camera]
        rivals = sorted((s for (y, _), s in scores.items() if y != cluster), reverse=True)
        if not positives:
            without += 1
            continue
        whole = sum(math.exp(s) for s in positives + rivals[:hardest])
        total -= sum(math.log(math.exp(s) / whole) for s in positives) / len(positives)
    assert without == 1  # the crop of the cluster that one camera saw
    found = static.loss(batch, torch.tensor(ROWS), torch.from_numpy(CLASSES[ROWS]), space=space)
    assert float(found) == pytest.approx(total / len(ROWS), rel=1e-9)


def test_proxies_take_no_gradient() -> None:
    spaces = [unit(14, 6, 0)]
    static = StaticProxies(
        spaces, CameraProxies.find(CLASSES, CAMERAS), CAMERAS, temperature=0.07, hardest=5
    )
    batch = unit(8, 6, 2).requires_grad_()
    loss = static.loss(batch, torch.tensor(ROWS), torch.from_numpy(CLASSES[ROWS]), space=0)
    torch.autograd.backward(loss)
    assert not static.vectors[0].requires_grad
    assert batch.grad is not None
    assert bool((batch.grad[6] == 0).all())
