"""Features and parts of all crops: ONNX Runtime gives what torch gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adapt.backbones.build import build_embedder
from adapt.data.augmentation import Normalisation
from adapt.data.cache import build_cache
from adapt.methods.pplr import Pplr
from adapt.training.config import RunConfig
from adapt.training.extraction import choose_extractor, onnx_session
from resight.crops import Preprocessing, open_source

CPU = torch.device("cpu")
MakeCrops = Callable[..., Path]


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(
        method="pplr", backbone="timm:test_efficientnet", height=64, width=32, device="cpu",
        threads=1, extraction_batch=10,
    )  # fmt: skip


def test_parts_by_onnx_are_those_of_torch(
    make_crops: MakeCrops, tmp_path: Path, config: RunConfig
) -> None:
    embedder = build_embedder("timm:test_efficientnet", init="random", seed=0)
    embedder(torch.randn(8, 3, 64, 32, generator=torch.Generator().manual_seed(0)))
    embedder.eval()
    crops = open_source(make_crops()).scan(check="header").crops
    cache = build_cache(crops, Preprocessing(64, 32), tmp_path / "cache")
    normalise = Normalisation(embedder.mean, embedder.std)
    method = Pplr(config, None, CPU)
    method.parts(torch.zeros(1, 256, 2, 1))
    assert method.heads is not None
    for neck in method.heads.necks:
        neck.running_mean.uniform_(0, 0.01)  # type: ignore[operator]
    found = []
    for session in (onnx_session(embedder, config, CPU, maps=True), None):
        extractor = choose_extractor(session, config, cache, normalise, CPU)
        found.append((extractor(embedder, method.parts), extractor(embedder)))
    (fast, fast_alone), (slow, slow_alone) = found
    assert fast.parts is not None
    assert slow.parts is not None
    assert fast.parts.shape == (48, 3, 256)
    np.testing.assert_allclose(np.linalg.norm(fast.parts, axis=2), 1, rtol=1e-5)
    np.testing.assert_allclose(fast.parts, slow.parts, atol=1e-4)
    np.testing.assert_allclose(fast.vectors, slow.vectors, atol=1e-5)
    assert np.ptp(slow.parts, axis=0).max() > 0.01  # crops differ, so that equality says something
    for alone in (fast_alone, slow_alone):
        assert alone.parts is None
        np.testing.assert_allclose(alone.vectors, slow.vectors, atol=1e-5)
