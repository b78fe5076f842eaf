"""Explicit quantisation: the arithmetic, and the check that decides about it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from adapt.export.int8 import INT8_ENCODER, int8_attachment, quantise
from resight.bundle.graph_session import GraphSession
from resight.bundle.rank_agreement import RankBounds
from resight.bundle.wrap import wrap_encoder
from resight.crops.preprocessing import Preprocessing
from resight.errors import InvalidArgument, Refused

SIZE = Preprocessing(16, 8)


def linear(outlier: float = 1.0) -> bytes:
    """One convolution over the whole crop; ``outlier`` scales one input column's weights."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(24, 3, 16, 8)).astype(np.float32)
    weights[:, :, :, 0] *= outlier
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("Flatten", ["a"], ["y"], name="flat"),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return wrap_encoder(
        model.SerializeToString(), layout="NCHW", height=16, width=8,
        scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip


def crops(seed: int, count: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 8, 3), dtype=np.uint8)


def test_the_graph_computes_what_the_equations_say() -> None:
    encoder, images = linear(), crops(1)
    model = onnx.load_from_string(quantise(encoder, images))
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("QuantizeLinear") >= 1
    found = GraphSession(model.SerializeToString(), SIZE).embed(images[:8])
    weights = next(
        numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(encoder).graph.initializer
        if tensor.name == "encoder/w"
    ).astype(np.float64)
    pixels = ((images / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2)
    scale = np.abs(pixels).max() / 127
    activations = scale * np.clip(np.rint(pixels[:8] / scale), -128, 127)
    scales = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 127
    kernel = scales * np.clip(np.rint(weights / scales), -128, 127)
    features = activations.reshape(8, -1) @ kernel.reshape(24, -1).T
    outputs = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert (found * outputs).sum(axis=1).min() > 0.9995
    whole = GraphSession(encoder, SIZE).embed(images[:8])
    assert np.abs(found - outputs).max() < np.abs(found - whole).max()


def test_a_graph_that_ranks_alike_is_attached_with_its_figures() -> None:
    attached = int8_attachment(linear(), SIZE, crops(1), crops(2), bounds=RankBounds(0.8, 0.9))
    assert list(attached.files) == [INT8_ENCODER]
    (agreement,) = attached.rank_agreement
    assert 0.8 < agreement.overlap <= 1
    assert (agreement.queries, agreement.min_overlap) == (64, 0.8)
    assert attached.parity[0].path == INT8_ENCODER
    assert 0.99 < attached.parity[0].min_cosine < 1


def test_a_graph_that_ranks_otherwise_is_refused_with_the_margin() -> None:
    with pytest.raises(Refused, match=r"overlap 0\.\d+ is 0\.\d+ below 0\.95") as caught:
        int8_attachment(linear(outlier=3000.0), SIZE, crops(1) // 64, crops(2) // 64)
    assert caught.value.reason == "RANK_AGREEMENT"


def test_too_few_crops_are_said() -> None:
    with pytest.raises(InvalidArgument, match="32 are needed"):
        quantise(linear(), crops(1, 31))
