"""Exported encoders against PyTorch, and the bundles made of them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import json_format

from adapt.backbones.build import build_embedder
from adapt.backbones.embedder import Embedder
from adapt.export.bundle import export_bundle
from adapt.export.fast_features import OrtExtractor
from adapt.export.graph import EncoderGraph
from adapt.export.onnx_export import export_embedder
from resight.bundle.reader import open_bundle
from resight.crops.preprocessing import Preprocessing
from resight.errors import FailedPrecondition, InvalidArgument

SIZE = Preprocessing(64, 32)
NETWORKS = {
    "osnet_x0_25": {"init": "random"},
    "osnet_ain_x0_25": {"init": "random", "neck": "bn"},
    "efficientnet_lite0": {},
    "timm:resnet10t": {"init": "random", "pooling": "gem"},
}


def _trained(name: str) -> Embedder:
    """An embedder whose running statistics, exponent and neck are not the initial ones."""
    embedder = build_embedder(name, seed=0, **NETWORKS[name])  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    embedder(torch.randn(8, 3, 64, 32, generator=generator))
    with torch.no_grad():
        if embedder.pooling_name == "gem":
            embedder.pooling.p.fill_(2.5)
        if embedder.neck_name == "bn":
            embedder.neck.weight.uniform_(0.5, 1.5, generator=generator)
    return embedder


@functools.cache
def _trace(name: str) -> EncoderGraph:
    """Tracing takes seconds, and depends on the architecture alone."""
    return EncoderGraph(_trained(name), height=SIZE.height, width=SIZE.width)


@pytest.fixture(params=sorted(NETWORKS))
def traced(request: pytest.FixtureRequest) -> tuple[Embedder, EncoderGraph]:
    return _trained(request.param), _trace(request.param)


def _by_hand(embedder: Embedder, images: np.ndarray) -> np.ndarray:
    mean, std = np.asarray(embedder.mean), np.asarray(embedder.std)
    pixels = ((images / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        features = embedder.eval()(torch.tensor(pixels, dtype=torch.float32)).numpy()
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))


def test_encoder_equals_the_network_at_any_batch(
    traced: tuple[Embedder, EncoderGraph], capfd: pytest.CaptureFixture[str]
) -> None:
    embedder, graph = traced
    embedder.train()
    result = export_embedder(embedder, SIZE, graph=graph)
    assert embedder.training
    assert [entry.batch_size for entry in result.parity] == [1, 2, 7]
    assert all(entry.min_cosine >= 0.9999 for entry in result.parity)
    session = onnxruntime.InferenceSession(result.encoder, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(3)
    for batch in (1, 2, 5, 33):
        images = generator.integers(0, 256, (batch, 64, 32, 3), dtype=np.uint8)
        got = session.run(["embeddings"], {"images": images})[0]
        assert got.shape == (batch, embedder.dim)
        assert np.abs(got - _by_hand(embedder, images)).max() < 1e-5
    assert capfd.readouterr().out == ""


def test_graph_is_plain_and_names_no_source_file(traced: tuple[Embedder, EncoderGraph]) -> None:
    embedder, graph = traced
    encoder = graph.fill(embedder)
    model = onnx.load_from_string(encoder)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert model.opset_import[0].version >= 17
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Shape", "Expand", "CastLike", "Constant", "If", "Loop", "Reshape"}
    assert b".py" not in encoder


def test_equal_weights_give_equal_bytes_and_other_weights_do_not(
    traced: tuple[Embedder, EncoderGraph],
) -> None:
    embedder, graph = traced
    first = graph.fill(embedder)
    assert graph.fill(embedder) == first
    other = _trained(embedder.name)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    assert graph.fill(other) != first


def test_a_filled_graph_equals_a_fresh_trace() -> None:
    """What a training run relies on: tracing before, filling after, nothing baked in."""
    embedder = _trained("timm:resnet10t")
    optimiser = torch.optim.SGD(embedder.parameters(), lr=0.05)
    for _ in range(2):
        optimiser.zero_grad()
        embedder(torch.randn(6, 3, 64, 32)).square().mean().backward()
        optimiser.step()
    after = EncoderGraph(embedder, height=64, width=32)
    assert _trace("timm:resnet10t").fill(embedder) == after.fill(embedder)


def test_maps_for_extraction_are_the_networks_and_stay_out_of_bundles() -> None:
    embedder = _trained("timm:resnet10t").eval()
    extractor = OrtExtractor(embedder, 64, 32, threads=1, batch=4, maps=True)
    images = np.random.default_rng(1).integers(0, 256, (7, 64, 32, 3), dtype=np.uint8)
    runs = list(extractor.extract_with_maps(images))
    features, maps = (np.concatenate(column) for column in zip(*runs, strict=True))
    mean, std = np.asarray(embedder.mean), np.asarray(embedder.std)
    pixels = ((images / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = embedder.forward_with_maps(torch.tensor(pixels, dtype=torch.float32))[1].numpy()
    assert [len(run[0]) for run in runs] == [4, 3]
    assert np.abs(features - _by_hand(embedder, images)).max() < 1e-5
    assert np.abs(maps - expected).max() < 1e-4 * np.abs(expected).max()
    assert extractor.graph is None
    plain = OrtExtractor(embedder, 64, 32, threads=1, graph=_trace("timm:resnet10t"))
    assert np.abs(plain.extract(images) - features).max() < 1e-6
    with pytest.raises(InvalidArgument, match="without maps"):
        next(plain.extract_with_maps(images))


def test_a_graph_refuses_another_network() -> None:
    with pytest.raises(InvalidArgument, match="another network"):
        _trace("osnet_x0_25").fill(build_embedder("osnet_x0_5", init="random"))


def test_unusable_weights_fail_the_parity_check() -> None:
    embedder = _trained("timm:resnet10t")
    with torch.no_grad():
        embedder.neck.weight.fill_(float("nan"))
    with pytest.raises(FailedPrecondition, match="differs from the network"):
        export_embedder(embedder, SIZE, graph=_trace("timm:resnet10t"))


def test_extractor_follows_the_weights() -> None:
    embedder = _trained("osnet_x0_25")
    extractor = OrtExtractor(embedder, 64, 32, threads=1, batch=4, graph=_trace("osnet_x0_25"))
    images = np.random.default_rng(0).integers(0, 256, (10, 64, 32, 3), dtype=np.uint8)
    first = extractor.extract(images)
    assert np.abs(first - _by_hand(embedder, images)).max() < 1e-5
    embedder.train()(torch.randn(8, 3, 64, 32) * 3)
    assert np.array_equal(extractor.extract(images), first)
    extractor.refresh(embedder)
    second = extractor.extract(images)
    assert np.abs(second - _by_hand(embedder, images)).max() < 1e-5
    assert np.abs(second - first).max() > 1e-3
    assert extractor.extract(images[:0]).shape == (0, 512)
    with pytest.raises(InvalidArgument, match="resize"):
        extractor.extract(images[:, :32])


def test_bundle_holds_everything_to_serve_and_to_start_from(tmp_path: Path) -> None:
    embedder = _trained("osnet_x0_25")
    config = {"epochs": 3, "lr": 3.5e-4, "cameras": True, "sizes": [1, 2], "init": None}

    def write(name: str) -> object:
        return export_bundle(
            embedder,
            output=tmp_path / name,
            preprocessing=SIZE,
            method="cluster-contrast",
            run_id="run-1",
            config=config,
            summary_files={"summary.json": b"{}"},
            graph=_trace("osnet_x0_25"),
        )

    write("a")
    bundle = open_bundle(tmp_path / "a")
    provenance = bundle.manifest.provenance
    assert json_format.MessageToDict(provenance.config) == config
    assert (provenance.method, provenance.run_id) == ("cluster-contrast", "run-1")
    assert [entry.batch_size for entry in bundle.manifest.parity] == [1, 2, 7]
    assert "osnet_x0_25" in (tmp_path / "a" / "model_card.md").read_text()
    again = build_embedder("osnet_x0_25", init=tmp_path / "a")
    assert again.init_report.kind == "bundle"
    assert again.init_report.parent_version == bundle.model_version
    assert all(
        torch.equal(tensor, again.state_dict()[name])
        for name, tensor in embedder.state_dict().items()
    )
    write("b")
    assert open_bundle(tmp_path / "b").model_version == bundle.model_version
    with torch.no_grad():
        embedder.backbone.fc[0].weight[0, 0] += 0.1
    write("c")
    assert open_bundle(tmp_path / "c").model_version != bundle.model_version


def test_bundle_refuses_what_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="config"):
        export_bundle(
            _trained("osnet_x0_25"),
            output=tmp_path / "bundle",
            preprocessing=SIZE,
            method="spcl",
            run_id="run-1",
            config={"path": Path("x")},
        )
    assert not (tmp_path / "bundle").exists()
