"""Small encoders whose answers numpy can compute by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from resight.bundle import ModelCard, render_model_card, wrap_encoder, write_bundle
from resight.crops import Preprocessing
from resight.v1 import bundle_pb2

HEIGHT, WIDTH, DIMENSION = 16, 8, 5


@dataclass
class LinearEncoder:
    """``output = flatten(input) @ weights + bias``: every pixel and channel has its own weight."""

    model: bytes
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def unit_embeddings(
        self,
        images: NDArray[np.uint8],
        *,
        layout: str,
        scale: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        channel_order: str,
    ) -> NDArray[np.float64]:
        pixels = images.astype(np.float64)
        if channel_order == "BGR":
            pixels = pixels[:, :, :, ::-1]
        normalised = np.empty_like(pixels)
        for channel in range(3):
            normalised[:, :, :, channel] = (pixels[:, :, :, channel] * scale - mean[channel]) / std[
                channel
            ]
        if layout == "NCHW":
            normalised = np.moveaxis(normalised, 3, 1)
        features = normalised.reshape(len(images), -1) @ self.weights.astype(np.float64) + self.bias
        unit: NDArray[np.float64] = features / np.linalg.norm(features, axis=1, keepdims=True)
        return unit


def make_linear(
    *,
    layout: str = "NCHW",
    opset: int = 17,
    batch: int | str = "n",
    names: tuple[str, str] = ("images", "embeddings"),
    trailing: int = 0,
    element: int = TensorProto.FLOAT,
    reshape: bool = False,
    initializers_as_inputs: bool = False,
) -> LinearEncoder:
    """Builds the graph; ``reshape`` flattens through a constant shape that holds the batch."""
    kind = np.float16 if element == TensorProto.FLOAT16 else np.float32
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(3 * HEIGHT * WIDTH, DIMENSION)).astype(kind)
    bias = rng.normal(size=DIMENSION).astype(kind)
    source, output = names
    size = [3, HEIGHT, WIDTH] if layout == "NCHW" else [HEIGHT, WIDTH, 3]
    constants = {"weights": weights, "bias": bias}
    if reshape:
        constants["shape"] = np.array([batch, -1])
        first = helper.make_node("Reshape", [source, "shape"], ["flat"])
    else:
        first = helper.make_node("Flatten", [source], ["flat"], axis=1)
    last = "vector" if trailing else output
    nodes = [first, helper.make_node("Gemm", ["flat", "weights", "bias"], [last])]
    if trailing:
        constants["wide"] = np.array([0, DIMENSION] + [1] * trailing)
        nodes.append(helper.make_node("Reshape", [last, "wide"], [output]))
    inputs = [helper.make_tensor_value_info(source, element, [batch, *size])]
    if initializers_as_inputs:
        inputs += [
            helper.make_tensor_value_info(name, element, list(value.shape))
            for name, value in (("weights", weights), ("bias", bias))
        ]
    graph = helper.make_graph(
        nodes,
        "linear",
        inputs,
        [helper.make_tensor_value_info(output, element, [batch, DIMENSION] + [1] * trailing)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    return LinearEncoder(
        model.SerializeToString(), weights.astype(np.float32), bias.astype(np.float32)
    )


@pytest.fixture(scope="session")
def linear() -> Callable[..., LinearEncoder]:
    return make_linear


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (7, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def parts() -> dict[str, Any]:
    """Arguments of ``write_bundle`` but for the output."""
    encoder = wrap_encoder(
        make_linear().model,
        layout="NCHW",
        height=HEIGHT,
        width=WIDTH,
        scale=1 / 255,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
    )
    return {
        "encoder": encoder,
        "preprocessing": Preprocessing(HEIGHT, WIDTH),
        "provenance": bundle_pb2.Provenance(method="import", run_id="run-1"),
        "model_card": render_model_card(ModelCard("test", HEIGHT, WIDTH)),
        "parity": [bundle_pb2.Parity(batch_size=1, min_cosine=1.0)],
        "extra_files": {"extra/notes.txt": b"four\n"},
    }


@pytest.fixture
def write(parts: dict[str, Any]) -> Callable[..., Any]:
    return lambda output, **changes: write_bundle(output, **(parts | changes))
