"""The wrapped graph against numpy, and against the published encoder it wraps."""

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

from resight.bundle import (
    GraphSession,
    InputContract,
    import_encoder,
    open_bundle,
    wrap_encoder,
)
from resight.crops import Preprocessing
from resight.errors import InvalidArgument

HEIGHT, WIDTH, DIMENSION = 16, 8, 5
SIZE = Preprocessing(HEIGHT, WIDTH)
NORMALISATION: dict[str, Any] = {
    "scale": 1 / 255,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
WHOLE: dict[str, Any] = NORMALISATION | {"layout": "NCHW", "channel_order": "RGB"}


def run(encoder: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(encoder, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["embeddings"], {"images": images})[0]
    return found


def wrap(model: bytes, **changes: Any) -> bytes:
    return wrap_encoder(model, **(WHOLE | {"height": HEIGHT, "width": WIDTH} | changes))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channel_order", ["RGB", "BGR"])
@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [
        (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
        (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
)
def test_every_input_contract_equals_numpy(
    linear: Callable[..., Any],
    images: NDArray[np.uint8],
    layout: str,
    channel_order: str,
    scale: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    encoder = linear(layout=layout)
    contract = {
        "layout": layout, "channel_order": channel_order, "scale": scale, "mean": mean, "std": std,
    }  # fmt: skip
    found = run(wrap(encoder.model, **contract), images)
    np.testing.assert_allclose(found, encoder.unit_embeddings(images, **contract), atol=2e-6)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_batch_is_dynamic(
    linear: Callable[..., Any], images: NDArray[np.uint8], batch: int
) -> None:
    encoder = linear(batch=1)
    found = run(wrap(encoder.model), images[:batch])
    expected = encoder.unit_embeddings(images[:batch], **WHOLE)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_batch_fixed_in_a_reshape_is_freed_on_import(
    linear: Callable[..., Any], images: NDArray[np.uint8], tmp_path: Path, fixed: int
) -> None:
    encoder = linear(batch=fixed, reshape=True)
    bundle = import_encoder(
        encoder.model,
        InputContract(height=HEIGHT, width=WIDTH, **WHOLE),
        output=tmp_path / "b",
        preprocessing=SIZE,
    )
    assert [entry.batch_size for entry in bundle.manifest.parity] == [1, 2, 7]
    found = run(bundle.encoder_path.read_bytes(), images)
    np.testing.assert_allclose(found, encoder.unit_embeddings(images, **WHOLE), atol=2e-6)


@pytest.mark.parametrize("opset", [8, 11, 12, 16, 17, 18, 21])
def test_old_and_new_operator_sets_are_taken(
    linear: Callable[..., Any], images: NDArray[np.uint8], opset: int
) -> None:
    encoder = linear(opset=opset)
    wrapped = wrap(encoder.model)
    np.testing.assert_allclose(
        run(wrapped, images), encoder.unit_embeddings(images, **WHOLE), atol=2e-6
    )
    assert onnx.load_model_from_string(wrapped).opset_import[0].version == max(opset, 17)


def test_a_graph_the_converter_cannot_raise_keeps_its_operator_set(
    linear: Callable[..., Any], images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    encoder = linear(opset=11)
    wrapped = wrap(encoder.model)
    assert onnx.load_model_from_string(wrapped).opset_import[0].version == 11
    np.testing.assert_allclose(
        run(wrapped, images), encoder.unit_embeddings(images, **WHOLE), atol=2e-6
    )


@pytest.mark.parametrize(
    "variant",
    [
        {"names": ("x", "y")},
        {"names": ("embeddings", "images")},
        {"trailing": 1},
        {"trailing": 2},
        {"initializers_as_inputs": True},
    ],
)
def test_names_and_trailing_ones_do_not_matter(
    linear: Callable[..., Any], images: NDArray[np.uint8], variant: dict[str, Any]
) -> None:
    encoder = linear(**variant)
    np.testing.assert_allclose(
        run(wrap(encoder.model), images), encoder.unit_embeddings(images, **WHOLE), atol=2e-6
    )


def test_a_half_precision_encoder_keeps_a_float_contract(
    linear: Callable[..., Any], images: NDArray[np.uint8]
) -> None:
    encoder = linear(element=TensorProto.FLOAT16)
    found = run(wrap(encoder.model), images)
    assert found.dtype == np.float32
    cosines = np.sum(found * encoder.unit_embeddings(images, **WHOLE), axis=1)
    assert cosines.min() > 0.9999


def test_a_branch_with_a_graph_of_its_own_survives(images: NDArray[np.uint8]) -> None:
    """The two graphs of an If refer to tensors of the graph around them."""

    def branch(name: str, sign: float) -> Any:
        factor = numpy_helper.from_array(np.array(sign, np.float32), "factor")
        node = helper.make_node("Mul", ["mean", "factor"], [name])
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [value], [factor])

    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
            helper.make_node(
                "If", ["wanted"], ["out"], then_branch=branch("a", -1.0), else_branch=branch("b", 1)
            ),
        ],
        "branching",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, 1, 1])],
        [numpy_helper.from_array(np.array(True), "wanted")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = run(wrap(model.SerializeToString()), images)
    mean, std = np.array(WHOLE["mean"]), np.array(WHOLE["std"])
    expected = -((images / 255 - mean) / std).mean(axis=(1, 2))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_zero_vector_stays_finite(images: NDArray[np.uint8]) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
            helper.make_node("Sub", ["mean", "mean"], ["y"]),
        ],
        "zero",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wrapped = wrap(model.SerializeToString())
    np.testing.assert_array_equal(run(wrapped, images), np.zeros((7, 3)))
    with pytest.raises(InvalidArgument, match="unit vectors"):  # a bundle of it is refused
        GraphSession(wrapped, SIZE).embed(images)


def two_outputs(linear: Callable[..., Any]) -> bytes:
    model = onnx.load_model_from_string(linear().model)
    model.graph.node.append(helper.make_node("Neg", ["embeddings"], ["negated"]))
    model.graph.output.append(
        helper.make_tensor_value_info("negated", TensorProto.FLOAT, ["n", DIMENSION])
    )
    return bytes(model.SerializeToString())


def test_one_of_several_outputs_is_chosen_by_name(
    linear: Callable[..., Any], images: NDArray[np.uint8]
) -> None:
    with pytest.raises(InvalidArgument, match="embeddings, negated"):
        wrap(two_outputs(linear))
    found = run(wrap(two_outputs(linear), output_name="negated"), images)
    expected = -linear().unit_embeddings(images, **WHOLE)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def external(linear: Callable[..., Any]) -> bytes:
    model = onnx.load_model_from_string(linear().model)
    weights = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weights, location="/etc/passwd")
    weights.ClearField("raw_data")
    return bytes(model.SerializeToString())


