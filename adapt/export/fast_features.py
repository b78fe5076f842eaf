"""Features on the CPU through ONNX Runtime: several times faster than eager PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from adapt.backbones.embedder import Embedder
from adapt.export.graph import EncoderGraph
from resight.errors import InvalidArgument

__all__ = ["OrtExtractor"]


class OrtExtractor:
    """An embedder in eval mode, run by ONNX Runtime.

    What it runs is the very graph that a bundle of these weights would hold.

    Args:
        embedder: Whose features are wanted; not kept, see :meth:`refresh`.
        height: Input height in pixels.
        width: Input width in pixels.
        threads: Threads of one run.
        batch: Crops a run; larger inputs are cut.
        graph: The same network's trace at that size, to save tracing it again.
        maps: Whether :meth:`extract_with_maps` will be asked; ``graph`` must then have maps.

    Raises:
        InvalidArgument: The network cannot be exported.
    """

    def __init__(
        self,
        embedder: Embedder,
        height: int,
        width: int,
        threads: int,
        *,
        batch: int = 64,
        graph: EncoderGraph | None = None,
        maps: bool = False,
    ) -> None:
        if threads < 1 or batch < 1:
            raise InvalidArgument(
                f"threads ({threads}) and batch ({batch}) must be at least 1", field="threads"
            )
        self._shape = (height, width, 3)
        self._threads = threads
        self._batch = batch
        self._maps = maps
        self._graph = graph or EncoderGraph(embedder, height=height, width=width, maps=maps)
        self.refresh(embedder)

    @property
    def graph(self) -> EncoderGraph | None:
        """The trace, for the export at the end of the run; None if it has maps."""
        return None if self._maps else self._graph

    def refresh(self, embedder: Embedder) -> None:
        """Take over the weights as they are now.

        Raises:
            InvalidArgument: Another architecture than the constructor's.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Otherwise its threads spin between runs and slow the training step down.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            self._graph.fill(embedder), options, providers=["CPUExecutionProvider"]
        )
        self._dim = embedder.dim

    def extract(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return L2-normalised features (B, dim) of RGB crops (B, H, W, 3).

        Raises:
            InvalidArgument: Wrong dtype or shape.
        """
        features = np.empty((len(images), self._dim), np.float32)
        for start, part in self._batches(images):
            features[start : start + len(part)] = self._session.run(
                ["embeddings"], {"images": part}
            )[0]
        return features

    def extract_with_maps(
        self, images: NDArray[np.uint8]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yield features as ``extract`` and maps (b, C, H', W') of runs of crops, in order.

        Raises:
            InvalidArgument: Wrong dtype or shape, or built without ``maps``.
        """
        if not self._maps:
            raise InvalidArgument("this extractor was built without maps", field="maps")
        for _, part in self._batches(images):
            features, maps = self._session.run(["embeddings", "maps"], {"images": part})
            yield features, maps

    def _batches(self, images: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            raise InvalidArgument(
                f"images are {images.dtype} {images.shape}, not uint8 (B, {self._shape[0]}, "
                f"{self._shape[1]}, 3): resize them first",
                field="images",
            )
        for start in range(0, len(images), self._batch):
            yield start, np.ascontiguousarray(images[start : start + self._batch])
