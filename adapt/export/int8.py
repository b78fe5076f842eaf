"""The encoder with explicit quantisation to eight bits: ``encoder.int8.onnx``, off by default.

    q(x) = clip(round(x / scale), -128, 127)     symmetric; one scale a tensor of activations,
    x'   = scale q(x)                            one an output channel of weights

as QuantizeLinear and DequantizeLinear around convolutions and products, which TensorRT and ONNX
Runtime fuse. Scales come from crops of the run. Small networks lose their ranking this way
(docs/bundle.md), so the graph is admitted by rank agreement alone, and refused with the margin
otherwise.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from adapt.export.rank_agreement import compare_ranking, embed_in_batches
from resight.bundle.attachments import Attachments
from resight.bundle.graph_session import GraphSession
from resight.bundle.rank_agreement import GRAPH_BOUNDS, RankBounds
from resight.bundle.wrap import WRAPPER_PREFIX
from resight.crops.preprocessing import Preprocessing
from resight.errors import InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["INT8_ENCODER", "int8_attachment", "quantise"]

INT8_ENCODER = "encoder.int8.onnx"
_OPERATORS = ("Conv", "Gemm", "MatMul")
_MIN_CROPS = 32
_BATCH = 16


def int8_attachment(
    encoder: bytes,
    preprocessing: Preprocessing,
    calibration: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    *,
    bounds: RankBounds = GRAPH_BOUNDS,
) -> Attachments:
    """Quantises an encoder and admits it by rank agreement.

    Args:
        encoder: ``encoder.onnx``.
        preprocessing: Input size.
        calibration: (N, H, W, 3) uint8, the crops that scales are taken from.
        held_out: (M, H, W, 3) uint8, other crops, which are ranked.
        bounds: What it must reach.

    Raises:
        InvalidArgument: Too few crops, or a graph that cannot be quantised.
        Refused: It ranks otherwise than the encoder; says by how much.
    """
    quantised = quantise(encoder, calibration)
    expected = embed_in_batches(GraphSession(encoder, preprocessing).embed, held_out)
    found = embed_in_batches(GraphSession(quantised, preprocessing).embed, held_out)
    agreement = compare_ranking(expected, found).admit(INT8_ENCODER, bounds)
    parity = bundle_pb2.Parity(
        batch_size=_BATCH,
        min_cosine=min(float((expected * found).sum(axis=1).min()), 1.0),
        max_abs_difference=float(np.abs(expected - found).max()),
        path=INT8_ENCODER,
    )
    return Attachments(files={INT8_ENCODER: quantised}, parity=[parity], rank_agreement=[agreement])


def quantise(encoder: bytes, crops: NDArray[np.uint8]) -> bytes:
    """The graph with explicit quantisation; normalisation and L2 norm stay in float32.

    Args:
        encoder: ``encoder.onnx``.
        crops: (N, H, W, 3) uint8, N at least 32.

    Raises:
        InvalidArgument: Too few crops, or nothing to quantise.
    """
    # Imported here: slow to load, and few runs quantise.
    from onnxruntime import quantization

    if len(crops) < _MIN_CROPS:
        raise InvalidArgument(
            f"export.int8: {len(crops)} crops to calibrate on, {_MIN_CROPS} are needed",
            field="export.int8",
        )
    model = onnx.load_model_from_string(encoder)
    if not any(node.op_type in _OPERATORS for node in model.graph.node):
        raise InvalidArgument("export.int8: the encoder has nothing to quantise", field="encoder")
    outside = [node.name for node in model.graph.node if node.name.startswith(WRAPPER_PREFIX)]
    with tempfile.TemporaryDirectory(prefix="resight-int8-") as folder, _quiet():
        output = Path(folder, INT8_ENCODER)
        quantization.quantize_static(
            model,
            output,
            _Crops(crops),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            nodes_to_exclude=outside,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        return output.read_bytes()


class _Crops:
    """A calibration data reader."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self._batches = iter(range(0, len(crops), _BATCH))
        self._crops = crops

    def get_next(self) -> dict[str, Any] | None:
        start = next(self._batches, None)
        return None if start is None else {"images": self._crops[start : start + _BATCH]}


@contextlib.contextmanager
def _quiet() -> Any:
    """Its advice to preprocess the model is for graphs that were not folded."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
