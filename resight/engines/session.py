"""An engine on a GPU: crops in, embeddings out."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from resight.bundle.bundle import Bundle
from resight.engines.backend import Backend
from resight.engines.device import Device
from resight.errors import FailedPrecondition, InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["EngineSession", "why_not"]


def why_not(engine: bundle_pb2.Engine, backend: Backend, device: Device) -> str | None:
    """Why an engine cannot run here; None when it can."""
    if engine.backend != backend.name:
        return f"it is for {engine.backend}, and {backend.name} is loaded"
    if engine.backend_version != backend.version:
        return f"it needs {engine.backend} {engine.backend_version}, here is {backend.version}"
    if engine.compute_capability != device.compute_capability:
        return f"it is for {engine.compute_capability}, this GPU is {device.compute_capability}"
    return None


class EngineSession:
    """A loaded engine; one thread at a time.

    Args:
        bundle: A verified bundle.
        engine: One of its engines.
        backend: The library that built it.
        device: The GPU.

    Raises:
        FailedPrecondition: It was not built for this library or GPU, or does not load.
    """

    def __init__(
        self, bundle: Bundle, engine: bundle_pb2.Engine, backend: Backend, device: Device
    ) -> None:
        reason = why_not(engine, backend, device)
        if reason:
            raise _failed(engine, reason)
        if engine.graph_sha256 not in {entry.sha256 for entry in bundle.manifest.files}:
            raise _failed(engine, "the graph it was built from is no longer the bundle's")
        self._engine, self._device = engine, device
        self._size = (bundle.preprocessing.height, bundle.preprocessing.width, 3)
        self.dimension = bundle.dimension
        self._logger = backend.logger()
        self._runtime = backend.module.Runtime(self._logger)
        plan = bundle.file(engine.path).read_bytes()
        self._loaded = self._runtime.deserialize_cuda_engine(plan)
        if self._loaded is None:
            raise _failed(engine, f"it does not load: {'; '.join(self._logger.errors)}")
        self._check_profile()
        self._context = self._loaded.create_execution_context()
        if self._context is None:
            raise _failed(engine, f"no context: {'; '.join(self._logger.errors)}")
        largest = engine.max_batch
        self._images = device.allocate(largest * int(np.prod(self._size)))
        self._embeddings = device.allocate(largest * self.dimension * 4)
        self._context.set_tensor_address("images", self._images)
        self._context.set_tensor_address("embeddings", self._embeddings)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 to (B, D) float32, L2-normalised.

        Raises:
            InvalidArgument: Wrong shape, or a batch the engine does not take.
            FailedPrecondition: The GPU fails.
        """
        smallest, largest = self._engine.min_batch, self._engine.max_batch
        if images.dtype != np.uint8 or images.shape[1:] != self._size:
            raise InvalidArgument(
                f"images: {images.dtype} {images.shape}, not uint8 (B, {self._size})",
                field="images",
            )
        if not smallest <= len(images) <= largest:
            raise InvalidArgument(
                f"images: a batch of {len(images)}, and {self._engine.path} takes {smallest} to"
                f" {largest}; cut it, or build an engine with another --max",
                field="images",
                reason="BATCH_OUT_OF_PROFILE",
            )
        embeddings = np.empty((len(images), self.dimension), np.float32)
        self._device.upload(images, self._images)
        if not (
            self._context.set_input_shape("images", images.shape)
            and self._context.execute_async_v3(self._device.stream)
        ):
            raise _failed(self._engine, f"it does not run: {'; '.join(self._logger.errors)}")
        self._device.download(self._embeddings, embeddings)
        self._device.synchronise()
        return embeddings

    def _check_profile(self) -> None:
        shapes = [tuple(s) for s in self._loaded.get_tensor_profile_shape("images", 0)]
        batches = (self._engine.min_batch, self._engine.opt_batch, self._engine.max_batch)
        if shapes != [(batch, *self._size) for batch in batches]:
            raise _failed(self._engine, f"its profile is {shapes}, not what the manifest says")

    def close(self) -> None:
        """Gives the GPU's memory back."""
        self._device.free(self._images)
        self._device.free(self._embeddings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _failed(engine: bundle_pb2.Engine, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{engine.path}: {what}; build it again with `resight bundle engine`, or serve with ONNX"
        " Runtime",
        field=engine.path,
        reason="ENGINE_UNUSABLE",
    )
