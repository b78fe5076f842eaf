"""The encoder in half precision: ``encoder.fp16.onnx``, typed so that every runtime obeys.

Operators in ``HALF_OPERATORS`` take and give float16, all others float32, with casts between the
two; the mean inside a generalised-mean pooling stays in float32 with the powers around it. Input,
normalisation, L2 norm and embeddings are as in ``encoder.onnx``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from resight.bundle.wrap import WRAPPER_PREFIX
from resight.errors import InvalidArgument

__all__ = ["HALF_ENCODER", "HALF_MAX", "HALF_OPERATORS", "to_half"]

HALF_ENCODER = "encoder.fp16.onnx"

# fmt: off
HALF_OPERATORS = frozenset({
    "Abs", "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div",
    "Dropout", "Elu", "Erf", "Expand", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MatMul", "MaxPool",
    "Mish", "Mul", "Neg", "PRelu", "Pad", "ReduceMax", "ReduceMean", "Relu", "Reshape", "Selu",
    "Shape", "Sigmoid", "Slice", "Softplus", "SpaceToDepth", "Split", "Squeeze", "Sub", "Tanh",
    "Tile", "Transpose", "Unsqueeze",
})
# fmt: on
"""Operators whose results float16 can hold whenever it can hold a network's activations.

Normalisations, powers, exponentials and sums are left out: their intermediate values leave its
range or its precision. What nobody thought of is left out too, so it stays right.
"""

HALF_MAX = 65504.0
"""The largest float16."""

_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})


def to_half(encoder: bytes) -> bytes:
    """The fp16-typed form of a bundle's graph, under the same contract.

    Args:
        encoder: ``encoder.onnx`` as ``wrap_encoder`` makes it.

    Returns:
        The graph; equal input gives equal bytes. What its tensors hold is checked by
        ``resight.bundle.half_check``.

    Raises:
        InvalidArgument: It was not wrapped here, is in half precision already, has conditions or
            loops, or a weight beyond 65504.
    """
    model = onnx.load_model_from_string(encoder)
    graph = model.graph
    inner = [node for node in graph.node if not node.name.startswith(WRAPPER_PREFIX)]
    if len(inner) == len(graph.node):
        raise _refused("it was not wrapped by `resight bundle import` or an export; import it")
    if any(attribute.g.node or attribute.graphs for node in inner for attribute in node.attribute):
        raise _refused("it has conditions or loops; export it without")
    conversion = _Conversion(model, _float_tensors(model))
    nodes = conversion.run()
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(conversion.weights())
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _refused(f"the converted graph is not valid ({error})") from error
    return bytes(model.SerializeToString(deterministic=True))


def _float_tensors(model: Any) -> set[str]:
    """Names of what nodes give in float32."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in [*inferred.value_info, *inferred.output]
    }
    missing = [
        name for node in model.graph.node for name in node.output if name and not types.get(name)
    ]
    if missing:
        raise _refused(f"the type of {missing[0]} cannot be inferred; export it again")
    if TensorProto.FLOAT16 in types.values():
        raise _refused("it is in half precision already, so there is nothing to convert")
    return {name for name, kind in types.items() if kind == TensorProto.FLOAT}


class _Conversion:
    """Rewrites nodes in their order; a tensor is cast once, however many read it."""

    def __init__(self, model: Any, floats: set[str]) -> None:
        self._nodes: Sequence[Any] = model.graph.node
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._kind: dict[str, int] = dict.fromkeys(floats, TensorProto.FLOAT)
        self._done: dict[str, Any] = {}
        self._casts: dict[tuple[str, int], str] = {}
        self._out: list[Any] = []

    def run(self) -> list[Any]:
        powers = {n for node in self._nodes if node.op_type == "Pow" for n in node.output}
        for node in self._nodes:
            half = (
                node.op_type in HALF_OPERATORS
                and node.domain in {"", "ai.onnx"}
                and not node.name.startswith(WRAPPER_PREFIX)
                and not (node.op_type in _MEANS and powers & set(node.input[:1]))
            )
            kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            # A cast takes either, and the wrapper's own is where the encoder ends.
            free = node.op_type == "Cast"
            node.input[:] = [
                name if free and name not in self._weights else self._as(name, kind)
                for name in node.input
            ]
            self._out.append(node)
            if half:
                self._kind |= {n: kind for n in node.output if n in self._kind}
        return self._out

    def weights(self) -> list[Any]:
        """The initializers that are read, in the types they are read in."""
        return list(self._done.values())

    def _as(self, name: str, kind: int) -> str:
        if name in self._weights:
            return self._weight(name, kind)
        if name not in self._kind or self._kind[name] == kind:
            return name
        if (name, kind) not in self._casts:
            cast = f"{name}/{'half' if kind == TensorProto.FLOAT16 else 'single'}"
            self._out.append(helper.make_node("Cast", [name], [cast], name=cast, to=kind))
            self._casts[name, kind] = cast
        return self._casts[name, kind]

    def _weight(self, name: str, kind: int) -> str:
        tensor = self._weights[name]
        if tensor.data_type != TensorProto.FLOAT or kind == TensorProto.FLOAT:
            self._done[name] = tensor
            return name
        half = f"{name}/half"
        if half not in self._done:
            self._done[half] = numpy_helper.from_array(_narrowed(tensor), half)
        return half


def _narrowed(tensor: Any) -> Any:
    values = numpy_helper.to_array(tensor)
    if values.size == 1:
        # A bound, such as the 3.4e38 that a ReLU is clipped at: 65504 does as well.
        return values.clip(-HALF_MAX, HALF_MAX).astype(np.float16)
    largest = float(np.abs(values).max(initial=0))
    if not largest <= HALF_MAX:
        raise _refused(f"its weight {tensor.name} reaches {largest:.3g}, beyond {HALF_MAX:.0f}")
    return values.astype(np.float16)


def _refused(what: str) -> InvalidArgument:
    return InvalidArgument(f"encoder: no fp16 form of it: {what}", field="encoder")
