"""The remapped embedded weights against the package they were trained in."""

from __future__ import annotations

import hashlib

import pytest
import torch

from adapt.backbones.build import build_embedder
from adapt.backbones.lite0 import LITE0_SHA256, lite0_weights_path


@pytest.mark.parametrize("size", [(224, 224), (256, 128), (128, 64)])
def test_features_equal_the_original_networks(size: tuple[int, int]) -> None:
    efficientnet = pytest.importorskip("efficientnet_lite_pytorch")
    original = efficientnet.EfficientNet.from_name("efficientnet-lite0")
    original.load_state_dict(torch.load(lite0_weights_path(), weights_only=True))
    embedder = build_embedder("efficientnet_lite0", neck="none").eval()
    pixels = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (embedder.mean, embedder.std))
    with torch.inference_mode():
        expected = original.eval().extract_features((pixels - 127.0) / 128.0).mean(dim=(2, 3))
        got = embedder((pixels / 255.0 - mean) / std)
    assert got.shape == (2, 1280)
    assert expected.abs().max() > 0.5
    assert (got - expected).abs().max() < 1e-4


def test_report_names_the_file_and_its_digest() -> None:
    report = build_embedder().init_report
    digest = hashlib.sha256(lite0_weights_path().read_bytes()).hexdigest()
    assert (report.kind, report.sha256) == ("embedded", digest)
    assert digest == LITE0_SHA256
    assert set(report.dropped) == {"classifier.weight", "classifier.bias"}
