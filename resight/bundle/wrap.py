"""Wrapping an encoder into the bundle's contract.

The wrapped graph computes, for crops x of shape (batch, height, width, 3), uint8 RGB:

    z = (scale * x - mean) / std          channels in the encoder's order, then its layout
    f = encoder(z), flattened to (batch, dimension)
    embeddings = f / max(||f||_2, 1e-12)

Scale, mean and std are folded into one multiplication and one addition a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from resight.bundle.foreign_graph import ForeignGraph, read_foreign_graph
from resight.errors import InvalidArgument

__all__ = ["WRAPPER_PREFIX", "ChannelOrder", "Layout", "wrap_encoder"]

Layout = Literal["NCHW", "NHWC"]
ChannelOrder = Literal["RGB", "BGR"]

WRAPPER_PREFIX = "resight/"
"""Names of the nodes and constants put around an encoder begin with it."""

_PREFIX = "encoder/"
_EPSILON = 1e-12
_AXES_AS_INPUT = 18  # opset from which ReduceL2 takes its axes as an input


def wrap_encoder(
    model: bytes,
    *,
    layout: Layout,
    height: int,
    width: int,
    scale: float,
    mean: Sequence[float],
    std: Sequence[float],
    channel_order: ChannelOrder = "RGB",
    output_name: str | None = None,
    fixed_reshapes: bool = False,
) -> bytes:
    """Puts normalisation in front of an encoder and the L2 norm behind it.

    Args:
        model: ONNX graph with one float input of four dimensions.
        layout: Order of that input's dimensions.
        height: Input height in pixels.
        width: Input width in pixels.
        scale: Factor on the pixel values 0..255, such as 1/255.
        mean: Three values subtracted after scaling, in the encoder's channel order.
        std: Three divisors, in the encoder's channel order.
        channel_order: Order of the encoder's input channels.
        output_name: The embedding among several outputs.
        fixed_reshapes: Also make the batch size free in Reshape nodes that fix it.

    Returns:
        Graph with input ``images`` uint8 (batch, height, width, 3) RGB and output ``embeddings``
        float32 (batch, dimension) of unit length, batch dynamic. An opset below 17 is raised to 17
        where ONNX's converter can, and kept otherwise.

    Raises:
        InvalidArgument: The graph cannot be wrapped, or an argument contradicts it.
    """
    slope, offset = _affine(scale, mean, std)
    foreign = read_foreign_graph(
        model, layout=layout, height=height, width=width, output_name=output_name
    )
    if fixed_reshapes:
        foreign.free_reshapes()
    prefixed = compose.add_prefix(foreign.model, _PREFIX)
    graph = prefixed.graph
    chain = _Chain("images")
    _normalise(chain, foreign, layout, channel_order, slope, offset)
    chain.end_at(_PREFIX + foreign.input_name)
    head = chain.nodes
    chain.restart(_PREFIX + foreign.output_name)
    _finish(chain, foreign)
    chain.end_at("embeddings")
    nodes = [*head, *graph.node, *chain.nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(chain.constants)
    graph.input.append(
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", height, width, 3])
    )
    graph.output.append(
        helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", foreign.dimension])
    )
    graph.name = "resight_encoder"
    return bytes(prefixed.SerializeToString(deterministic=True))


def _affine(
    scale: float, mean: Sequence[float], std: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or not np.all(np.isfinite(values)):
            raise InvalidArgument(f"{name} needs three finite numbers, one a channel", field=name)
    if any(value <= 0 for value in std):
        raise InvalidArgument("std must be positive; use 1 for no division", field="std")
    if not (np.isfinite(scale) and scale > 0):
        raise InvalidArgument("scale must be positive, such as 1/255, or 1 for none", field="scale")
    slope = scale / np.asarray(std, np.float64)
    offset = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
    return slope.astype(np.float32), offset.astype(np.float32)


class _Chain:
    """Nodes that each take the output of the one before."""

    def __init__(self, source: str) -> None:
        self.constants: list[Any] = []
        self.nodes: list[Any] = []
        self._last = source
        self._count = 0

    def restart(self, source: str) -> None:
        self.nodes = []
        self._last = source

    def constant(self, values: NDArray[Any]) -> str:
        name = f"{WRAPPER_PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, *others: str, source: str | None = None, **attributes: Any) -> str:
        """Appends a node on the last output (or ``source``) and returns its output."""
        self._count += 1
        self._last = self._append(operator, [source or self._last, *others], attributes)
        return self._last

    def _append(self, operator: str, inputs: list[str], attributes: dict[str, Any]) -> str:
        name = f"{WRAPPER_PREFIX}{operator}_{self._count}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def end_at(self, name: str) -> None:
        """Renames the last node's output."""
        self.nodes[-1].output[0] = name


def _normalise(
    chain: _Chain,
    foreign: ForeignGraph,
    layout: Layout,
    channel_order: ChannelOrder,
    slope: NDArray[np.float32],
    offset: NDArray[np.float32],
) -> None:
    channels_last = layout == "NHWC"
    if not channels_last:
        chain.add("Transpose", perm=[0, 3, 1, 2])  # while a pixel is still one byte
    if channel_order == "BGR":
        chain.add("Gather", chain.constant(np.array([2, 1, 0])), axis=3 if channels_last else 1)
    shape = (1, 1, 1, 3) if channels_last else (1, 3, 1, 1)
    chain.add("Cast", to=TensorProto.FLOAT)
    chain.add("Mul", chain.constant(slope.reshape(shape)))
    chain.add("Add", chain.constant(offset.reshape(shape)))
    if foreign.input_type != TensorProto.FLOAT:
        chain.add("Cast", to=foreign.input_type)


def _finish(chain: _Chain, foreign: ForeignGraph) -> None:
    chain.add("Cast", to=TensorProto.FLOAT)
    features = chain.add("Flatten", axis=1)
    if foreign.opset >= _AXES_AS_INPUT:
        chain.add("ReduceL2", chain.constant(np.array([1])), keepdims=1)
    else:
        chain.add("ReduceL2", axes=[1], keepdims=1)
    norm = chain.add("Max", chain.constant(np.array([_EPSILON], np.float32)))
    chain.add("Div", norm, source=features)
