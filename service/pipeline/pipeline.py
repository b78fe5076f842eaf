"""From the bytes of an image to its vector: admission, decode pool, batcher, encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, perf_counter

import numpy as np

from resight.crops import ImageLimits, prepare
from resight.errors import ImageTooLarge
from service.domain.ports import Encoder, Priority
from service.pipeline.admission import Admission
from service.pipeline.batcher import Batcher, BatchPolicy
from service.pipeline.decode_pool import DecodePool
from service.pipeline.device import Vector
from service.pipeline.latency import LatencyModel

__all__ = ["Pipeline", "PipelinePolicy"]

_WARM_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class PipelinePolicy:
    """Bounds of the pipeline.

    Args:
        batch: How batches are made.
        decode_threads: Images decoded at the same time.
        max_images: Most images inside.
        max_bytes: Most bytes (encoded and prepared) inside.
        limits: What an image may measure.
    """

    batch: BatchPolicy
    decode_threads: int
    max_images: int
    max_bytes: int
    limits: ImageLimits


class Pipeline:
    """Implements the `Embedder` port for one encoder. Create, warm and use it on one event loop."""

    def __init__(
        self, encoder: Encoder, policy: PipelinePolicy, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._encoder = encoder
        self._policy = policy
        self._latency = LatencyModel()
        self._prepared_bytes = encoder.preprocessing.height * encoder.preprocessing.width * 3
        self._device = ThreadPoolExecutor(policy.batch.lanes, "encoder")
        self._decoders = ThreadPoolExecutor(policy.decode_threads, "decode")
        self._decode_pool = DecodePool(
            lambda data: prepare(data, encoder.preprocessing, limits=policy.limits),
            executor=self._decoders,
            threads=policy.decode_threads,
            interactive_weight=policy.batch.interactive_weight,
        )
        self._batcher = Batcher(
            encoder.embed,
            executor=self._device,
            policy=policy.batch,
            latency=self._latency,
            clock=clock,
        )
        self._admission = Admission(
            max_images=policy.max_images,
            max_bytes=policy.max_bytes,
            predict=self._predict,
            clock=clock,
        )

    @property
    def model_version(self) -> str:
        """Version of the encoder that makes every vector."""
        return self._encoder.model_version

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._encoder.dimension

    @property
    def images(self) -> int:
        """Images inside."""
        return self._admission.images

    async def embed_image(
        self, data: bytes, *, priority: Priority, deadline: float | None = None
    ) -> Vector:
        """The vector, (D,) float32 of unit length, of one encoded image.

        Args:
            data: JPEG, PNG or WebP.
            priority: Interactive work is served before most bulk work.
            deadline: Instant on the pipeline's clock after which the answer is of no use.

        Raises:
            UndecodableImage, ImageTooLarge: The image itself.
            ResourceExhausted, DeadlineExceeded, Unavailable: See `Admission.admit`.
            ResightError: The encoder failed on this very image.
        """
        if len(data) > self._policy.limits.max_bytes:
            raise ImageTooLarge(
                f"image has {len(data)} bytes, more than {self._policy.limits.max_bytes}; "
                "send a crop of one person",
                field="image",
            )
        size = len(data) + self._prepared_bytes
        with self._admission.admit(size, priority=priority, deadline=deadline):
            image = await self._decode_pool.submit(data, priority=priority)
            return await self._batcher.submit(image, priority=priority, deadline=deadline)

    async def warm_up(self) -> None:
        """Run every batch size that will occur in the ladder, and learn the encoder's speed."""
        await asyncio.get_running_loop().run_in_executor(self._device, self._warm)

    async def run(self) -> None:
        """Serve until closed; raises `DeviceFailureError` when the encoder dies."""
        try:
            await self._batcher.run()
        finally:
            self._admission.close()
            self._decode_pool.close()
            self._device.shutdown(wait=False, cancel_futures=True)
            self._decoders.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Refuse new images; ``run`` returns when those inside are answered."""
        self._admission.close()
        self._batcher.close()

    def _warm(self) -> None:
        shape = (self._encoder.preprocessing.height, self._encoder.preprocessing.width, 3)
        batch = self._policy.batch
        sizes = {size for size in _WARM_SIZES if size < batch.max_batch} | {batch.max_batch}
        for size in sorted(sizes | set(batch.ladder)):
            images = np.zeros((size, *shape), np.uint8)
            self._encoder.embed(images)
            begun = perf_counter()
            self._encoder.embed(images)
            self._latency.observe(size, perf_counter() - begun)

    def _predict(self, ahead: int) -> float:
        batch = self._policy.batch
        embed = self._latency.seconds(ahead + 1, max_batch=batch.max_batch) / batch.lanes
        return embed + self._decode_pool.expected_seconds(1)
