"""Encoders that no gate may let through, made from a good one; and ones that are a little worse.

::

    python -m bench sabotage --bundle B --output DIR [--only NAME …] [--list]

writes ``DIR/NAME`` for each of ``SABOTAGES``: a bundle like any other, its golden outputs its own,
so that only the gate can tell. Sabotage by training (one camera, wrong eps, over-trained, shuffled
crops) is a run of ``resight adapt run``; ``docs/gate.md`` lists the commands.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from adapt.backbones.build import build_embedder
from adapt.backbones.embedder import Embedder
from adapt.backbones.warm_start import WARM_START_FILE
from adapt.export.graph import EncoderGraph
from resight.bundle.bundle import Bundle
from resight.bundle.layout import ENCODER
from resight.bundle.reader import open_bundle
from resight.bundle.writer import write_bundle
from resight.crops.preprocessing import Preprocessing
from resight.v1 import bundle_pb2

__all__ = ["SABOTAGES", "Original", "sabotaged"]

_SEED = 20
_GRID = (8, 4)


class Original:
    """The good encoder, as a graph and as a network to be spoilt.

    Attributes:
        bundle: Where it comes from.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._trace: EncoderGraph | None = None

    def graph(self) -> onnx.ModelProto:
        """A copy of its graph."""
        return onnx.load_model_from_string((self.bundle.directory / ENCODER).read_bytes())

    def network(self, *, trained: bool = True) -> Embedder:
        """Its network with its weights, or with random ones."""
        config = dict(self.bundle.manifest.provenance.config)
        weights = self.bundle.file(WARM_START_FILE)
        return build_embedder(
            str(config["backbone"]),
            pooling=_text(config.get("pooling")),
            neck=_text(config.get("neck")),
            init=weights if trained else "random",
            seed=_SEED,
        )

    def export(self, network: Embedder) -> onnx.ModelProto:
        """The graph of a network of the same architecture."""
        size = self.bundle.preprocessing
        if self._trace is None:
            self._trace = EncoderGraph(network, height=size.height, width=size.width)
        return onnx.load_model_from_string(self._trace.fill(network))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _random_weights(original: Original) -> onnx.ModelProto:
    return original.export(original.network(trained=False))


def _noisy(original: Original, share: float) -> onnx.ModelProto:
    """Every weight moves by ``share`` of its tensor's standard deviation."""
    network = original.network()
    random = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=random)
                parameter.add_(share * parameter.std() * noise)
    return original.export(network)


def _norms(network: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def _forgotten_statistics(original: Original) -> onnx.ModelProto:
    """Batch norms as if training had never seen a batch."""
    network = original.network()
    for norm in _norms(network):
        norm.reset_running_stats()
    return original.export(network)


def _mixed_statistics(original: Original) -> onnx.ModelProto:
    """Each batch norm's statistics, handed to other channels."""
    network = original.network()
    random = torch.Generator().manual_seed(_SEED)
    for norm in _norms(network):
        order = torch.randperm(norm.num_features, generator=random)
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None:
                statistic.copy_(statistic[order].clone())
    return original.export(network)


def _swapped_channels(original: Original) -> onnx.ModelProto:
    return _before(original.graph(), [np.array([2, 1, 0])], axes=[3])


def _shuffled_pixels(original: Original) -> onnx.ModelProto:
    size = original.bundle.preprocessing
    random = np.random.default_rng(_SEED)
    orders = [random.permutation(size.height), random.permutation(size.width)]
    return _before(original.graph(), orders, axes=[1, 2])


def _upside_down(original: Original) -> onnx.ModelProto:
    return _before(original.graph(), [np.arange(original.bundle.preprocessing.height)[::-1]], [1])


def _before(
    model: onnx.ModelProto, orders: Sequence[NDArray[np.integer]], axes: Sequence[int]
) -> onnx.ModelProto:
    """Takes the input's rows, columns or channels in another order."""
    nodes, name = [], "images"
    for order, axis in zip(orders, axes, strict=True):
        constant = numpy_helper.from_array(order.astype(np.int64), f"sabotage/order{axis}")
        model.graph.initializer.append(constant)
        found = f"sabotage/images{axis}"
        nodes.append(helper.make_node("Gather", [name, constant.name], [found], axis=axis))
        name = found
    for node in model.graph.node:
        node.input[:] = [name if source == "images" else source for source in node.input]
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    return model


def _collapsed(original: Original) -> onnx.ModelProto:
    """One vector for every crop, and a hundredth of what the encoder says."""
    random = np.random.default_rng(_SEED)
    one = random.standard_normal(original.bundle.dimension)
    return _after(original.graph(), offset=100 * one / np.linalg.norm(one))


def _two_directions(original: Original) -> onnx.ModelProto:
    """Nothing is left of the embedding but a plane."""
    dimension = original.bundle.dimension
    plane = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((dimension, 2)))[0]
    return _after(original.graph(), matrix=plane @ plane.T)


