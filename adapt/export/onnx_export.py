"""The encoder of a bundle, and the proof that it is the network it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from adapt.backbones.embedder import Embedder
from adapt.export.graph import EncoderGraph
from resight.bundle.golden import golden_inputs
from resight.crops.preprocessing import Preprocessing
from resight.errors import FailedPrecondition
from resight.v1 import bundle_pb2

__all__ = ["MIN_COSINE", "PARITY_BATCHES", "ExportResult", "embed_eagerly", "export_embedder"]

PARITY_BATCHES = (1, 2, 7)
MIN_COSINE = 0.9999
_PARITY_SEED = 20260


@dataclass(frozen=True)
class ExportResult:
    """An exported encoder.

    Attributes:
        encoder: ONNX under the bundle's contract.
        parity: Closeness to the network; one entry a batch size.
    """

    encoder: bytes
    parity: tuple[bundle_pb2.Parity, ...]


def export_embedder(
    embedder: Embedder,
    preprocessing: Preprocessing,
    *,
    graph: EncoderGraph | None = None,
) -> ExportResult:
    """Export an embedder and compare the result with it.

    Args:
        embedder: On any device; exported in eval mode, left as it is.
        preprocessing: Input size.
        graph: The same network's trace at that size, to save tracing it again.

    Raises:
        InvalidArgument: The network cannot be exported.
        FailedPrecondition: The graph's embeddings differ from the network's: a cosine similarity
            below 0.9999, or not a finite number.
    """
    if graph is None:
        graph = EncoderGraph(embedder, height=preprocessing.height, width=preprocessing.width)
    encoder = graph.fill(embedder)
    return ExportResult(encoder=encoder, parity=tuple(_compare(embedder, encoder, preprocessing)))


def embed_eagerly(embedder: Embedder, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return L2-normalised features (B, dim) of RGB crops (B, H, W, 3), by PyTorch in eval mode.

    The normalisation is spelled out here, apart from the exported graph's, as its check.
    """
    device = next(embedder.parameters()).device
    mean = torch.tensor(embedder.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(embedder.std, device=device).view(1, 3, 1, 1)
    training = embedder.training
    embedder.eval()
    try:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255.0
            features = embedder((pixels - mean) / std).float()
            unit = torch.nn.functional.normalize(features, eps=1e-12)
    finally:
        embedder.train(training)
    result: NDArray[np.float32] = unit.cpu().numpy()
    return result


def _compare(
    embedder: Embedder, encoder: bytes, preprocessing: Preprocessing
) -> Sequence[bundle_pb2.Parity]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(encoder, options, providers=["CPUExecutionProvider"])
    entries = []
    for batch in PARITY_BATCHES:
        images = golden_inputs(_PARITY_SEED + batch, batch, preprocessing)
        expected = embed_eagerly(embedder, images)
        got = session.run(None, {"images": images})[0]
        cosine = float((expected * got).sum(axis=1).min())
        if not cosine >= MIN_COSINE:
            raise FailedPrecondition(
                f"the exported encoder of {embedder.name} differs from the network: cosine "
                f"similarity {cosine:.6f} < {MIN_COSINE} at batch {batch}. Weights that are not "
                "finite, or a feature that is all zeros, look like this: check the training run",
                field="encoder",
                reason="EXPORT_PARITY",
            )
        entries.append(
            bundle_pb2.Parity(
                batch_size=batch,
                min_cosine=min(cosine, 1.0),
                max_abs_difference=float(np.abs(expected - got).max()),
            )
        )
    return entries
