"""The ONNX Runtime encoder against the same network in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from resight.bundle import Bundle, wrap_encoder, write_bundle
from resight.crops import Preprocessing
from resight.errors import FailedPrecondition
from resight.v1 import bundle_pb2
from service.encoder.onnx import OnnxEncoder
from service.telemetry import REGISTRY

HEIGHT, WIDTH, DIMENSION = 16, 8, 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
WEIGHTS = np.random.default_rng(3).standard_normal((3 * HEIGHT * WIDTH, DIMENSION)).astype("f4")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", DIMENSION])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    encoder = wrap_encoder(
        model.SerializeToString(),
        layout="NCHW",
        height=HEIGHT,
        width=WIDTH,
        scale=1 / 255,
        mean=MEAN,
        std=STD,
    )
    return write_bundle(
        Path(tmp_path_factory.mktemp("bundle")) / "linear",
        encoder=encoder,
        preprocessing=Preprocessing(HEIGHT, WIDTH),
        provenance=bundle_pb2.Provenance(method="import"),
        model_card="# Linear\n",
    )


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_vectors_equal_numpy(bundle: Bundle, batch: int) -> None:
    encoder = OnnxEncoder(bundle, threads=1)
    images = np.random.default_rng(batch).integers(0, 256, (batch, HEIGHT, WIDTH, 3), np.uint8)
    normalised = (images / 255 - np.array(MEAN)) / np.array(STD)
    expected = normalised.transpose(0, 3, 1, 2).reshape(batch, -1) @ WEIGHTS
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = encoder.embed(images)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert vectors.dtype == np.float32
    assert (encoder.model_version, encoder.dimension) == (bundle.model_version, DIMENSION)
    assert encoder.provider == "CPUExecutionProvider"


def test_a_provider_that_is_not_there_is_refused_and_counted(bundle: Bundle) -> None:
    with pytest.raises(FailedPrecondition, match="CUDAExecutionProvider"):
        OnnxEncoder(bundle, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    labels = {"asked": "CUDAExecutionProvider", "got": "CPUExecutionProvider"}
    assert REGISTRY.get_sample_value("resight_provider_fallback_total", labels) == 1