def _after(
    model: onnx.ModelProto,
    *,
    matrix: NDArray[np.floating] | None = None,
    offset: NDArray[np.floating] | None = None,
) -> onnx.ModelProto:
    for node in model.graph.node:
        node.output[:] = ["sabotage/good" if name == "embeddings" else name for name in node.output]
    name = "sabotage/good"
    for kind, values in (("MatMul", matrix), ("Add", offset)):
        if values is not None:
            constant = numpy_helper.from_array(values.astype(np.float32), f"sabotage/{kind}")
            model.graph.initializer.append(constant)
            model.graph.node.append(helper.make_node(kind, [name, constant.name], [f"{name}/x"]))
            name = f"{name}/x"
    model.graph.node.append(
        helper.make_node("LpNormalization", [name], ["embeddings"], axis=1, p=2)
    )
    return model


def _colours(original: Original) -> onnx.ModelProto:
    """Mean colours of a grid, turned into as many numbers as the encoder gives."""
    size, dimension = original.bundle.preprocessing, original.bundle.dimension
    rows, columns = _GRID
    cell = [size.height // rows, size.width // columns]
    random = np.random.default_rng(_SEED)
    mix = random.standard_normal((rows * columns * 3, dimension)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["grid"], kernel_shape=cell, strides=cell),
        helper.make_node("Reshape", ["grid", "shape"], ["flat"]),
        helper.make_node("Sub", ["flat", "grey"], ["centred"]),
        helper.make_node("MatMul", ["centred", "mix"], ["mixed"]),
        helper.make_node("LpNormalization", ["mixed"], ["embeddings"], axis=1, p=2),
    ]
    constants = {
        "shape": np.array([-1, rows * columns * 3], dtype=np.int64),
        "grey": np.float32(110.0),
        "mix": mix,
    }
    images = [size.height, size.width, 3]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *images])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", dimension])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


_NOISE = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)

SABOTAGES: dict[str, Callable[[Original], onnx.ModelProto]] = {
    "random-weights": _random_weights,
    **{f"noise-{share}": partial(_noisy, share=share) for share in _NOISE},
    "forgotten-statistics": _forgotten_statistics,
    "mixed-statistics": _mixed_statistics,
    "swapped-channels": _swapped_channels,
    "shuffled-pixels": _shuffled_pixels,
    "upside-down": _upside_down,
    "collapsed": _collapsed,
    "two-directions": _two_directions,
    "colours": _colours,
}


def sabotaged(original: Original, name: str) -> tuple[bytes, Preprocessing]:
    """The graph of one of ``SABOTAGES`` and its input."""
    model = SABOTAGES[name](original)
    return model.SerializeToString(deterministic=True), original.bundle.preprocessing


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench sabotage", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=SABOTAGES, default=list(SABOTAGES))
    options = parser.parse_args(argv)
    original = Original(open_bundle(options.bundle))
    for name in options.only:
        encoder, preprocessing = sabotaged(original, name)
        bundle = write_bundle(
            options.output / name,
            encoder=encoder,
            preprocessing=preprocessing,
            provenance=bundle_pb2.Provenance(
                method=f"sabotage: {name}", parent_version=original.bundle.model_version
            ),
            model_card=f"# {name}\n\nA spoilt encoder, to test the gate with.\n",
        )
        print(json.dumps({"name": name, "model_version": bundle.model_version}))
    return 0
