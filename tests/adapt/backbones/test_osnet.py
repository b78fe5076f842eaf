"""OSNet against the published figures and an ONNX file that this project did not make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from adapt.backbones.embedder import IMAGENET_MEAN, IMAGENET_STD
from adapt.backbones.osnet import OSNET_VARIANTS, OSNet
from resight.bundle.golden import golden_inputs
from resight.crops.preprocessing import Preprocessing


def _parameters(name: str) -> int:
    return sum(p.numel() for p in OSNet(OSNET_VARIANTS[name]).parameters())


# ICCV 2019, table 6 and the authors' model zoo, in millions.
@pytest.mark.parametrize(
    ("width", "published"), [("x1_0", 2.2), ("x0_75", 1.3), ("x0_5", 0.6), ("x0_25", 0.2)]
)
@pytest.mark.parametrize("family", ["osnet_", "osnet_ain_"])
def test_parameter_counts_are_the_published_ones(family: str, width: str, published: float) -> None:
    assert round(_parameters(family + width) / 1e6, 1) == published


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_ain_x0_25"])
def test_map_has_a_sixteenth_of_the_side(name: str) -> None:
    network = OSNet(OSNET_VARIANTS[name]).eval()
    with torch.inference_mode():
        assert network.features(torch.zeros(1, 3, 256, 128)).shape == (1, 128, 16, 8)
        assert network(torch.zeros(2, 3, 128, 64)).shape == (2, 512)


def test_ain_names_follow_the_published_layout() -> None:
    names = set(OSNet(OSNET_VARIANTS["osnet_ain_x1_0"]).state_dict())
    for expected in (
        "conv1.bn.weight",
        "conv2.0.conv2.3.layers.3.bn.running_var",
        "conv2.0.IN.weight",
        "conv2.0.conv3.conv.weight",
        "pool2.0.conv.weight",
        "conv3.0.conv3.bn.weight",
        "conv3.1.IN.bias",
        "conv4.0.IN.weight",
        "conv4.1.conv3.bn.bias",
        "fc.1.running_mean",
    ):
        assert expected in names
    # Instance norms keep no statistics, and a block has one normalisation after expansion.
    for absent in (
        "conv1.bn.running_mean",
        "conv2.0.conv3.bn.weight",
        "conv3.0.IN.weight",
        "conv4.1.IN.weight",
    ):
        assert absent not in names


def test_streams_see_growing_neighbourhoods() -> None:
    """Stream t must have a receptive field of exactly 2t + 1 (ICCV 2019, section 3.1)."""
    network = OSNet(OSNET_VARIANTS["osnet_x0_25"]).eval()
    block = network.conv2[0]
    for depth, stream in enumerate((block.conv2a, block.conv2b, block.conv2c, block.conv2d), 1):
        for parameter in stream.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        image = torch.ones(1, 16, 21, 21, requires_grad=True)
        stream(image)[0, 0, 10, 10].backward()
        assert image.grad is not None
        rows = torch.nonzero(image.grad[0].sum(dim=(0, 2))).flatten()
        assert (rows.min().item(), rows.max().item()) == (10 - depth, 10 + depth)


@pytest.fixture(scope="module")
def reference(shared_dir: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    onnx_path = shared_dir / "weights" / "osnet_x0_25_msmt17.onnx"
    state_path = shared_dir / "weights" / "osnet_x0_25_msmt17_refolded.pth"
    if not (onnx_path.is_file() and state_path.is_file()):
        pytest.skip(f"no OSNet weights in {shared_dir}")
    state: dict[str, torch.Tensor] = torch.load(state_path, weights_only=True)
    return onnx_path, state


def test_equals_the_published_network(
    reference: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    onnx_path, state = reference
    network = OSNet(OSNET_VARIANTS["osnet_x0_25"])
    network.load_state_dict(_with_statistics_of(onnx_path, state))
    images = _normalised_crops()
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"images": images.numpy()})[0]
    with torch.inference_mode():
        got = network.eval()(images).numpy()
    assert np.abs(expected).max() > 1
    assert np.abs(got - expected).max() < 1e-4


def test_the_state_dict_as_it_lies_there_is_close(
    reference: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    onnx_path, state = reference
    network = OSNet(OSNET_VARIANTS["osnet_x0_25"])
    network.load_state_dict(state)
    images = _normalised_crops()
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    expected = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.inference_mode():
        got = network.eval()(images)
    assert torch.cosine_similarity(got, expected).min() > 0.99


def _normalised_crops() -> torch.Tensor:
    pixels = golden_inputs(0, 4, Preprocessing(256, 128)) / 255.0
    normalised = (pixels - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return torch.tensor(normalised.transpose(0, 3, 1, 2), dtype=torch.float32)


def _with_statistics_of(onnx_path: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with the running statistics that the ONNX file's folded weights imply.

    The state dict was saved after one batch in train mode (its batch counters are 1), so its
    statistics have moved from the ONNX file's. Folding gives W = w s and b = beta - mean s with
    s = gamma / sqrt(var + eps), which is solved for mean and var here.
    """
    graph = onnx.load(onnx_path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    restored = dict(state)
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1].startswith("onnx::"):
            _unfold(_module_name(node.name), node, constants, restored)
    for key in ("fc.1.running_mean", "fc.1.running_var"):
        restored[key] = torch.tensor(constants[key])
    return restored


def _unfold(
    conv: str, node: Any, constants: dict[str, Any], state: dict[str, torch.Tensor]
) -> None:
    norm = conv.rsplit(".", 1)[0] + ".bn"
    folded = constants[node.input[1]].astype(np.float64).reshape(len(constants[node.input[2]]), -1)
    weight = state[conv + ".weight"].double().numpy().reshape(folded.shape)
    gamma, beta, variance = (
        state[f"{norm}.{part}"].double().numpy() for part in ("weight", "bias", "running_var")
    )
    energy = (weight**2).sum(axis=1)
    scale = gamma / np.sqrt(variance + 1e-5)
    live = energy > 0  # a filter of zeros tells nothing about its scale
    scale[live] = (folded * weight).sum(axis=1)[live] / energy[live]
    assert np.allclose(folded, weight * scale[:, None], atol=1e-6)
    state[f"{norm}.running_var"] = torch.tensor((gamma / scale) ** 2 - 1e-5, dtype=torch.float32)
    mean = (beta - constants[node.input[2]].astype(np.float64)) / scale
    state[f"{norm}.running_mean"] = torch.tensor(mean, dtype=torch.float32)


def _module_name(node_name: str) -> str:
    """``/conv2/conv2.0/conv2b/conv2b.1/conv2/Conv`` to ``conv2.0.conv2b.1.conv2``."""
    parts: list[str] = []
    for part in node_name.strip("/").split("/")[:-1]:
        if parts and part.startswith(parts[-1] + "."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)
