"""The graph handed to TensorRT computes what the bundle's does."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from resight.bundle.half_precision import to_half
from resight.engines.graph import with_early_cast
from resight.errors import InvalidArgument


def _run(model: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["embeddings"], {"images": images})[0])


@pytest.mark.parametrize("half", [False, True])
def test_the_cast_comes_first_and_nothing_else_changes(encoder: bytes, half: bool) -> None:
    graph = to_half(encoder) if half else encoder
    early = with_early_cast(graph)
    nodes = onnx.load_from_string(early).graph.node
    readers = [node.op_type for node in nodes if "images" in node.input]
    assert readers == ["Cast"]
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 8, 3), dtype=np.uint8)
    assert np.array_equal(_run(early, images), _run(graph, images))
    assert with_early_cast(early) == with_early_cast(with_early_cast(early))


def test_arithmetic_on_bytes_is_refused() -> None:
    nodes = [
        helper.make_node("BitwiseNot", ["images"], ["a"]),
        helper.make_node("Cast", ["a"], ["embeddings"], to=TensorProto.FLOAT),
    ]
    shape: list[str | int | None] = ["n", 16, 8, 3]
    graph = helper.make_graph(
        nodes,
        "inverted",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, shape)],
    )
    with pytest.raises(InvalidArgument, match="BitwiseNot reads the bytes"):
        with_early_cast(helper.make_model(graph).SerializeToString())
