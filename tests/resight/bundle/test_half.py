"""The fp16 graph against ONNX's reference implementation, which computes in float16 itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from resight.bundle import Bundle
from resight.bundle.attachments import Attachments
from resight.bundle.graph_session import GraphSession
from resight.bundle.half_check import RoundedSession, check_half, half_attachment, verify_half
from resight.bundle.half_precision import HALF_ENCODER, to_half
from resight.bundle.wrap import wrap_encoder
from resight.crops import Preprocessing
from resight.errors import BundleCorrupt, FailedPrecondition, InvalidArgument

HEIGHT, WIDTH = 16, 8
SIZE = Preprocessing(HEIGHT, WIDTH)
NONE = np.empty((0, HEIGHT, WIDTH, 3), np.uint8)


def convolutional(
    *, gain: float = 1.0, power: float = 3.0, element: int = TensorProto.FLOAT
) -> bytes:
    """Conv, ReLU, generalised-mean pooling, linear layer; ``gain`` scales the first weights."""
    rng = np.random.default_rng(5)
    kind = np.float16 if element == TensorProto.FLOAT16 else np.float32
    weights = {
        "conv": gain * rng.normal(size=(6, 3, 3, 3)),
        "p": np.array([power]),
        "inverse": np.array([1 / power]),
        "floor": np.array(1e-6),
        "ceiling": np.array(3.4e38 if element == TensorProto.FLOAT else 65504.0),
        "linear": rng.normal(size=(6, 5)) / gain,
        "bias": rng.normal(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a", "floor", "ceiling"], ["b"]),
        helper.make_node("Pow", ["b", "p"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Pow", ["d", "inverse"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "linear", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("x", element, ["n", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", element, ["n", 5])],
        [numpy_helper.from_array(value.astype(kind), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return wrap(model.SerializeToString())


def wrap(model: bytes, **changes: Any) -> bytes:
    contract: dict[str, Any] = {
        "layout": "NCHW", "height": HEIGHT, "width": WIDTH, "scale": 1 / 255,
        "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
    }  # fmt: skip
    return wrap_encoder(model, **(contract | changes))


def reference(model: Any, images: NDArray[np.uint8]) -> Any:
    return ReferenceEvaluator(model).run(None, {"images": images})


def types(model: bytes) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), strict_mode=True)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_inside_is_half_and_the_contract_is_kept(images: NDArray[np.uint8]) -> None:
    encoder = convolutional()
    half = to_half(encoder)
    found = types(half)
    assert found["images"] == TensorProto.UINT8
    assert found["embeddings"] == TensorProto.FLOAT
    model = onnx.load_from_string(half)
    outputs = {node.op_type: found[node.output[0]] for node in model.graph.node}
    assert outputs["Conv"] == outputs["Gemm"] == TensorProto.FLOAT16
    assert outputs["Pow"] == outputs["GlobalAveragePool"] == TensorProto.FLOAT
    assert outputs["ReduceL2"] == outputs["Div"] == TensorProto.FLOAT
    stored = {tensor.name.split("/")[1]: tensor.data_type for tensor in model.graph.initializer}
    assert stored["conv"] == stored["linear"] == TensorProto.FLOAT16
    assert stored["p"] == TensorProto.FLOAT
    assert GraphSession(half, SIZE).embed(images).shape == (7, 5)
    assert to_half(encoder) == half


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_rounding_is_that_of_the_reference_implementation(
    images: NDArray[np.uint8], batch: int
) -> None:
    encoder = convolutional()
    half = to_half(encoder)
    expected = reference(half, images[:batch])[0]
    rounded, _ = RoundedSession(half).run(images[:batch])
    whole = GraphSession(encoder, SIZE).embed(images[:batch])
    assert np.abs(rounded - expected).max() < 1e-3
    assert np.abs(rounded - whole).max() > 1e-6  # a simulation that rounds nothing proves nothing
    assert (rounded * whole).sum(axis=1).min() > 0.9999


def test_magnitudes_are_those_of_the_tensors(images: NDArray[np.uint8]) -> None:
    half = to_half(convolutional())
    _, magnitudes = RoundedSession(half).run(images)
    shown = onnx.load_from_string(half)
    node = next(node for node in shown.graph.node if node.op_type == "Conv")
    shown.graph.output.append(helper.make_empty_tensor_value_info(node.output[0]))
    tensor = reference(shown, images)[1]
    found = {magnitude.node: magnitude.largest for magnitude in magnitudes}
    assert found[node.name] == pytest.approx(float(np.abs(tensor).max()), rel=2e-3)


def test_parity_covers_the_batches_and_names_the_file(images: NDArray[np.uint8]) -> None:
    attached = half_attachment(convolutional(), SIZE, images)
    assert list(attached.files) == [HALF_ENCODER]
    assert [entry.batch_size for entry in attached.parity] == [1, 2, 7]
    assert {entry.path for entry in attached.parity} == {HALF_ENCODER}
    assert all(0.999 < entry.min_cosine <= 1 for entry in attached.parity)


def test_an_overflow_is_refused_and_its_node_named() -> None:
    """The encoder itself is sound: only float16 cannot hold what its convolution gives."""
    encoder = convolutional(gain=3000.0)
    with pytest.raises(FailedPrecondition, match=r"node encoder/conv reaches .*65504") as caught:
        half_attachment(encoder, SIZE, NONE)
    assert caught.value.reason == "HALF_OVERFLOW"


def test_an_overflow_that_only_a_crop_brings_out_is_refused() -> None:
    kernel = np.zeros((2, 3, 1, 1), np.float32)
    kernel[0, :, 0, 0] = (46.0, -23.0, -23.0)  # answers to pure red alone
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "kernel"], ["a"], name="red"),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Mul", ["r", "r"], ["b"], name="square"),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["d"]),
            helper.make_node("Add", ["d", "one"], ["y"]),
        ],
        "red",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(np.ones((1, 2), np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    encoder = wrap(model.SerializeToString())
    half_attachment(encoder, SIZE, NONE)
    red = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 255
    with pytest.raises(FailedPrecondition, match="node encoder/square"):
        half_attachment(encoder, SIZE, red)


def test_another_encoders_half_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="cosine similarity") as caught:
        check_half(convolutional(), to_half(convolutional(power=-2.0)), SIZE, NONE)
    assert caught.value.reason == "HALF_PARITY"


def test_a_weight_beyond_the_range_is_named() -> None:
    model = onnx.load_from_string(convolutional())
    for tensor in model.graph.initializer:
        if tensor.name == "encoder/linear":
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0] = 1e5
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(InvalidArgument, match=r"encoder/linear reaches 1e\+05"):
        to_half(model.SerializeToString())


def test_what_cannot_be_converted_is_said(linear: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArgument, match="half precision already"):
        to_half(convolutional(element=TensorProto.FLOAT16))
    with pytest.raises(InvalidArgument, match="not wrapped"):
        to_half(linear().model)


def test_channels_last_and_bgr_encoders_convert(
    linear: Callable[..., Any], images: NDArray[np.uint8]
) -> None:
    encoder = wrap(linear(layout="NHWC").model, layout="NHWC", channel_order="BGR")
    expected = reference(to_half(encoder), images)[0]
    whole = GraphSession(encoder, SIZE).embed(images)
    assert (expected * whole).sum(axis=1).min() > 0.9999
    session = onnxruntime.InferenceSession(to_half(encoder), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"images": images})[0] - expected).max() < 1e-2


@pytest.mark.parametrize("sound", [True, False])
def test_verifying_a_bundle_runs_its_half(
    write: Callable[..., Bundle], tmp_path: Path, sound: bool
) -> None:
    encoder = convolutional()
    other = encoder if sound else convolutional(power=1.5)
    attached = Attachments(files={HALF_ENCODER: to_half(other)})
    bundle = write(tmp_path / "b", encoder=encoder, attachments=attached)
    if sound:
        assert 0.999 < (verify_half(bundle) or 0) <= 1
    else:
        with pytest.raises(BundleCorrupt, match="golden outputs differ"):
            verify_half(bundle)
    assert verify_half(write(tmp_path / "c")) is None
