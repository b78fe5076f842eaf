"""Somebody's encoder, checked and brought into a form that can be wrapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper, version_converter

from resight.bundle.graph_session import open_session
from resight.bundle.layout import MAX_ENCODER_BYTES
from resight.errors import InvalidArgument

__all__ = ["ForeignGraph", "read_foreign_graph"]

_OPSET = 17
# Below it Max does not broadcast.
_LOWEST_OPSET = 8
_IR_VERSION = 8
_MAX_DIMENSION = 65_536
_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


@dataclass
class ForeignGraph:
    """An encoder that takes one batch of float images and gives one vector an image.

    Attributes:
        model: The graph, its batch dimension free.
        input_name: Its only input.
        input_type: Element type of that input.
        output_name: The output that holds the embeddings.
        dimension: Length of an embedding.
        opset: Version of the default operator set.
        fixed_batch: Batch size the graph declared, if it fixed one.
    """

    model: Any
    input_name: str
    input_type: int
    output_name: str
    dimension: int
    opset: int
    fixed_batch: int | None

    def free_reshapes(self) -> None:
        """Lets constant Reshape shapes that begin with the fixed batch size follow the input."""
        graph = self.model.graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        constants |= {
            node.output[0]: attribute.t
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        for index, node in enumerate(graph.node):
            tensor = constants.get(node.input[1]) if node.op_type == "Reshape" else None
            if tensor is None:
                continue
            shape = numpy_helper.to_array(tensor).copy()
            if shape.size and shape[0] == self.fixed_batch:
                # 0 copies the batch from the input, for when -1 is taken.
                shape[0] = 0 if -1 in shape[1:] else -1
                name = f"free_shape_{index}"
                graph.initializer.append(numpy_helper.from_array(shape, name))
                node.input[1] = name


def read_foreign_graph(
    model: bytes,
    *,
    layout: Literal["NCHW", "NHWC"],
    height: int,
    width: int,
    output_name: str | None = None,
) -> ForeignGraph:
    """Checks a graph and frees its batch dimension.

    Raises:
        InvalidArgument: It is not a graph we can wrap; the message says what to change.
    """
    parsed = _parse(model)
    node = _only_input(parsed)
    if layout not in {"NCHW", "NHWC"}:
        raise _refused("layout", f"{layout!r} is neither NCHW nor NHWC")
    element = node.type.tensor_type.elem_type
    if element not in _FLOATS:
        kind = TensorProto.DataType.Name(element)
        raise _refused("model", f"input {node.name} is {kind}; export with a float32 input")
    size = [3, height, width] if layout == "NCHW" else [height, width, 3]
    batch = _check_shape(node, layout, size)
    output = _embedding_output(parsed, output_name)
    dimension = _probe(model, node.name, output, [batch or 1, *size], _FLOATS[element])
    upgraded, opset = _upgraded(parsed)
    _free_batch(upgraded)
    return ForeignGraph(upgraded, node.name, element, output, dimension, opset, batch)


def _parse(model: bytes) -> Any:
    if len(model) > MAX_ENCODER_BYTES:
        raise _refused("model", f"longer than {MAX_ENCODER_BYTES} bytes")
    try:
        parsed = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise _refused("model", f"not an ONNX file ({error})") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors(parsed.graph)):
        raise _refused(
            "model",
            "weights lie in another file; put them inside first:"
            " onnx.save(onnx.load('model.onnx'), 'whole.onnx')",
        )
    try:
        onnx.checker.check_model(parsed)
    except onnx.checker.ValidationError as error:
        raise _refused("model", f"not a valid ONNX graph: {error}") from error
    return parsed


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in [attribute.g, *attribute.graphs]:
                if inner.node or inner.initializer:
                    yield from _tensors(inner)


def _only_input(parsed: Any) -> Any:
    weights = {tensor.name for tensor in parsed.graph.initializer}
    inputs = [node for node in parsed.graph.input if node.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs) or "none"
        raise _refused("model", f"it has the inputs {names}; export with the images alone")
    return inputs[0]


def _check_shape(node: Any, layout: str, size: list[int]) -> int | None:
    """Compares the declared input with what was said of it; returns a fixed batch size."""
    dims = node.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise _refused("model", f"input {node.name} has {len(dims)} dimensions, not four")
    declared = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    for letter, found, wanted in zip(layout[1:], declared[1:], size, strict=True):
        if found is not None and found != wanted:
            field = {"H": "height", "W": "width", "C": "layout"}[letter]
            raise _refused(
                field,
                f"the graph's input {node.name} is {declared} and {layout} with {size} was"
                f" asked for: they differ at {letter} ({found}, not {wanted})",
            )
    return declared[0]


def _embedding_output(parsed: Any, wanted: str | None) -> str:
    names: list[str] = [node.name for node in parsed.graph.output]
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in names:
        raise _refused("output_name", f"name the embedding among the outputs {', '.join(names)}")
    return str(wanted)


def _probe(model: bytes, source: str, output: str, shape: list[int], kind: Any) -> int:
    """Runs the untouched graph once, since declared output shapes are often missing or wrong."""
    session = open_session(model)
    images = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape).astype(kind)
    try:
        found = session.run([output], {source: images})[0]
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this
        raise _refused("model", f"it does not run on an input of {shape}: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype not in (np.float32, np.float16, np.float64):
        raise _refused("output_name", f"{output} is not a float tensor")
    dims = found.shape
    if len(dims) < 2 or dims[0] != shape[0] or any(side != 1 for side in dims[2:]):
        raise _refused(
            "output_name",
            f"{output} has shape {dims} for a batch of {shape[0]}; (batch, dimension) or"
            " (batch, dimension, 1, 1) is needed: pool before the export",
        )
    if not 2 <= dims[1] <= _MAX_DIMENSION:
        raise _refused("output_name", f"{output} gives {dims[1]} values; 2 to {_MAX_DIMENSION}")
    return int(dims[1])


def _upgraded(parsed: Any) -> tuple[Any, int]:
    opset = _default_opset(parsed)
    if opset < _OPSET:
        try:
            parsed = version_converter.convert_version(parsed, _OPSET)
            opset = _OPSET
        except Exception as error:  # the converter raises RuntimeError and kinds of its own
            if opset < _LOWEST_OPSET:
                raise _refused(
                    "model", f"opset {opset} cannot be raised to {_OPSET}: {error}; export anew"
                ) from error
    parsed.ir_version = max(parsed.ir_version, _IR_VERSION)
    return parsed, opset


def _default_opset(parsed: Any) -> int:
    return max((o.version for o in parsed.opset_import if o.domain in {"", "ai.onnx"}), default=1)


def _free_batch(parsed: Any) -> None:
    """Removes what declares or implies a batch size; names of weights leave the inputs."""
    graph = parsed.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [node for node in graph.input if node.name not in weights]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(inputs)
    for node in [*graph.input, *graph.output]:
        dims = node.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_param = "batch"


def _refused(field: str, what: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {what}", field=field)