def flat_input() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
    )
    return bytes(helper.make_model(graph, ir_version=8).SerializeToString())


def feature_map() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "map",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, HEIGHT, WIDTH])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (b"not onnx", {}, "not an ONNX file|not a valid ONNX"),
        (b"", {}, "not a valid ONNX"),
        (external, {}, "weights lie in another file"),
        (flat_input, {}, "2 dimensions, not four"),
        (feature_map, {}, "pool before the export"),
        (None, {"height": HEIGHT + 1}, "differ at H"),
        (None, {"width": WIDTH + 1}, "differ at W"),
        (None, {"layout": "NHWC"}, "differ at"),
        (None, {"layout": "HWCN"}, "neither NCHW nor NHWC"),
        (None, {"mean": (0.0, 0.0)}, "mean needs three"),
        (None, {"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        (None, {"std": (1.0, float("nan"), 1.0)}, "std needs three finite"),
        (None, {"scale": 0.0}, "scale must be positive"),
        (None, {"output_name": "logits"}, "among the outputs embeddings"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_with_the_reason(
    linear: Callable[..., Any], model: Any, changes: dict[str, Any], message: str
) -> None:
    if model is None:
        model = linear().model
    elif callable(model):
        model = model(linear) if model is external else model()
    with pytest.raises(InvalidArgument, match=message):
        wrap(model, **changes)


def test_an_import_that_changes_the_answer_is_refused(
    linear: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison with the original is real: a wrapping with another mean does not pass it."""
    monkeypatch.setattr(
        "resight.bundle.importing.wrap_encoder",
        lambda model, **arguments: wrap_encoder(model, **(arguments | {"mean": (0.0, 0.0, 0.0)})),
    )
    with pytest.raises(InvalidArgument, match="answers differently"):
        import_encoder(
            linear().model,
            InputContract(height=HEIGHT, width=WIDTH, **WHOLE),
            output=tmp_path / "b",
            preprocessing=SIZE,
        )
    assert not (tmp_path / "b").exists()


def test_the_published_osnet_is_imported_unchanged(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "weights" / "osnet_x0_25_msmt17.onnx"
    bundle = import_encoder(
        source.read_bytes(),
        InputContract(layout="NCHW", height=256, width=128, **NORMALISATION),
        output=tmp_path / "osnet.tar",
        preprocessing=Preprocessing(256, 128),
    )
    bundle = open_bundle(tmp_path / "osnet.tar")
    assert bundle.dimension == 512
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(5).integers(0, 256, (7, 256, 128, 3), dtype=np.uint8)
    wrapped = run(bundle.encoder_path.read_bytes(), images)
    mean, std = np.array(NORMALISATION["mean"]), np.array(NORMALISATION["std"])
    normalised = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    raw = session.run(None, {"images": normalised})[0]
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.sum(wrapped * expected, axis=1).min() >= 0.99999
    for batch in (1, 2):
        alone = run(bundle.encoder_path.read_bytes(), images[:batch])
        assert np.sum(alone * expected[:batch], axis=1).min() >= 0.99999
