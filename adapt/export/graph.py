"""An embedder's ONNX graph: traced once, filled with weights as often as they change.

The trace is kept unfolded, with each parameter as an initializer under its state dict name, so
that new weights are a copy of bytes. Folding (batch norms into convolutions, shapes into
constants) comes after filling and gives a plain graph with a dynamic batch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import onnxscript.optimizer
import torch
from onnx import helper, numpy_helper

from adapt.backbones.embedder import Embedder
from resight.bundle.wrap import wrap_encoder
from resight.errors import InvalidArgument

__all__ = ["EncoderGraph"]

OPSET = 18


class EncoderGraph:
    """The traced graph of one architecture at one input size.

    Args:
        embedder: Traced in eval mode, on a copy: the caller's is left as it is.
        height: Input height in pixels.
        width: Input width in pixels.
        maps: Whether the graph also gives the backbone's maps. Such a graph is for extraction: no
            bundle holds it, and its bytes for given weights are others.

    Raises:
        InvalidArgument: The exporter cannot express the network.
    """

    def __init__(self, embedder: Embedder, *, height: int, width: int, maps: bool = False) -> None:
        self._height = height
        self._width = width
        self._maps = maps
        self._model = _trace(embedder, height, width, maps=maps)
        self._names = {initializer.name for initializer in self._model.graph.initializer}

    def fill(self, embedder: Embedder) -> bytes:
        """Return the folded ONNX model with this embedder's weights, under the bundle's contract.

        Equal weights give equal bytes.

        Args:
            embedder: Of the architecture that was traced, on any device, in any mode.

        Returns:
            A graph from ``images`` (uint8, B x H x W x 3) to ``embeddings`` (float32, B x dim,
            L2-normalised) and, where asked for, ``maps`` (float32, B x C x H' x W').

        Raises:
            InvalidArgument: The embedder is of another architecture.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        state = embedder.state_dict()
        for initializer in model.graph.initializer:
            tensor = state.get(initializer.name)
            if tensor is None:  # a buffer that is no part of the state: a constant
                continue
            if tuple(tensor.shape) != tuple(initializer.dims):
                raise InvalidArgument(
                    f"{initializer.name} is {tuple(tensor.shape)}, not {tuple(initializer.dims)} "
                    "as traced: this is another network, trace it anew",
                    field="embedder",
                )
            values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
        folded = onnxscript.optimizer.optimize(model)
        _strip(folded)
        wrapped = wrap_encoder(
            folded.SerializeToString(deterministic=True),
            layout="NCHW",
            height=self._height,
            width=self._width,
            scale=1.0 / 255.0,
            mean=embedder.mean,
            std=embedder.std,
            channel_order="RGB",
            output_name="features",
        )
        return _give_maps(wrapped) if self._maps else wrapped


def _give_maps(wrapped: bytes) -> bytes:
    """Makes the maps, which wrapping keeps as an inner value under its prefix, an output again."""
    model = onnx.load_model_from_string(wrapped)
    model.graph.node.append(helper.make_node("Identity", ["encoder/maps"], ["maps"]))
    model.graph.output.append(
        helper.make_tensor_value_info("maps", onnx.TensorProto.FLOAT, ["batch", None, None, None])
    )
    return bytes(model.SerializeToString(deterministic=True))


def _trace(embedder: Embedder, height: int, width: int, *, maps: bool) -> onnx.ModelProto:
    network = copy.deepcopy(embedder).to("cpu", torch.float32).eval()
    if maps:
        network.forward = network.forward_with_maps  # type: ignore[method-assign,assignment]
    network.to(memory_format=torch.contiguous_format)
    # Two, not one: the exporter takes a batch of one for a constant.
    example = torch.zeros(2, 3, height, width)
    with _quiet():
        try:
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["crops"],
                output_names=["features", "maps"] if maps else ["features"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                optimize=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise InvalidArgument(
                f"{embedder.name} at {height} x {width} cannot be exported to ONNX "
                f"({str(error).strip().splitlines()[0]}): choose another backbone or input size",
                field="backbone",
            ) from error
    if program is None:
        raise InvalidArgument(f"{embedder.name} cannot be exported to ONNX", field="backbone")
    model = program.model_proto
    _strip(model)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about our source files: it changes from machine to machine."""
    graph = model.graph
    del graph.value_info[:]
    parts: tuple[Any, ...] = (
        model,
        graph,
        *graph.node,
        *graph.initializer,
        *graph.input,
        *graph.output,
    )
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress messages off stdout, which belongs to the command's answer."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
