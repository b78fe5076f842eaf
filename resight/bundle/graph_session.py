"""An encoder graph loaded in ONNX Runtime on the CPU: the reference every runtime is held to."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.crops.preprocessing import Preprocessing
from resight.errors import InvalidArgument

__all__ = ["GraphSession", "open_session"]

_UNIT_TOLERANCE = 1e-3


def open_session(model: bytes) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU for a graph's bytes.

    Raises:
        InvalidArgument: ONNX Runtime cannot load the graph.
    """
    # Imported here so that reading a manifest needs no runtime.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _processors()
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but this
        raise InvalidArgument(
            f"encoder: ONNX Runtime {onnxruntime.__version__} cannot load the graph: {error}",
            field="encoder",
        ) from error


def _processors() -> int:
    # ONNX Runtime counts the host's processors, not those this process may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class GraphSession:
    """A graph under the bundle's contract: ``images`` in, ``embeddings`` out.

    Attributes:
        dimension: Length of an embedding.
    """

    def __init__(self, encoder: bytes, preprocessing: Preprocessing) -> None:
        """Loads the graph and checks its input and output against the contract.

        Raises:
            InvalidArgument: The graph cannot be loaded or does not follow the contract.
        """
        self._session = open_session(encoder)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        size = [preprocessing.height, preprocessing.width, 3]
        if (
            [node.name for node in inputs] != ["images"]
            or inputs[0].type != "tensor(uint8)"
            or inputs[0].shape[1:] != size
            or isinstance(inputs[0].shape[0], int)
        ):
            found = [(node.name, node.type, node.shape) for node in inputs]
            raise InvalidArgument(
                f"encoder: input must be images, uint8, (batch, {size[0]}, {size[1]}, 3) with a"
                f" dynamic batch; found {found}; wrap it with `resight bundle import`",
                field="encoder",
            )
        found = [(node.name, node.type, node.shape) for node in outputs]
        if (
            [node.name for node in outputs] != ["embeddings"]
            or outputs[0].type != "tensor(float)"
            or len(outputs[0].shape) != 2
            or not isinstance(outputs[0].shape[1], int)
        ):
            raise InvalidArgument(
                f"encoder: output must be embeddings, float32, (batch, dimension); found {found};"
                " wrap it with `resight bundle import`",
                field="encoder",
            )
        self.dimension: int = outputs[0].shape[1]

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 to (B, D) float32, L2-normalised.

        Raises:
            InvalidArgument: The graph fails, or answers something that is not unit vectors.
        """
        try:
            embeddings: NDArray[np.float32] = self._session.run(["embeddings"], {"images": images})[
                0
            ]
        except Exception as error:  # as above
            raise InvalidArgument(
                f"encoder: the graph fails on a batch of {len(images)}: {error}", field="encoder"
            ) from error
        norms = np.linalg.norm(embeddings, axis=1)
        if (
            embeddings.shape != (len(images), self.dimension)
            or not np.all(np.abs(norms - 1) < _UNIT_TOLERANCE)  # also refuses NaN
        ):
            raise InvalidArgument(
                f"encoder: output of a batch of {len(images)} has shape {embeddings.shape} and"
                f" norms {norms.min():.4f} to {norms.max():.4f}; unit vectors are needed",
                field="encoder",
            )
        return embeddings
