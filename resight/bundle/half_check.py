"""Whether the fp16 graph may stand for the encoder: its numbers as a GPU would round them.

ONNX Runtime on a CPU computes float16 graphs in float32 and rounds only where it must, so running
the graph there would prove little. Here every float16 tensor is rounded, by a cast there and back,
and its largest magnitude is read off:

    x_i = fl16(f_i(x_j, ...))       f_i in float32, as a GPU's accumulators are
    embeddings as in the encoder

What this leaves out is the order of summation and accumulation in float16, which kernels choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from resight.bundle.attachments import Attachments
from resight.bundle.bundle import Bundle
from resight.bundle.golden import golden_inputs
from resight.bundle.graph_session import GraphSession, open_session
from resight.bundle.half_precision import HALF_ENCODER, HALF_MAX, to_half
from resight.crops.preprocessing import Preprocessing
from resight.errors import BundleCorrupt, FailedPrecondition, InvalidArgument
from resight.v1 import bundle_pb2

__all__ = [
    "HALF_MIN_COSINE",
    "HalfCheck",
    "Magnitude",
    "RoundedSession",
    "check_half",
    "half_attachment",
    "verify_half",
]

HALF_MIN_COSINE = 0.999
"""Lowest cosine similarity of the fp16 graph's embeddings to the encoder's."""

BATCHES = (1, 2, 7)
# Crops that were not tried may excite a unit twice as much as those that were.
_HEADROOM = 2.0
_SEED = 16
_BATCH = 16


@dataclass(frozen=True)
class Magnitude:
    """The largest absolute value that a node gave; infinite after an overflow, NaN after that."""

    node: str
    largest: float


@dataclass(frozen=True)
class HalfCheck:
    """What was compared.

    Attributes:
        parity: One entry a batch size.
        whole: (N, D) the crops' embeddings by the encoder.
        half: (N, D) the same by the fp16 graph.
    """

    parity: tuple[bundle_pb2.Parity, ...]
    whole: NDArray[np.float32]
    half: NDArray[np.float32]


class RoundedSession:
    """A float16 graph on the CPU with every float16 tensor rounded as such.

    Args:
        half: Graph as ``to_half`` makes it.

    Raises:
        InvalidArgument: ONNX Runtime cannot load it.
    """

    def __init__(self, half: bytes) -> None:
        model, self._nodes = _rounded(onnx.load_model_from_string(half))
        self._session = open_session(model)

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[Magnitude]]:
        """Embeddings (B, D) of crops (B, H, W, 3), and magnitudes in the order of computation."""
        embeddings, *largest = self._session.run(None, {"images": images})
        pairs = zip(self._nodes, largest, strict=True)
        return embeddings, [Magnitude(node, float(value)) for node, value in pairs]


def half_attachment(
    encoder: bytes, preprocessing: Preprocessing, crops: NDArray[np.uint8]
) -> Attachments:
    """The fp16 graph of an encoder, checked as ``check_half`` does, ready to be attached.

    Raises:
        InvalidArgument: The encoder cannot be converted.
        FailedPrecondition: The result does not stand for it.
    """
    half = to_half(encoder)
    checked = check_half(encoder, half, preprocessing, crops)
    return Attachments(files={HALF_ENCODER: half}, parity=list(checked.parity))


def check_half(
    encoder: bytes, half: bytes, preprocessing: Preprocessing, crops: NDArray[np.uint8]
) -> HalfCheck:
    """Compares the fp16 graph with the encoder on golden inputs at batch 1, 2 and 7, and on crops.

    Args:
        encoder: The graph it was made from.
        half: As ``to_half`` made it.
        preprocessing: Input size.
        crops: (N, H, W, 3) uint8, N may be 0; real crops excite units that noise does not.

    Returns:
        Parity by batch size, and the crops as both see them.

    Raises:
        FailedPrecondition: A tensor overflows, or comes within a factor of 2 of it, or is not a
            number; or an embedding has a cosine similarity below 0.999. Names the node.
    """
    reference, rounded = GraphSession(encoder, preprocessing), RoundedSession(half)
    parity = []
    for batch in BATCHES:
        images = golden_inputs(_SEED + batch, batch, preprocessing)
        expected, found = _both(reference, rounded, images)
        parity.append(
            bundle_pb2.Parity(
                batch_size=batch,
                min_cosine=min(float(np.min(np.sum(expected * found, axis=1))), 1.0),
                max_abs_difference=float(np.abs(expected - found).max()),
                path=HALF_ENCODER,
            )
        )
    empty = np.empty((0, reference.dimension), np.float32)
    pairs = [
        _both(reference, rounded, crops[start : start + _BATCH])
        for start in range(0, len(crops), _BATCH)
    ]
    whole, rounded_off = (
        np.concatenate([empty, *(pair[side] for pair in pairs)]) for side in (0, 1)
    )
    return HalfCheck(tuple(parity), whole, rounded_off)


def verify_half(bundle: Bundle) -> float | None:
    """Recomputes the golden outputs with the bundle's fp16 graph on the CPU.

    Returns:
        The lowest cosine similarity to what the manifest expects; None without such a graph.

    Raises:
        BundleCorrupt: It is below 0.999, or the graph does not run.
    """
    if all(entry.path != HALF_ENCODER for entry in bundle.manifest.files):
        return None
    golden = bundle.manifest.golden
    images = golden_inputs(golden.seed, golden.count, bundle.preprocessing)
    expected = np.frombuffer(golden.embeddings, "<f4").reshape(golden.count, bundle.dimension)
    try:
        session = GraphSession(bundle.file(HALF_ENCODER).read_bytes(), bundle.preprocessing)
        cosine = float(np.min(np.sum(session.embed(images) * expected, axis=1)))
    except (InvalidArgument, ValueError) as error:
        raise _damaged(str(error)) from error
    if not cosine >= HALF_MIN_COSINE:
        raise _damaged(f"golden outputs differ, cosine {cosine:.6f} < {HALF_MIN_COSINE}")
    return min(cosine, 1.0)


def _damaged(what: str) -> BundleCorrupt:
    return BundleCorrupt(f"bundle file {HALF_ENCODER}: {what}; write it again", field=HALF_ENCODER)


def _both(
    reference: GraphSession, rounded: RoundedSession, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings by the encoder and by the fp16 graph, once that is known to be sound."""
    expected = reference.embed(images)
    found, magnitudes = rounded.run(images)
    for magnitude in magnitudes:
        if not magnitude.largest <= HALF_MAX / _HEADROOM:
            raise FailedPrecondition(
                f"{HALF_ENCODER}: node {magnitude.node} reaches {magnitude.largest:.4g}, and"
                f" float16 ends at {HALF_MAX:.0f}: keep to fp32 for this encoder",
                field=HALF_ENCODER,
                reason="HALF_OVERFLOW",
            )
    cosine = float(np.min(np.sum(expected * found, axis=1)))
    if not cosine >= HALF_MIN_COSINE:
        raise FailedPrecondition(
            f"{HALF_ENCODER}: cosine similarity {cosine:.6f} to the encoder's embeddings, below"
            f" {HALF_MIN_COSINE}: keep to fp32 for this encoder",
            field=HALF_ENCODER,
            reason="HALF_PARITY",
        )
    return expected, found


def _rounded(model: Any) -> tuple[bytes, list[str]]:
    """The graph in float32 with casts after every float16 tensor, and the nodes measured."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    half = {
        value.name
        for value in inferred.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    graph, nodes, measured = model.graph, [], []
    for node in graph.node:
        _widen(node)
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name not in half:
                continue
            exact, narrow = f"{name}/exact", f"{name}/narrow"
            node.output[index] = exact
            nodes.append(helper.make_node("Cast", [exact], [narrow], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [narrow], [name], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Abs", [name], [f"{name}/abs"]))
            nodes.append(
                helper.make_node("ReduceMax", [f"{name}/abs"], [f"{name}/max"], keepdims=0)
            )
            measured.append((node.name or name, f"{name}/max"))
    outputs = [
        helper.make_tensor_value_info(output, TensorProto.FLOAT, []) for _, output in measured
    ]
    weights = [_widened(tensor) for tensor in graph.initializer]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    graph.output.extend(outputs)
    return bytes(model.SerializeToString()), [name for name, _ in measured]


def _widened(tensor: Any) -> Any:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _widen(node: Any) -> None:
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            attribute.t.CopyFrom(_widened(attribute.t))
